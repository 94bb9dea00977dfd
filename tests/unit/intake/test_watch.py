"""Native events: that none is lost or late, and that however many come, few wait."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.agents import wait_until
from watchdog.observers.api import EventQueue, ObservedWatch
from watchdog.observers.inotify import InotifyEmitter, InotifyWatchGroup
from watchdog.observers.inotify_c import InotifyConstants, InotifyEvent, InotifyFD

from edge_agent.intake.watch import FolderWatch, PendingPaths

WATCHDOG_INTERNALS: dict[Callable[..., object], str] = {
    InotifyFD: "",
    InotifyFD.add_callback: "self path mask callback id_",
    InotifyFD.handle_event: "self event",
    InotifyFD.start: "self",
    InotifyFD.stop: "self",
    InotifyEvent: "wd mask cookie name",
    InotifyEmitter: "event_queue watch *timeout *event_filter *inotify_fd",
    InotifyEmitter.get_event_mask_from_filter: "self",
    InotifyEmitter.queue_event: "self event",
    InotifyEmitter.queue_events: "self timeout *full_events",
    InotifyEmitter.build_and_queue_event: "self event *full_events",
    InotifyEmitter.should_keep_running: "self",
    InotifyWatchGroup.read_event: "self",
    ObservedWatch: "path *recursive *event_filter *follow_symlink",
}
"""What ``watch.py`` uses of watchdog behind its public API, with the parameters (``*``: by keyword only)."""


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    return inbox


@pytest.fixture
def watched(inbox: Path) -> Iterator[tuple[Path, list[str | None]]]:
    reported: list[str | None] = []
    watch = FolderWatch(inbox, reported.append)
    yield inbox, reported
    watch.stop()


class TestWatch:
    def test_created_moved_in_written_and_new_folders_are_reported(self, watched: tuple[Path, list[str | None]], tmp_path: Path) -> None:
        inbox, reported = watched
        (tmp_path / "outside").write_text("x")
        (inbox / "a").write_text("x")
        (tmp_path / "outside").rename(inbox / "b")
        (inbox / "sub").mkdir()
        wait_until(lambda: {"a", "b", "sub"} <= set(reported))
        (inbox / "sub" / "c\n\N{LUNGS}").write_text("x")
        wait_until(lambda: "sub/c\n\N{LUNGS}" in reported)
        reported.clear()
        with (inbox / "a").open("a") as file:
            file.write("more")
        wait_until(lambda: "a" in reported)

    def test_a_whole_folder_moved_in_is_reported_and_watched(self, watched: tuple[Path, list[str | None]], tmp_path: Path) -> None:
        inbox, reported = watched
        (tmp_path / "new" / "deep").mkdir(parents=True)
        (tmp_path / "new").rename(inbox / "new")
        wait_until(lambda: "new" in reported)
        (inbox / "new" / "deep" / "a").write_text("x")
        wait_until(lambda: "new/deep/a" in reported)

    def test_a_folder_renamed_inside_is_watched_under_its_new_name(self, watched: tuple[Path, list[str | None]]) -> None:
        inbox, reported = watched
        (inbox / "old").mkdir()
        wait_until(lambda: "old" in reported)
        (inbox / "old").rename(inbox / "new")
        wait_until(lambda: "new" in reported)
        (inbox / "new" / "a").write_text("x")
        wait_until(lambda: "new/a" in reported)

    def test_files_that_leave_hold_nothing_up(self, watched: tuple[Path, list[str | None]], tmp_path: Path) -> None:
        """
        1. A finished image is moved out of the inbox, as after every record.
        2. The next one arrives at once.
        Result: it is reported at once. Left to itself, watchdog would report it half a second later, so one of fifty is enough.
        """
        inbox, reported = watched
        took_s = 1.0
        for number in range(50):
            first, second = f"a{number}", f"b{number}"
            (inbox / first).write_text("x")
            wait_until(lambda first=first: first in reported)  # type: ignore[misc]
            (inbox / first).rename(tmp_path / "done")
            (inbox / second).write_text("x")
            arrived_s = time.monotonic()
            wait_until(lambda second=second: second in reported)  # type: ignore[misc]
            took_s = time.monotonic() - arrived_s
            if took_s < 0.4:
                break
        assert took_s < 0.4

    def test_reading_is_not_reported(self, watched: tuple[Path, list[str | None]]) -> None:
        inbox, reported = watched
        (inbox / "a").write_text("x")
        wait_until(lambda: reported.count("a") == 2)  # created, closed
        (inbox / "a").read_text()
        (inbox / "b").write_text("x")
        wait_until(lambda: reported.count("b") == 2)
        assert reported.count("a") == 2

    def test_a_real_overflow_is_reported(self, other_file_system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        1. The thread that reads the kernel's events is held up.
        2. More happens than the kernel's queue holds.
        Result: the watch says that events were lost, and goes on: what happens afterwards is reported, in old and in new folders.
        """
        inbox = other_file_system  # in memory: many files are made
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        if limit > 20_000:
            pytest.skip(f"the kernel's queue holds {limit} events: too many to fill in a test")
        reported: list[str | None] = []
        held = threading.Event()
        handle = InotifyFD.handle_event

        def slow(self: InotifyFD, event: InotifyEvent) -> None:
            held.wait(60)
            handle(self, event)

        (inbox / "old").mkdir()
        monkeypatch.setattr(InotifyFD, "handle_event", slow)
        watch = FolderWatch(inbox, reported.append)
        try:
            path = inbox / "a"
            for _ in range(limit * 3 // 4):  # create and close: different events, so the kernel joins none
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
                path.unlink()
            (inbox / "new").mkdir()
            held.set()
            wait_until(lambda: None in reported)
            for name in ("old/x", "new/y"):
                (inbox / name).touch()
                wait_until(lambda name=name: name in reported)
            assert watch.is_complete
        finally:
            held.set()
            watch.stop()

    def test_nothing_is_left_when_it_is_stopped(self, inbox: Path, caplog: pytest.LogCaptureFixture) -> None:
        """An error that watchdog logs while it is stopped would be the last line that a technician sees."""
        threads, files = threading.active_count(), open_files()
        for number in range(20):
            watch = FolderWatch(inbox, lambda _path: None)
            (inbox / f"{number}").touch()
            watch.stop()
            (inbox / f"{number}").unlink()
        assert threading.active_count() == threads
        assert open_files() == files
        assert caplog.text == ""

    def test_a_folder_that_cannot_be_watched_is_an_error_and_leaves_nothing(self, inbox: Path) -> None:
        threads, files = threading.active_count(), open_files()
        with pytest.raises(OSError, match="No such file"):
            FolderWatch(inbox / "absent", lambda _path: None)
        assert threading.active_count() == threads
        assert open_files() == files

    def test_a_watch_that_died_is_known(self, inbox: Path) -> None:
        watch = FolderWatch(inbox, lambda _path: None)
        assert watch.is_complete
        [reading] = [thread for thread in threading.enumerate() if isinstance(thread, InotifyFD)]
        reading.stop()
        reading.join()
        assert not watch.is_complete
        watch.stop()


class TestPendingPaths:
    def test_a_path_is_reported_once_until_it_was_looked_at(self) -> None:
        said: list[str | None] = []
        reported = PendingPaths(said.append, 100)
        for path in ("a", "b", "a", "a"):
            reported.add(path)
        assert said == ["a", "b"]
        reported.remove("a")
        reported.add("a")
        assert said == ["a", "b", "a"]

    def test_more_than_a_few_are_left_to_a_scan(self) -> None:
        said: list[str | None] = []
        reported = PendingPaths(said.append, 3)
        for number in range(100):
            reported.add(str(number))
        assert said == ["0", "1", "2", None]
        for path in said[:3]:
            reported.remove(str(path))
        reported.add("before the scan")
        assert len(said) == 4, "the scan will find it"
        reported.clear_loss()
        reported.add("after it")
        assert said[4:] == ["after it"]

    def test_a_loss_is_reported_once(self) -> None:
        said: list[str | None] = []
        reported = PendingPaths(said.append, 100)
        for _ in range(3):
            reported.add(None)
        reported.clear_loss()
        reported.add(None)
        assert said == [None, None]

    def test_a_burst_of_events_is_small(self, other_file_system: Path) -> None:
        """
        1. Another program drops 4,000 files as fast as it can, while nobody looks at what is reported.
        Result: what waits to be looked at is bounded, and so is memory.
        """
        reported = PendingPaths(lambda _path: None, 1000)
        watch = FolderWatch(other_file_system, reported.add)
        try:
            tracemalloc.start()
            burst = "import os\nfor n in range(4000): os.close(os.open(str(n), os.O_WRONLY | os.O_CREAT))"
            subprocess.run([sys.executable, "-c", burst], cwd=other_file_system, check=True)
            wait_until(lambda: len(reported) >= 1000)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
            watch.stop()
        assert len(reported) == 1000
        assert peak_bytes < 3_000_000, "4,000 files are 8,000 events, of 500 bytes each where they wait in a queue"


class TestInternals:
    """That the installed watchdog has what ``watch.py`` uses of it, as its docstring lists it."""

    @pytest.mark.parametrize("internal", WATCHDOG_INTERNALS, ids=lambda internal: internal.__qualname__)
    def test_a_watchdog_that_changed_is_noticed(self, internal: Callable[..., object]) -> None:
        """After an upgrade of watchdog: read ``watch.py`` beside its new source, then write down above what it is now."""
        parameters = inspect.signature(internal).parameters.values()
        assert " ".join("*" * (each.kind is each.KEYWORD_ONLY) + each.name for each in parameters) == WATCHDOG_INTERNALS[internal]

    def test_events_and_emitters_have_the_names_without_a_signature(self, inbox: Path) -> None:
        overflow = InotifyEvent(-1, InotifyConstants.IN_Q_OVERFLOW, 0, b"")
        assert (overflow.is_queue_overflow, overflow.is_ignored) == (True, False)
        assert InotifyEvent(1, InotifyConstants.IN_IGNORED, 0, b"").is_ignored
        reading = InotifyFD()
        reading.start()
        emitter = InotifyEmitter(EventQueue(), ObservedWatch(str(inbox), recursive=True), inotify_fd=reading)
        try:
            assert emitter.get_event_mask_from_filter() & InotifyConstants.IN_MOVED_FROM
            emitter.start()
            assert isinstance(emitter._inotify, InotifyWatchGroup)
            with pytest.warns(RuntimeWarning, match=r"^Callback with id .* already exists"):
                for _ in range(2):
                    reading.add_callback(bytes(inbox), InotifyConstants.IN_CREATE, emitter._inotify, 1)
        finally:
            emitter.stop()
            emitter.join()
            reading.stop()
            reading.join()
