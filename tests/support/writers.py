"""Those who drop images into an inbox, all at once and each in its own way, and the book of what they dropped."""

from __future__ import annotations

import hashlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from support.agents import image_bytes

MANNERS = ("renaming", "careful", "slow", "reopening", "duplicate", "same name", "overwriting", "renamed twice", "no image")
"""
renaming
    Written as ``NAME.part``, then renamed: what most programs do.
careful
    The same, and file and folder are fsynced: what may be relied on after a power cut.
slow
    Under its own name from the first byte on, in chunks.
reopening
    The same, closed and opened again between the chunks, as scanners do.
duplicate
    The bytes of an earlier image under another name.
same name
    New bytes under the one name, as soon as that is free.
overwriting
    New bytes put in the place of what may still wait there.
renamed twice
    A file that gets another name while it waits.
no image
    Text called ``.jpg``.
"""

State = Literal["begun", "there", "durable"]


@dataclass
class Drop:
    """One file that a writer put into the inbox.

    Attributes
    ----------
    names : tuple of str
        Its path relative to the inbox; where it was renamed while it waited, the agent may have met it under the first one, too.
    sha256 : str
        Of the whole file.
    state : {"begun", "there", "durable"}
        How far its writer came. Only what is durable is promised to outlive a power cut.
    overwritten : bool
        Its writer put other bytes in its place, perhaps before the agent saw it.
    excused : bool
        It stood still for the settle time while it was written, because this machine was busy: the agent was right to take it.
    is_image : bool
        Whether it can be classified.
    """

    names: tuple[str, ...]
    sha256: str
    state: State = "begun"
    overwritten: bool = False
    excused: bool = False
    is_image: bool = True


class _StopWritingError(Exception):
    """The writer is to end, wherever it is."""


class Writers:
    """Threads that drop images until they are stopped, at ``rate_hz`` together. Use as a context manager; leaving it ends them.

    Parameters
    ----------
    inbox : Path
        Where they write.
    settle_s : float
        The agent's settle time: what a slow writer must not exceed between two chunks.
    rate_hz : float
        Drops in a second, all writers together.
    seed : int
        Different seeds write different bytes and names.
    manners : tuple of str
        One writer for each.
    book : list of Drop
        What was dropped before, to be continued.
    tolerates : frozenset of int
        The errnos after which a writer goes on with its next file, as a technician does: no space, no share.
    """

    def __init__(
        self,
        inbox: Path,
        *,
        settle_s: float,
        rate_hz: float,
        seed: int = 0,
        manners: tuple[str, ...] = MANNERS,
        book: list[Drop] | None = None,
        tolerates: frozenset[int] = frozenset(),
    ) -> None:
        self.inbox = inbox
        self._settle_s = settle_s
        self._pause_s = len(manners) / rate_hz
        self._seed = seed
        self.book: list[Drop] = [] if book is None else book
        self._tolerates = tolerates
        self._may_write = threading.Event()
        self._may_write.set()
        self._stopping = False
        self._breathing = threading.Semaphore(0)
        self._faults: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._work, args=(manner, number), name=f"writer {manner}") for number, manner in enumerate(manners)
        ]

    def start(self) -> None:
        """Let them begin."""
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, _fault: BaseException | None, _trace: TracebackType | None) -> None:
        self.stop()
        if self._faults and kind is None:
            raise self._faults[0]

    @property
    def dropped(self) -> int:
        """How many files are there so far, or were."""
        return sum(drop.state != "begun" for drop in self.book)

    def stop(self, *, abandon: bool = False) -> None:
        """End all writers: after the file in hand, or, with ``abandon``, in the middle of it."""
        self._stopping = True
        if not abandon:
            self._may_write.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def pause(self) -> None:
        """Hold all writers where they are, perhaps in the middle of a file."""
        self._may_write.clear()
        for thread in self._threads:
            while thread.is_alive() and not self._breathing.acquire(timeout=0.1):
                pass

    def resume(self) -> None:
        """Let them go on."""
        self._may_write.set()

    def _work(self, manner: str, number: int) -> None:
        write: Callable[[int, random.Random], None] = getattr(self, f"_write_{manner.replace(' ', '_')}")
        chance = random.Random(f"{self._seed} {manner}")
        count = 0
        try:
            self._breathe(chance.uniform(0, self._pause_s))
            while not self._stopping:
                try:
                    write((self._seed * len(MANNERS) + number) * 1_000_000 + count, chance)
                except OSError as fault:
                    if fault.errno not in self._tolerates:
                        raise
                count += 1
                self._breathe(chance.uniform(0.5, 1.5) * self._pause_s)
        except _StopWritingError:
            pass
        except BaseException as fault:
            self._faults.append(fault)

    def _breathe(self, wait_s: float) -> None:
        """Wait; the place where a writer can be held, and ended."""
        until_s = time.monotonic() + wait_s
        while True:
            if not self._may_write.is_set():
                self._breathing.release()
                while not self._may_write.wait(0.01):
                    if self._stopping:
                        raise _StopWritingError
            left_s = until_s - time.monotonic()
            if left_s <= 0 or (self._stopping and wait_s >= self._pause_s / 2):
                return
            time.sleep(min(left_s, 0.01))

    def _begin(self, content: bytes, *names: str, is_image: bool = True) -> Drop:
        drop = Drop(names, hashlib.sha256(content).hexdigest(), is_image=is_image)
        self.book.append(drop)
        (self.inbox / names[0]).parent.mkdir(parents=True, exist_ok=True)
        return drop

    # The manners

    def _write_renaming(self, number: int, chance: random.Random) -> None:
        content = image_bytes(number)
        name = f"{chance.choice(('', '', 'ward 3/', 'ward 3/deep/'))}r{number}.png"
        drop = self._begin(content, name)
        part = self.inbox / f"{name}.part"
        part.write_bytes(content)
        part.rename(self.inbox / name)
        drop.state = "there"

    def _write_careful(self, number: int, _chance: random.Random) -> None:
        content = image_bytes(number)
        drop = self._begin(content, f"c{number}.png")
        write_durably(self.inbox / drop.names[0], content)
        drop.state = "durable"

    def _write_slow(self, number: int, chance: random.Random) -> None:
        content = image_bytes(number, (60, 50))
        drop = self._begin(content, f"s{number}.png")
        with self._unless_held_up(drop) as note, (self.inbox / drop.names[0]).open("wb", buffering=0) as file:
            for chunk in _chunks(content, chance):
                note()
                file.write(chunk)
                note()
                self._breathe(self._settle_s / 5)
        drop.state = "there"

    def _write_reopening(self, number: int, chance: random.Random) -> None:
        content = image_bytes(number, (60, 50))
        drop = self._begin(content, f"o{number}.png")
        with self._unless_held_up(drop) as note:
            for chunk in _chunks(content, chance):
                note()
                with (self.inbox / drop.names[0]).open("ab", buffering=0) as file:
                    file.write(chunk)
                note()
                self._breathe(self._settle_s / 5)
        drop.state = "there"

    def _write_duplicate(self, number: int, chance: random.Random) -> None:
        # Of what a duplicate wrote before, or this writer's own first image: always the same bytes for the same number.
        content = image_bytes(number - number % 1_000_000 + (0 if number % 1_000_000 == 0 else chance.randrange(number % 1_000_000)))
        drop = self._begin(content, f"d{number}.png")
        self._put(drop, content)

    def _write_same_name(self, number: int, _chance: random.Random) -> None:
        content = image_bytes(number)
        drop = self._begin(content, f"same-{self._seed}.png")
        part = self.inbox / f".{number}.part"
        part.write_bytes(content)
        while True:
            try:
                os.link(part, self.inbox / drop.names[0])
            except FileExistsError:
                if self._stopping:
                    part.unlink()
                    self.book.remove(drop)
                    return
                self._breathe(0.01)
            else:
                break
        drop.state = "there"
        part.unlink()

    def _write_overwriting(self, number: int, chance: random.Random) -> None:
        content = image_bytes(number)
        name = f"over-{self._seed}.png"
        for drop in self.book:
            if drop.names == (name,) and not drop.overwritten:
                drop.overwritten = True
        self._put(self._begin(content, name), content)
        self._breathe(chance.uniform(0, 2 * self._settle_s))

    def _write_renamed_twice(self, number: int, chance: random.Random) -> None:
        content = image_bytes(number)
        drop = self._begin(content, f"t{number}-first.png", f"t{number}-second.png")
        first, second = (self.inbox / name for name in drop.names)
        self._put(drop, content)
        self._breathe(chance.uniform(0, 1.5 * self._settle_s))
        with suppress(FileNotFoundError):  # taken already, under its first name
            first.rename(second)

    def _write_no_image(self, number: int, _chance: random.Random) -> None:
        content = f"no image {number}\n".encode()
        drop = self._begin(content, f"n{number}.jpg", is_image=False)
        self._put(drop, content)

    def _put(self, drop: Drop, content: bytes) -> None:
        part = self.inbox / f".{drop.names[0]}.part"
        part.write_bytes(content)
        part.rename(self.inbox / drop.names[0])
        drop.state = "there"

    @contextmanager
    def _unless_held_up(self, drop: Drop) -> Iterator[Callable[[], None]]:
        """Take the time between what a slow writer does: where this machine was too busy, the file stood still too long, and is excused."""
        times_s = [time.monotonic()]

        def note() -> None:
            times_s.append(time.monotonic())

        try:
            yield note
        finally:
            note()
            # From before one write until after the next, or longer.
            drop.excused = any(later - earlier > 0.9 * self._settle_s for earlier, later in zip(times_s, times_s[3:], strict=False))


def write_durably(target: Path, content: bytes) -> None:
    """Put a file into an inbox so that it outlives a power cut that comes after this returns."""
    part = target.with_name(f".{target.name}.part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.rename(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _chunks(content: bytes, chance: random.Random) -> Iterator[bytes]:
    count = chance.randint(3, 6)
    size = len(content) // count + 1
    for start in range(0, len(content), size):
        yield content[start : start + size]
