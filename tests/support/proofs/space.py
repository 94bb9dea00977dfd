"""A disk that fills up while the agent works, again and again, and is freed each time."""

from __future__ import annotations

import errno
import hashlib
import json
import random
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from support.agent_process import run_agent, start_agent
from support.agents import doing, wait_until
from support.disks import LoopDisk, fill, memory_disk, scratch
from support.forking import ForkedProcess
from support.real_agent import RealAgent, edge_agent
from support.reckoning import faults_of, read_rows
from support.writers import Drop, Writers

SETTLE_S = 0.1
RATE_HZ = 40.0
DISK_MIB = 12
MIB_PER_FILLING = 12
"""What those who drop images can use up until the agent, which waits for longer each time, has seen that there is space again."""
WAIT_S = 45.0
"""The longest wait for a state: longer than the agent's own longest wait between two tries."""
FULL = ("waiting", "disk_full")
WORKING = ("working", "")


@dataclass
class SpaceFigures:
    """What came of it; ``faults`` names everything that was lost, twice, or not in agreement."""

    fillings: int = 0
    shown_as_full: int = 0
    longest_recovery_s: float = 0.0
    drops: int = 0
    refused_drops: int = 0
    records: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def fill_while_working(
    *, seed: int, fillings: int, kind: Literal["tmpfs", "ext4"], own_inbox: bool, shipped: bool = False, busy_s: float = 0.6
) -> SpaceFigures:
    """Fill the disk of a home under a working agent, see that it says so, free it, see that it goes on.

    Parameters
    ----------
    seed : int
        Of the moments, the amounts, the bytes and the names.
    fillings : int
        How often.
    kind : {"tmpfs", "ext4"}
        The file system that fills up.
    own_inbox : bool
        Whether the inbox is elsewhere, so that images keep coming and must be copied; else who drops images finds no space either.
    shipped : bool
        Whether the agent is the one that ships, with its model, started as a user does.
    busy_s : float
        How long the agent works before the disk is full.

    Raises
    ------
    NoDisksError
        If nothing can be mounted.
    """
    figures, chance, began_s = SpaceFigures(), random.Random(seed), time.monotonic()
    with ExitStack() as at_exit:
        folder = at_exit.enter_context(scratch())
        size_mib = DISK_MIB + MIB_PER_FILLING * fillings
        if kind == "tmpfs":
            disk = at_exit.enter_context(memory_disk(folder / "disk", size_mib * 1024))
        else:
            disk = at_exit.enter_context(LoopDisk.make(folder / "disk.img", folder / "disk", size_mib).mounted())
        home = disk / "home"
        inbox = (folder if own_inbox else home) / "inbox"
        inbox.mkdir(parents=True)
        process: ForkedProcess | RealAgent = (
            RealAgent(folder, home, "--inbox", str(inbox), settle_s=SETTLE_S)
            if shipped
            else start_agent(home, inbox=inbox, settle_time_s=SETTLE_S, extra='[log]\nlevel = "error"\n')
        )
        at_exit.enter_context(process)
        at_exit.callback(process.kill)
        wait_until(lambda: process.poll() is not None or doing(home) == WORKING)
        tolerated = frozenset({errno.ENOSPC})
        with Writers(inbox, settle_s=SETTLE_S, rate_hz=RATE_HZ, seed=seed, tolerates=tolerated) as writers:
            for _ in range(fillings):
                time.sleep(chance.uniform(0.2, 1.0) * busy_s)
                _fill_and_free(home, writers, process, figures, chance)
        wait_until(lambda: process.poll() is not None or not list(inbox.rglob("*.png")))
        process.terminate()
        if (code := process.wait(timeout=120)) != 0:
            figures.faults.append(f"the agent ended with {code}")
        if not shipped:
            code, said = run_agent(home, once=True, inbox=inbox, settle_time_s=SETTLE_S)
            figures.faults += [f"the last agent ended with {code}: {said[-500:]}"] if code else []
        figures.faults += faults_of(home, inbox, writers.book)
        figures.records = len(read_rows(home))
    figures.drops = writers.dropped
    figures.refused_drops = sum(drop.state == "begun" for drop in writers.book)
    figures.seconds = round(time.monotonic() - began_s, 1)
    return figures


def _fill_and_free(home: Path, writers: Writers, process: ForkedProcess | RealAgent, figures: SpaceFigures, chance: random.Random) -> None:
    """Fill the disk; wait until the agent says so, in its state and by ``edge-agent status``; free it; wait until it works again."""
    number = figures.fillings
    # Whoever drops images may find no space either. This file is there before, and only gets its name when the disk is full; it cannot be
    # classified, and the note for the technician needs space.
    content = f"no image, number {number}\n".encode()
    last = Drop((f"last-{number}.jpg",), hashlib.sha256(content).hexdigest(), "there", is_image=False)
    hidden = writers.inbox / f".last-{number}"
    hidden.write_bytes(content)
    filler = fill(home.parent, leave_kib=chance.choice((0, 0, 8, 40)))
    figures.fillings += 1
    writers.book.append(last)
    hidden.rename(writers.inbox / last.names[0])
    try:
        wait_until(lambda: process.poll() is not None or doing(home) == FULL, WAIT_S)
        said = _status(home) if number % 5 == 0 else "disk_full"
        if process.poll() is not None:
            figures.faults.append(f"filling {number}: the agent ended")
        elif said != "disk_full":
            figures.faults.append(f"filling {number}: status says {said}")
        else:
            figures.shown_as_full += 1
    except AssertionError:
        figures.faults.append(f"filling {number}: the agent does not say that the disk is full, but {doing(home)}")
    filler.unlink()
    freed_s = time.monotonic()
    try:
        wait_until(lambda: process.poll() is not None or doing(home) == WORKING, WAIT_S)
    except AssertionError:
        figures.faults.append(f"filling {number}: the agent does not go on, but says {doing(home)}")
    figures.longest_recovery_s = round(max(figures.longest_recovery_s, time.monotonic() - freed_s), 2)


def _status(home: Path) -> str:
    """What ``edge-agent status`` says that the agent waits for. Asked up to three times: the agent may be trying just then."""
    said = ""
    for _ in range(3):
        done = edge_agent("status", "--home", home, "--format", "json")
        said = str(json.loads(done.stdout)["waits_for"]) if done.returncode == 0 else done.stderr
        # On a full disk not even a reader can open a database that the agent has just let go of: then the state alone is told.
        if said == "disk_full" or ("an agent runs here" in said and "no space is left" in said):
            return "disk_full"
    return said
