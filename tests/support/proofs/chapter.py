"""A home folder and what happens to its agent, one trouble after the other, until the reckoning."""

from __future__ import annotations

import errno
import hashlib
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import timedelta
from pathlib import Path

from edge_agent.files.atomic import sync_file_system
from support.agent_process import run_agent, start_agent
from support.agents import doing, image_bytes, wait_until
from support.clocks import FakeClock
from support.disks import LoopDisk, check_disk, fill, remount
from support.forking import ForkedProcess
from support.memory import resident_mib
from support.proofs.power import MANNERS, Seen, Witness, lost_of
from support.proofs.soak_figures import A_RUN_S, SoakFigures
from support.real_agent import RealAgent, edge_agent
from support.reckoning import faults_of, is_promised, read_rows
from support.writers import Drop, Writers, write_durably

SETTLE_S = 0.2
RATE_HZ = 10.0
HOME_MIB, INBOX_MIB = 160, 64
RECOVERY_S = 120.0
"""The longest wait for the record of an image that comes after a fault: some times the agent's own longest wait between two tries."""
WARM_UP_S = 10.0
_TOLERATED = frozenset({errno.ENOSPC, errno.EROFS, errno.EIO, errno.ENOENT})


class Chapter:
    """A home folder, an agent on it, and those who drop images, until the reckoning. Use as a context manager: nothing is left behind.

    Parameters
    ----------
    folder : Path
        Empty, for everything.
    figures : SoakFigures
        Added to.
    seed : int
        Of everything that is random.
    shipped : bool
        Whether the agent is the one that ships, started as a user does; else it is quick, with a tiny model.
    on_disks : bool
        Whether home and inbox are on disks of their own, which can fill up, fail and be cut off. Takes root.
    hold_s : float
        The longest time that a trouble lasts.
    """

    def __init__(self, folder: Path, figures: SoakFigures, *, seed: int, shipped: bool, on_disks: bool, hold_s: float) -> None:
        self._folder = folder
        self._figures = figures
        self._seed = seed
        self._chance = random.Random(seed)
        self._shipped = shipped
        self._hold_s = hold_s
        self._book: list[Drop] = []
        self._seen = Seen()
        self._disks: list[LoopDisk] = []
        self._generation = 0
        if on_disks:
            sizes = (HOME_MIB, INBOX_MIB)[: self._chance.choice((1, 2))]
            self._disks = [LoopDisk.make(folder / f"{place}.img", folder / str(place), size) for place, size in enumerate(sizes)]
        self._has_own_inbox = len(self._disks) > 1
        self._agent: RealAgent | ForkedProcess | None = None
        self._writers: Writers | None = None

    @property
    def _home(self) -> Path:
        return (self._disks[0].mount_point if self._disks else self._folder) / "home"

    @property
    def _inbox(self) -> Path:
        return (self._disks[1].mount_point if self._has_own_inbox else self._home) / "inbox"

    def __enter__(self) -> Chapter:
        with ExitStack() as at_fault:
            at_fault.callback(self._clear_up)
            for disk in self._disks:
                disk.mount()
            self._inbox.mkdir(parents=True)
            self._home.mkdir(exist_ok=True)
            for folder in (self._home, self._inbox):
                sync_file_system(folder)  # a power cut in the first seconds is to find them
            self._start_agent()
            wait_until(lambda: self._working_agent() and doing(self._home) == ("working", ""), RECOVERY_S)
            self._start_writers()
            at_fault.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._clear_up()

    def _clear_up(self) -> None:
        self._stop_writers(abandon=True)
        if self._agent is not None:
            with self._agent as agent:
                agent.kill()
            self._agent = None
        for disk in self._disks:
            if disk.mount_point.is_mount():
                disk.unmount(lazy=True)

    # The agent and those who drop images

    def _start_agent(self, environment: dict[str, str] | None = None) -> None:
        self._agent = (
            RealAgent(self._folder, self._home, "--inbox", str(self._inbox), settle_s=SETTLE_S, environment=environment)
            if self._shipped
            else start_agent(self._home, inbox=self._inbox, settle_time_s=SETTLE_S, extra='[log]\nlevel = "error"\n')
        )
        self._figures.agents += 1
        self._started_s = time.monotonic()
        self._first_mib = 0.0

    def _end_agent(self, number: signal.Signals) -> None:
        with self._working_agent() as agent:
            agent.send_signal(number)
            code = agent.wait(timeout=120)
        if code != (0 if number == signal.SIGTERM else -number):
            self._figures.add_faults([f"chapter {self._seed}: the agent ended with {code} at {number.name}"])
        self._agent = None

    def _working_agent(self) -> RealAgent | ForkedProcess:
        assert self._agent is not None
        if (code := self._agent.poll()) is not None:
            log = self._folder / "agent.log"
            said = log.read_text("utf-8")[-1500:] if log.exists() else ""
            raise AssertionError(f"the agent ended by itself, with {code}: {said}")
        return self._agent

    def _start_writers(self) -> None:
        self._generation += 1
        seed = self._seed * 1000 + self._generation
        self._writers = Writers(
            self._inbox, settle_s=SETTLE_S, rate_hz=RATE_HZ, seed=seed, manners=MANNERS, book=self._book, tolerates=_TOLERATED
        )
        self._writers.start()

    def _stop_writers(self, *, abandon: bool = False) -> None:
        if self._writers is not None:
            self._writers.stop(abandon=abandon)
            self._writers = None

    # The course

    def meet(self, trouble: str) -> None:
        """Do something to the agent, and wait until it has got over it.

        Raises
        ------
        AssertionError
            If it has ended, or does not work again within two minutes.
        """
        self._figures.troubles[trouble] = self._figures.troubles.get(trouble, 0) + 1
        try:
            TROUBLES[trouble](self)
            took_s = self._recover()
        except AssertionError as fault:
            raise AssertionError(f"{trouble}: {fault}") from fault
        self._figures.recovery_s[trouble] = max(took_s, self._figures.recovery_s.get(trouble, 0.0))
        self._figures.longest_recovery_s = max(self._figures.recovery_s.values())
        self._weigh()

    def _recover(self) -> float:
        """Drop an image; gives the seconds until its record."""
        number = sum(self._figures.troubles.values())
        content = image_bytes(900_000_000 + number)
        drop = Drop((f"after {number}.png",), hashlib.sha256(content).hexdigest())
        self._book.append(drop)
        write_durably(self._inbox / drop.names[0], content)
        drop.state = "durable"
        began_s = time.monotonic()

        def is_there() -> bool:
            self._working_agent()
            newest = read_rows(self._home, "SELECT path FROM record ORDER BY id DESC LIMIT 1000")
            return any(row["path"] == drop.names[0] for row in newest)

        while not is_there():
            took_s = time.monotonic() - began_s
            assert took_s < RECOVERY_S, f"no record of a new image after {took_s:.0f} s; the agent says {doing(self._home)}"
            time.sleep(0.02)
        return round(time.monotonic() - began_s, 2)

    def _weigh(self) -> None:
        """Measure the agent's memory; take the first measure after the warm-up as what it is to be compared with."""
        lived_s = time.monotonic() - self._started_s
        figures, size = self._figures, resident_mib(self._working_agent().pid)
        figures.longest_run_s = round(max(figures.longest_run_s, lived_s), 1)
        figures.memory_mib = round(max(figures.memory_mib, size), 1)
        if lived_s > WARM_UP_S:
            self._first_mib = self._first_mib or size
        if lived_s > A_RUN_S:
            figures.memory_growth_percent = round(max(figures.memory_growth_percent, 100 * (size / self._first_mib - 1)), 1)

    def reckon(self) -> None:
        """Let the agent finish; compare what is there with what was dropped."""
        self._stop_writers()
        wait_until(lambda: self._working_agent() and not list(self._inbox.rglob("*.png")), RECOVERY_S)
        self._end_agent(signal.SIGTERM)
        if self._shipped:
            config = self._folder / "agent.toml"
            done = edge_agent("run", "--once", "--config", config, "--home", self._home, "--inbox", self._inbox, timeout_s=600)
            code, said = done.returncode, done.stderr
        else:
            code, said = run_agent(self._home, once=True, inbox=self._inbox, settle_time_s=SETTLE_S)
        found = [f"the last agent ended with {code}: {said[-500:]}"] if code else []
        found += lost_of(self._home, self._seen) + faults_of(self._home, self._inbox, self._book)
        self._figures.add_faults([f"chapter {self._seed}: {fault}" for fault in found])
        self._figures.drops += sum(drop.state != "begun" for drop in self._book)
        self._figures.records += len(read_rows(self._home))
        self._figures.chapters += 1

    def _hold(self, *, until_shown: bool = False) -> None:
        """Let a trouble last, if asked until the agent shows that it waits, and note what it says of it."""
        time.sleep(self._chance.uniform(0.3, 1.0) * self._hold_s)
        if until_shown:
            wait_until(lambda: self._working_agent() and doing(self._home)[0] == "waiting", RECOVERY_S)
        if (said := doing(self._home))[0] == "waiting":
            self._figures.states[said[1]] = self._figures.states.get(said[1], 0) + 1

    # What happens to the agent

    def _kill(self) -> None:
        self._end_agent(signal.SIGKILL)
        self._start_agent()

    def _restart(self) -> None:
        self._end_agent(signal.SIGTERM)
        self._start_agent()

    def _reload(self) -> None:
        self._working_agent().send_signal(signal.SIGHUP)

    def _suspend(self) -> None:
        self._working_agent().send_signal(signal.SIGSTOP)
        try:
            time.sleep(self._chance.uniform(0.3, 1.0) * self._hold_s)
        finally:
            self._working_agent().send_signal(signal.SIGCONT)

    def _lock_database(self) -> None:
        with closing(sqlite3.connect(self._home / "state" / "edge-agent.db", timeout=30, isolation_level=None)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            self._hold()
            connection.execute("ROLLBACK")

    def _export(self) -> None:
        """Export, and ask for the status, beside the agent."""
        known, out = len(read_rows(self._home)), self._folder / "export.jsonl"
        for command in (("export", "--home", str(self._home), "--out", str(out)), ("status", "--home", str(self._home))):
            done = edge_agent(*command)
            if done.returncode:
                self._figures.add_faults([f"{command[0]} ended with {done.returncode}: {done.stderr[-300:]}"])
        if (lines := len(out.read_text("utf-8").splitlines())) < known:
            self._figures.add_faults([f"the export misses {known - lines} of {known} records"])

    def _jump_clock(self) -> None:
        """Let the clock of an agent jump by a year, both ways."""
        clock = FakeClock(self._folder)
        self._end_agent(signal.SIGTERM)
        self._start_agent(clock.environment)
        for days in (366, -366, 0):
            clock.set_ahead(timedelta(days=days))
            self._hold()
        self._end_agent(signal.SIGTERM)
        self._start_agent()

    def _take_inbox_away(self) -> None:
        self._stop_writers()
        if self._has_own_inbox:
            disk = self._disks[1]
            disk.unmount()
            self._hold(until_shown=True)
            disk.mount()
        else:
            away = self._inbox.rename(self._inbox.with_name("away"))
            self._hold(until_shown=True)
            away.rename(self._inbox)
        self._start_writers()

    def _fill_disk(self) -> None:
        filler = fill(self._disks[0].mount_point, leave_kib=self._chance.choice((0, 8, 40, 200)))
        try:
            self._hold()
        finally:
            filler.unlink()

    def _freeze_disk(self) -> None:
        """Let the disk take nothing for a while: whoever writes, waits."""
        with _frozen(self._disks[0].mount_point):
            time.sleep(self._chance.uniform(0.3, 1.0) * self._hold_s)

    def _cut_power(self) -> None:
        """Go on with what the disks held when the power failed."""
        self._stand_still()
        old, self._generation = self._disks, self._generation + 1
        place = self._folder
        copies = [disk.cut(place / f"{self._generation}-{n}.img", place / f"{self._generation}-{n}") for n, disk in enumerate(old)]
        self._switch_off()
        for disk in old:
            disk.image.unlink()
        self._disks = copies
        self._switch_on()

    def _break_disk(self) -> None:
        """Let the file system stop itself, as after a fault of the disk: read-only until it was checked, on a machine started anew."""
        self._stand_still()
        remount(self._disks[0].mount_point, "abort")
        self._working_agent().send_signal(signal.SIGCONT)
        self._hold()
        self._switch_off()
        check_disk(self._disks[0].image)
        self._switch_on()

    def _stand_still(self) -> None:
        """Let nobody write any more, and see what must outlive what comes now."""
        assert self._writers is not None
        self._working_agent().send_signal(signal.SIGSTOP)
        self._writers.pause()
        seen = Witness(self._home).stop()
        for known, now in ((self._seen.shown, seen.shown), (self._seen.exported, seen.exported)):
            known.update(now)
        self._seen.moved.update(seen.moved)
        recorded = frozenset(seen.shown.values())
        for drop in self._book:
            drop.excused = drop.excused or not is_promised(drop, recorded)

    def _switch_off(self) -> None:
        self._end_agent(signal.SIGKILL)
        self._stop_writers(abandon=True)
        self._unmount()

    def _switch_on(self) -> None:
        for disk in self._disks:
            disk.mount()
        self._start_agent()
        self._start_writers()

    def _unmount(self) -> None:
        for disk in self._disks:
            if disk.mount_point.is_mount():
                disk.unmount()


TROUBLES: dict[str, Callable[[Chapter], None]] = {
    "killed": Chapter._kill,
    "stopped and started": Chapter._restart,
    "configuration read again": Chapter._reload,
    "suspended": Chapter._suspend,
    "database locked": Chapter._lock_database,
    "export and status": Chapter._export,
    "clock jumps": Chapter._jump_clock,
    "inbox away": Chapter._take_inbox_away,
    "disk full": Chapter._fill_disk,
    "disk stands still": Chapter._freeze_disk,
    "power cut": Chapter._cut_power,
    "disk fails": Chapter._break_disk,
}
END_THE_AGENT = ("killed", "stopped and started", "clock jumps", "power cut", "disk fails")
"""The others come twice as often, so that some agents live for minutes."""
ON_DISKS = ("disk full", "disk stands still", "power cut", "disk fails")


@contextmanager
def _frozen(mount_point: Path) -> Iterator[None]:
    subprocess.run(["fsfreeze", "--freeze", mount_point], check=True)
    try:
        yield
    finally:
        subprocess.run(["fsfreeze", "--unfreeze", mount_point], check=True)
