"""The inbox: what is given out, when, in which order, and what happens while it is in flight."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.agents import wait_until

from edge_agent.config import IntakeConfig
from edge_agent.errors import SourceGoneError
from edge_agent.files.mounts import Mount
from edge_agent.intake import folder as folder_module
from edge_agent.intake import scan as scan_module
from edge_agent.intake import watch as watch_module
from edge_agent.intake.folder import FolderIntake, Limits
from edge_agent.intake.scan import Seen
from edge_agent.records import Arrival

YEAR_NS = 365 * 24 * 3600 * 10**9


def everything(batch: list[Seen]) -> list[Seen]:
    return batch


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    return inbox


@pytest.fixture
def start(inbox: Path) -> Iterator[Callable[..., FolderIntake]]:
    """Starts an intake without settle time, whose watch reports nowhere unless told where."""
    started = []

    def start(
        unknown: Callable[[list[Seen]], list[Seen]] = everything,
        notify: Callable[[str | None], None] = lambda _path: None,
        limits: Limits | None = None,
        **config: Any,
    ) -> FolderIntake:
        intake = FolderIntake(inbox, IntakeConfig(**({"settle_time_s": 0.0} | config)), unknown, limits)
        intake.start(notify)
        started.append(intake)
        return intake

    yield start
    for intake in started:
        intake.stop()


def take(intake: FolderIntake) -> list[Arrival]:
    intake.scan_some()
    return intake.settled()


def take_all(intake: FolderIntake, done: Callable[[Arrival], None] = lambda _arrival: None) -> list[str]:
    """Take what is there, as the main loop does: a few at a time, each released after its disposal."""
    found = []
    while intake.wake_at_s() <= time.monotonic():
        for arrival in take(intake):
            found.append(arrival.path)
            done(arrival)
            intake.release(arrival.path)
    return found


def drop_dated(inbox: Path, name: str, mtime_ns: int = 0) -> None:
    (inbox / name).parent.mkdir(parents=True, exist_ok=True)
    (inbox / name).touch()
    os.utime(inbox / name, ns=(0, mtime_ns))


class TestIntake:
    def test_a_file_is_given_out_once_until_it_is_released(self, inbox: Path, start: Callable[..., FolderIntake]) -> None:
        (inbox / "a.png").write_bytes(b"image")
        intake = start()
        [arrival] = take(intake)
        assert (arrival.path, arrival.size_bytes, arrival.source) == ("a.png", 5, "folder")
        assert not intake.is_quiet
        intake.rescan()
        assert take(intake) == []
        (inbox / "a.png").unlink()
        intake.release("a.png")
        assert intake.is_quiet

    def test_a_file_that_came_while_its_predecessor_was_in_flight_is_not_forgotten(
        self, inbox: Path, start: Callable[..., FolderIntake]
    ) -> None:
        (inbox / "a.png").write_bytes(b"first")
        intake = start()
        assert len(take(intake)) == 1
        (inbox / "a.png").unlink()
        (inbox / "a.png").write_bytes(b"second")
        intake.touch("a.png")
        assert take(intake) == []
        intake.release("a.png")
        assert [arrival.size_bytes for arrival in take(intake)] == [6]

    def test_a_change_that_no_event_told_of_is_seen_when_the_time_is_over(self, inbox: Path, start: Callable[..., FolderIntake]) -> None:
        (inbox / "a.png").write_bytes(b"half")
        intake = start(settle_time_s=0.05)
        intake.scan_some()
        (inbox / "a.png").write_bytes(b"the whole")
        found: list[Arrival] = []
        wait_until(lambda: found.extend(intake.settled()) or found)
        assert [arrival.size_bytes for arrival in found] == [9]

    def test_what_has_a_record_is_not_given_out(self, inbox: Path, start: Callable[..., FolderIntake]) -> None:
        for name in ("a", "b"):
            (inbox / name).touch()
        intake = start(lambda batch: [seen for seen in batch if seen[0] != "a"])
        assert [arrival.path for arrival in take(intake)] == ["b"]
        intake.touch("a")
        assert intake.settled() == []

    def test_folders_vanished_files_pipes_and_ignored_names_are_no_arrivals(self, inbox: Path, start: Callable[..., FolderIntake]) -> None:
        intake = start()
        take(intake)
        (inbox / "sub").mkdir()
        (inbox / "sub" / "a.png").touch()
        (inbox / "b.png").touch()
        os.mkfifo(inbox / "pipe")
        for path in ("sub", "absent", "pipe", "c.part", "b.png"):
            intake.touch(path)
        (inbox / "b.png").unlink()
        intake.scan_some()
        assert [arrival.path for arrival in intake.settled()] == ["sub/a.png"]

    def test_a_lost_look_is_made_up_for_by_the_next_pass(
        self, inbox: Path, start: Callable[..., FolderIntake], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        1. A file has settled; the look at it before it is taken fails, and so does the one that an event asks for.
        Result: it is not taken, not forgotten for good, and taken after the next pass.
        """
        (inbox / "a.png").touch()
        intake = start()
        intake.scan_some()
        with monkeypatch.context() as patch:
            patch.setattr(folder_module.os, "lstat", failing(errno.EACCES))
            assert intake.settled() == []
            intake.touch("a.png")
        intake.rescan()
        assert [arrival.path for arrival in take(intake)] == ["a.png"]

    def test_a_file_that_cannot_be_looked_at_is_not_forgotten(
        self, inbox: Path, start: Callable[..., FolderIntake], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (inbox / "a.png").touch()
        intake = start()
        intake.scan_some()
        with monkeypatch.context() as patch:
            patch.setattr(folder_module.os, "lstat", failing(errno.EACCES))
            intake.touch("a.png")
        assert [arrival.path for arrival in intake.settled()] == ["a.png"]


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


class TestOrder:
    """More files than memory holds: each pass takes those that come first, the next pass the others."""

    LIMITS = Limits(waiting_files=8, taken_files=3)

    @pytest.fixture
    def start(self, start: Callable[..., FolderIntake], monkeypatch: pytest.MonkeyPatch) -> Callable[..., FolderIntake]:
        monkeypatch.setattr(scan_module, "BATCH_FILES", 5)
        return partial(start, limits=self.LIMITS)

    @pytest.mark.parametrize("order", ["newest", "oldest"])
    def test_all_are_taken_in_the_order_of_their_dates(self, inbox: Path, start: Callable[..., FolderIntake], order: str) -> None:
        chance = random.Random(4)
        numbers = chance.sample(range(1000), 100)
        for number in numbers:
            drop_dated(inbox, f"{number % 3}/{chance.random()}-{number}", number)
        intake = start(order=order)
        taken = take_all(intake, lambda arrival: (inbox / arrival.path).unlink())
        assert [int(path.rpartition("-")[2]) for path in taken] == sorted(numbers, reverse=order == "newest")
        assert intake.is_quiet

    def test_what_stays_in_the_inbox_is_taken_once(self, inbox: Path, start: Callable[..., FolderIntake]) -> None:
        known: set[str] = set()
        for number in range(100):
            drop_dated(inbox, str(number), number)
        intake = start(lambda batch: [seen for seen in batch if seen[0] not in known])
        taken = take_all(intake, lambda arrival: known.add(arrival.path))
        assert taken == [str(number) for number in reversed(range(100))]

    def test_a_new_file_is_taken_before_the_old_ones(self, inbox: Path, start: Callable[..., FolderIntake]) -> None:
        for number in range(100):
            drop_dated(inbox, str(number), number)
        intake = start()
        while not intake.settled():
            intake.scan_some()
        drop_dated(inbox, "new", 5000)
        intake.touch("new")
        assert next(arrival.path for arrival in take(intake)) == "new"

    def test_a_burst_of_events_is_bounded_too(self, inbox: Path, start: Callable[..., FolderIntake]) -> None:
        """
        1. Events tell of far more files than memory holds.
        Result: few wait; the newest of them are taken first, and in the end all of them.
        """
        intake = start()
        take(intake)
        for number in range(100):
            drop_dated(inbox, str(number), number)
            intake.touch(str(number))
            assert intake.held <= 10
        assert intake.waiting == 100
        taken = take_all(intake, lambda arrival: (inbox / arrival.path).unlink())
        assert taken[0] == "99"
        assert sorted(map(int, taken)) == list(range(100))

    def test_what_an_event_told_of_is_not_held_a_second_time_by_a_pass(self, inbox: Path, start: Callable[..., FolderIntake]) -> None:
        intake = start()
        take(intake)
        for number in range(6):
            drop_dated(inbox, str(number), number)
            intake.touch(str(number))
        intake.rescan()
        intake.scan_some()
        assert intake.waiting == 6

    @pytest.mark.parametrize("order", ["newest", "oldest"])
    @pytest.mark.parametrize("seed", range(8))
    def test_none_is_left_for_ever_whatever_its_date(self, inbox: Path, start: Callable[..., FolderIntake], order: str, seed: int) -> None:
        """
        1. Files come while others are taken, told by an event or not. The clock jumps by a year both ways; some dates are equal, some lie
           in the future or before 1970.
        2. Some are changed or taken away before their turn, some while they are in hand.
        Result: each is taken in the end, and memory stays bounded.
        """
        chance = random.Random(seed)
        known: dict[str, tuple[int, int]] = {}

        def unknown(batch: list[Seen]) -> list[Seen]:
            return [(path, stamp) for path, stamp in batch if known.get(path) != (stamp.mtime_ns, stamp.ctime_ns)]

        clock_ns = time.time_ns()
        intake = start(unknown, order=order)
        for step in range(150):
            clock_ns += chance.choice((0, 0, 10**6, YEAR_NS, -YEAR_NS))
            name = f"{chance.randrange(3)}/{chance.randrange(120)}"
            drop_dated(inbox, name, chance.choice((clock_ns, clock_ns, -5, clock_ns + 5 * YEAR_NS)))
            if chance.random() < 0.5:
                intake.touch(name)
            if step % 10 == 0:
                intake.rescan()
            for arrival in take(intake):
                if chance.random() < 0.1:
                    drop_dated(inbox, arrival.path, clock_ns)
                    intake.touch(arrival.path)
                known[arrival.path] = (arrival.mtime_ns, arrival.ctime_ns)
                intake.release(arrival.path)
            assert intake.held <= self.LIMITS.held_files
        intake.rescan()

        def finish(arrival: Arrival) -> None:
            known[arrival.path] = (arrival.mtime_ns, arrival.ctime_ns)

        take_all(intake, finish)
        there = {path.relative_to(inbox).as_posix(): path.lstat() for path in inbox.rglob("*") if path.is_file()}
        assert known == {path: (found.st_mtime_ns, found.st_ctime_ns) for path, found in there.items()}
        assert intake.is_quiet

    def test_a_folder_with_many_files_that_is_moved_in_is_bounded(
        self, inbox: Path, start: Callable[..., FolderIntake], tmp_path: Path
    ) -> None:
        intake = start()
        take(intake)
        for number in range(100):
            drop_dated(tmp_path, f"new/{number:02d}", number)
        (tmp_path / "new").rename(inbox / "new")
        intake.touch("new")
        assert intake.held == 0, "the main loop does not list it in one go"
        taken = take_all(intake, lambda arrival: (inbox / arrival.path).unlink())
        assert sorted(taken) == [f"new/{number:02d}" for number in range(100)]

    def test_a_pass_that_takes_long_holds_nothing_back(self, inbox: Path, start: Callable[..., FolderIntake]) -> None:
        for number in range(20):
            drop_dated(inbox, str(number), number)
        intake = start(limits=self.LIMITS._replace(order_wait_s=3600.0))
        intake.scan_some()
        assert intake.settled() == []
        intake = start(limits=self.LIMITS._replace(order_wait_s=0.0))
        intake.scan_some()
        assert intake.settled()

    def test_a_pass_that_is_asked_for_during_a_pass_comes_after_it(self, inbox: Path, start: Callable[..., FolderIntake]) -> None:
        for number in range(20):
            drop_dated(inbox, f"{number}", number)
        intake = start(limits=self.LIMITS._replace(order_wait_s=3600.0))
        for _ in range(9):
            intake.rescan()
            intake.scan_some()
        assert intake.settled(), "events lost again and again must not keep a pass from ending"
        drop_dated(inbox, "late", 5)
        taken = take_all(intake, lambda arrival: (inbox / arrival.path).unlink())
        assert "late" in taken


class TestWatching:
    def test_an_inbox_that_was_exchanged_is_noticed(self, inbox: Path, start: Callable[..., FolderIntake]) -> None:
        intake = start()
        intake.check_root()
        inbox.rename(inbox.with_name("away"))
        with pytest.raises(SourceGoneError, match="there is no such folder"):
            intake.check_root()
        inbox.mkdir()
        with pytest.raises(SourceGoneError, match="another folder is in its place"):
            intake.check_root()

    def test_a_pass_over_an_empty_mount_point_is_no_empty_inbox(
        self, inbox: Path, start: Callable[..., FolderIntake], tmp_path: Path
    ) -> None:
        intake = start()
        inbox.rename(tmp_path / "away")
        inbox.mkdir()
        with pytest.raises(SourceGoneError):
            intake.scan_some()
        assert not intake.is_quiet, "--once would end as if everything was done"

    def test_polling_needs_no_folder_of_its_own(self, inbox: Path, start: Callable[..., FolderIntake], tmp_path: Path) -> None:
        intake = start(watch="polling")
        take(intake)
        inbox.rename(tmp_path / "away")
        inbox.mkdir()
        intake.check_root()  # nothing is bound to the old one

    @pytest.mark.parametrize(("kind", "seconds"), [("ext4", 300), ("overlay", 300), ("cifs", 2), ("fuse.sshfs", 2), ("fuse.ntfs-3g", 300)])
    def test_the_file_system_decides_whether_it_is_polled(
        self, start: Callable[..., FolderIntake], monkeypatch: pytest.MonkeyPatch, kind: str, seconds: float
    ) -> None:
        monkeypatch.setattr(folder_module, "check_present", lambda *_: Mount("/", kind, ""))
        intake = start()
        began_s = time.monotonic()
        intake.scan_some()
        assert seconds - 1 < intake.wake_at_s() - began_s < seconds + 60

    @pytest.mark.parametrize(("kind", "watch", "seconds"), [("nfs4", "native", 77), ("ext4", "polling", 7)])
    def test_both_ways_can_be_told(
        self, start: Callable[..., FolderIntake], monkeypatch: pytest.MonkeyPatch, kind: str, watch: str, seconds: float
    ) -> None:
        monkeypatch.setattr(folder_module, "check_present", lambda *_: Mount("/", kind, ""))
        intake = start(watch=watch, poll_interval_s=7.0, rescan_interval_s=77.0)
        began_s = time.monotonic()
        intake.scan_some()
        assert seconds - 1 < intake.wake_at_s() - began_s < seconds + 60

    def test_without_events_files_are_found_by_listing(
        self, inbox: Path, start: Callable[..., FolderIntake], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watch_module, "FolderWatch", None)  # not even asked for
        intake = start(watch="polling", poll_interval_s=0.05)
        take(intake)
        (inbox / "a").touch()
        wait_until(lambda: [arrival.path for arrival in take(intake)] == ["a"])

    def test_a_watch_that_the_kernel_refuses_is_made_up_for_by_polling(
        self, start: Callable[..., FolderIntake], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(watch_module, "FolderWatch", failing(errno.ENOSPC))
        intake = start()
        intake.scan_some()
        assert intake.wake_at_s() < time.monotonic() + 100  # and not the 300 s of a folder with events
        assert "watch_refused" in caplog.text
        assert "max_user_watches" in caplog.text

    def test_so_is_one_that_leaves_out_a_sub_folder(
        self, inbox: Path, start: Callable[..., FolderIntake], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """
        1. A folder is made in the inbox; the kernel has no watch left for it.
        Result: the log says what to do, and files in it are found by listing.
        """
        told: list[str | None] = []
        intake = start(notify=told.append)
        take(intake)
        assert intake.wake_at_s() > time.monotonic() + 200
        monkeypatch.setattr("watchdog.observers.inotify_c.InotifyFD.add_callback", failing(errno.ENOSPC))
        (inbox / "sub").mkdir()
        wait_until(lambda: "sub" in told)
        (inbox / "sub" / "a").touch()
        intake.check_root()
        assert "watch_refused" in caplog.text
        assert [arrival.path for arrival in take(intake)] == ["sub/a"]
        assert intake.wake_at_s() < time.monotonic() + 100  # and not the 300 s of a folder with events

    def test_events_reach_the_table(self, inbox: Path, start: Callable[..., FolderIntake]) -> None:
        told: list[str | None] = []
        intake = start(notify=told.append)
        take(intake)
        (inbox / "a").touch()
        wait_until(lambda: "a" in told)
        intake.touch("a")
        assert [arrival.path for arrival in intake.settled()] == ["a"]

    def test_however_long_a_share_takes_listing_it_takes_little_of_the_time(
        self, inbox: Path, start: Callable[..., FolderIntake], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        intake = start(watch="polling", poll_interval_s=0.01)
        listing = scan_module.Listing.go_on

        def slow(*args: Any) -> bool:
            time.sleep(0.1)
            return listing(*args)

        monkeypatch.setattr(scan_module.Listing, "go_on", slow)
        began_s = time.monotonic()
        intake.scan_some()
        assert intake.wake_at_s() > began_s + 1.9
