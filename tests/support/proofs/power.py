"""Power cuts: the disk as it was at a random moment, without what the page cache had not written, and an agent started on that."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.agent_process import run_agent, start_agent
from support.agents import doing, wait_until
from support.disks import LoopDisk, scratch
from support.forking import ForkedProcess
from support.real_agent import RealAgent, edge_agent
from support.reckoning import faults_of, image_files, read_rows
from support.writers import Writers

SETTLE_S = 0.1
RATE_HZ = 60.0
DISK_MIB = 40
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
        if self._stopping.is_set():
            return self.seen
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


class Box:
    """A machine whose power fails: a home folder on one disk, and the inbox on the same or on a disk of its own."""

    def __init__(self, folder: Path, disks: list[LoopDisk], *, is_real: bool, settings: dict[str, Any]) -> None:
        self.home = disks[0].mount_point / "home"
        self.inbox = disks[1].mount_point / "inbox" if len(disks) > 1 else self.home / "inbox"
        self._folder = folder
        self._disks = disks
        self._is_real = is_real
        self._settings = settings

    @classmethod
    def make(cls, folder: Path, count: int, *, is_real: bool, settings: dict[str, Any]) -> Box:
        """Make one with empty disks."""
        disks = [LoopDisk.make(folder / f"{number}-0.img", folder / f"{number}-0", DISK_MIB) for number in range(count)]
        return cls(folder, disks, is_real=is_real, settings=settings)

    @contextmanager
    def powered(self, options: str = "") -> Iterator[None]:
        """Have its disks mounted for the block; journals are replayed."""
        with ExitStack() as at_exit:
            for disk in self._disks:
                at_exit.enter_context(disk.mounted(options))
            self.home.mkdir(exist_ok=True)
            self.inbox.mkdir(exist_ok=True)
            yield

    @contextmanager
    def working(self) -> Iterator[ForkedProcess | RealAgent]:
        """Run its agent for the block, from its first work on; it is killed in the end."""
        options = () if len(self._disks) == 1 else ("--inbox", str(self.inbox))
        process = (
            RealAgent(self._folder, self.home, *options, settle_s=SETTLE_S)
            if self._is_real
            else start_agent(self.home, inbox=self.inbox, settle_time_s=SETTLE_S, classify_s=0.002, **self._settings)
        )
        with process:
            try:
                wait_until(lambda: process.poll() is not None or doing(self.home) == ("working", ""))
                yield process
            finally:
                process.kill()

    def stand_still(self, process: ForkedProcess | RealAgent) -> None:
        """Let the agent not do another thing."""
        assert process.poll() is None, "the agent ended by itself"
        process.send_signal(signal.SIGSTOP)

    def cut(self) -> Box:
        """Give the box that is left when its power fails now; everybody must stand still."""
        disks = []
        for disk in self._disks:
            number, _, generation = disk.mount_point.name.partition("-")
            name = f"{number}-{int(generation) + 1}"
            disks.append(disk.cut(self._folder / f"{name}.img", self._folder / name))
        return Box(self._folder, disks, is_real=self._is_real, settings=self._settings)

    def finish(self) -> list[str]:
        """Let its agent do all that is there; gives its fault."""
        if self._is_real:
            done = edge_agent("run", "--once", "--config", self._folder / "agent.toml", "--home", self.home, "--inbox", self.inbox)
            code, said = done.returncode, done.stderr
        else:
            code, said = run_agent(self.home, once=True, inbox=self.inbox, settle_time_s=SETTLE_S)
        return [f"the next agent ended with {code}: {said[-500:]}"] if code else []


def cut_power(
    *,
    seed: int,
    cuts: int,
    longest_s: float = 2.0,
    real_every: int = 0,
    at_least: int = 0,
    inboxes: tuple[int, ...] = (1, 1, 2),
    **settings: Any,
) -> PowerFigures:
    """Cut the power of a working agent again and again, each time of a new box, and look what is left.

    Some boxes have the inbox on a disk of its own. Some lose their power once more, early, while the next agent makes up for the first cut.

    Parameters
    ----------
    seed : int
        Of the moments, the bytes and the names.
    cuts : int
        At least so many.
    longest_s : float
        An agent works for a random time up to this before the cut.
    at_least : int
        A box loses its power only when so many of its images are shown and moved, however long that takes.
    inboxes : tuple of int
        What is drawn from: 1 is a box with one disk, 2 one whose inbox is on a disk of its own.
    real_every : int
        Each so-many-th box runs the model that ships; 0 is none.
    **settings
        For ``support.agent_process``: how a control breaks the agent on purpose.

    Raises
    ------
    NoDisksError
        If no loop device can be mounted.
    """
    figures, chance, began_s = PowerFigures(), random.Random(seed), time.monotonic()
    number = 0
    while figures.cuts < cuts:
        number += 1
        is_real = real_every > 0 and number % real_every == 0
        with scratch() as folder:
            box = Box.make(folder, chance.choice(inboxes), is_real=is_real, settings=settings)
            cuts_before = figures.cuts
            _cut(box, figures, chance, 1000 * seed + number, longest_s, at_least)
            figures.cuts_of_the_shipped_model += is_real * (figures.cuts - cuts_before)
    figures.seconds = round(time.monotonic() - began_s, 1)
    return figures


def _cut(box: Box, figures: PowerFigures, chance: random.Random, seed: int, longest_s: float, at_least: int) -> None:
    """Cut the power of one box while writers are at it, and perhaps again."""
    writers = Writers(box.inbox, settle_s=SETTLE_S, rate_hz=RATE_HZ, seed=seed, manners=MANNERS)
    # Journal commits without a caller: seldom, so that most is lost, or often, so that names are there before their bytes are.
    with box.powered(chance.choice(("", "", "commit=1"))), ExitStack() as at_exit:
        process = at_exit.enter_context(box.working())
        at_exit.callback(writers.stop, abandon=True)
        writers.start()
        witness = Witness(box.home)
        at_exit.callback(witness.stop)
        time.sleep(chance.uniform(0.1, longest_s))
        wait_until(lambda: process.poll() is not None or (len(witness.seen.shown) >= at_least and _count(box.home / "done") >= at_least))
        box.stand_still(process)
        writers.pause()
        seen = witness.stop()
        box = box.cut()
    figures.cuts += 1
    while chance.random() < 0.3:
        with box.powered(), box.working() as process:
            time.sleep(chance.uniform(0, 0.3))
            box.stand_still(process)
            box = box.cut()
        figures.cuts += 1
    figures.drops += writers.dropped
    figures.durable_drops += sum(drop.state == "durable" for drop in writers.book)
    figures.shown += len(seen.shown)
    figures.exported += len(seen.exported)
    figures.moved += len(seen.moved)
    with box.powered():
        faults = box.finish()
        faults += lost_of(box.home, seen)
        faults += faults_of(box.home, box.inbox, writers.book, after_cut=frozenset(seen.shown.values()))
    figures.faults += [f"box {seed}: {fault}" for fault in faults]


def _count(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob("*"))


def lost_of(home: Path, seen: Seen) -> list[str]:
    """Name what was seen before the cut and is not there after it, under the same number and with the same bytes."""
    rows = {row["id"]: (row["path"], row["sha256"]) for row in read_rows(home)}
    faults = [f"shown record {number} is lost" for number, what in seen.shown.items() if rows.get(number) != what]
    faults += [f"exported record {number} is lost" for number, what in seen.exported.items() if rows.get(number) != what]
    there = image_files(home / "done")
    faults += [f"done/{path} is lost, or not what it was" for path, sha256 in seen.moved.items() if there.get(path) != sha256]
    # A database that had to be made anew would hide what was broken.
    return faults + [f"event {row['code']}" for row in read_rows(home, "SELECT code FROM event") if "rebuilt" in row["code"]]
