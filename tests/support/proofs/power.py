"""Power cuts: the disk as it was at a random moment, without what the page cache had not written, and an agent started on that."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import threading
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.agent_process import run_agent, start_agent
from support.disks import LoopDisk, scratch
from support.forking import ForkedProcess
from support.real_agent import RealAgent, edge_agent
from support.reckoning import faults_of, image_files, read_rows
from support.writers import Writers

SETTLE_S = 0.1
RATE_HZ = 60.0
DISK_MIB = 48
MANNERS = ("renaming", "careful", "careful", "slow", "reopening", "duplicate", "same name", "no image")


@dataclass
class Seen:
    """What somebody beside the agent saw before the power failed."""

    shown: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Records that another connection read: path and SHA-256 by id."""
    exported: dict[int, tuple[str, str]] = field(default_factory=dict)
    """The same, from the lines of ``results/predictions.jsonl``."""
    moved: dict[str, str] = field(default_factory=dict)
    """Files in ``done/``: SHA-256 by path."""


@dataclass
class PowerFigures:
    """What came of it; ``faults`` names everything that was lost, twice, or not in agreement."""

    cuts: int = 0
    cuts_of_the_shipped_model: int = 0
    drops: int = 0
    durable_drops: int = 0
    shown: int = 0
    exported: int = 0
    moved: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


class Witness:
    """Looks at a home folder from beside the agent, all the time, in a thread of its own."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._stopping = threading.Event()
        self.seen = Seen()
        self._thread = threading.Thread(target=self._keep_looking, name="witness")
        self._thread.start()

    def stop(self) -> Seen:
        """Look a last time, at an agent that stands still; gives what was seen."""
        self._stopping.set()
        self._thread.join()
        self._look()
        self.seen.moved = image_files(self._home / "done")
        return self.seen

    def _keep_looking(self) -> None:
        while not self._stopping.wait(0.02):
            self._look()

    def _look(self) -> None:
        database = self._home / "state" / "edge-agent.db"
        after_id = max(self.seen.shown, default=0)
        with (
            suppress(sqlite3.OperationalError),  # not made yet
            closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as connection,
        ):
            rows = connection.execute("SELECT id, path, sha256 FROM record WHERE id > ?", (after_id,))
            self.seen.shown.update({number: (path, sha256) for number, path, sha256 in rows})
        with suppress(FileNotFoundError):
            lines = (self._home / "results" / "predictions.jsonl").read_bytes().split(b"\n")[len(self.seen.exported) : -1]
            self.seen.exported.update({line["id"]: (line["path"], line["sha256"]) for line in map(json.loads, lines)})


def cut_power(*, seed: int, cuts: int, longest_s: float = 2.0, real_every: int = 0, **settings: Any) -> PowerFigures:
    """Cut the power of a working agent again and again, each time on a new disk, and look what is left.

    Parameters
    ----------
    seed : int
        Of the moments, the bytes and the names.
    cuts : int
        How many.
    longest_s : float
        An agent works for a random time up to this before the cut.
    real_every : int
        Each so-many-th agent runs the model that ships; 0 is none.
    **settings
        For ``support.agent_process``: how a control breaks the agent on purpose.

    Raises
    ------
    NoDisksError
        If no loop device can be mounted.
    """
    figures, chance, began_s = PowerFigures(), random.Random(seed), time.monotonic()
    for number in range(cuts):
        is_real = real_every > 0 and number % real_every == real_every - 1
        with scratch() as folder:
            _cut_once(folder, figures, chance, 1000 * seed + number, longest_s, is_real=is_real, settings=settings)
    figures.seconds = round(time.monotonic() - began_s, 1)
    return figures


def _cut_once(
    folder: Path, figures: PowerFigures, chance: random.Random, seed: int, longest_s: float, *, is_real: bool, settings: dict[str, Any]
) -> None:
    disk = LoopDisk.make(folder / "disk.img", folder / "disk", DISK_MIB)
    # Journal commits without a caller: seldom, so that most is lost, or often, so that names are there before their bytes are.
    options = chance.choice(("", "", "commit=1"))
    with ExitStack() as at_exit:
        at_exit.enter_context(disk.mounted(options))
        home = disk.mount_point / "home"
        (home / "inbox").mkdir(parents=True)
        process: ForkedProcess | RealAgent
        if is_real:
            process = at_exit.enter_context(RealAgent(folder, home, settle_s=SETTLE_S))
            process.wait_until_started()
        else:
            process = at_exit.enter_context(start_agent(home, settle_time_s=SETTLE_S, classify_s=0.002, **settings))
        at_exit.callback(process.kill)
        writers = Writers(home / "inbox", settle_s=SETTLE_S, rate_hz=RATE_HZ, seed=seed, manners=MANNERS)
        at_exit.callback(writers.stop, abandon=True)
        writers.__enter__()
        witness = Witness(home)
        time.sleep(chance.uniform(0.2, longest_s))
        assert process.poll() is None, "the agent ended by itself"
        process.send_signal(signal.SIGSTOP)
        writers.pause()
        seen = witness.stop()
        after = disk.cut(folder / "after.img", folder / "after")
        writers.stop(abandon=True)
        process.kill()
        process.wait()
    figures.cuts += 1
    figures.cuts_of_the_shipped_model += is_real
    figures.drops += writers.dropped
    figures.durable_drops += sum(drop.state == "durable" for drop in writers.book)
    figures.shown += len(seen.shown)
    figures.exported += len(seen.exported)
    figures.moved += len(seen.moved)
    with after.mounted():
        home = after.mount_point / "home"
        figures.faults += [f"cut {seed}: {fault}" for fault in _go_on(folder, home, is_real=is_real)]
        figures.faults += [f"cut {seed}: {fault}" for fault in _lost(home, seen)]
        recorded = frozenset(seen.shown.values())
        figures.faults += [f"cut {seed}: {fault}" for fault in faults_of(home, home / "inbox", writers.book, after_cut=recorded)]


def _go_on(folder: Path, home: Path, *, is_real: bool) -> list[str]:
    """Start an agent where the power has come back; it must do what is there."""
    if is_real:
        done = edge_agent("run", "--once", "--config", folder / "agent.toml", "--home", home)
        code, said = done.returncode, done.stderr
    else:
        code, said = run_agent(home, once=True, settle_time_s=SETTLE_S)
    return [f"the next agent ended with {code}: {said[-500:]}"] if code else []


def _lost(home: Path, seen: Seen) -> list[str]:
    """What was seen before the cut must be there after it, under the same number and with the same bytes."""
    rows = {row["id"]: (row["path"], row["sha256"]) for row in read_rows(home)}
    faults = [f"shown record {number} is lost" for number, what in seen.shown.items() if rows.get(number) != what]
    faults += [f"exported record {number} is lost" for number, what in seen.exported.items() if rows.get(number) != what]
    there = image_files(home / "done")
    faults += [f"done/{path} is lost, or not what it was" for path, sha256 in seen.moved.items() if there.get(path) != sha256]
    # A database that had to be made anew would hide what was broken.
    return faults + [f"event {row['code']}" for row in read_rows(home, "SELECT code FROM event") if "rebuilt" in row["code"]]
