"""The inbox: what is seen, what is left out, and that no event is lost or late."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.agents import wait_until

from edge_agent.errors import SourceGoneError
from edge_agent.intake import folder as folder_module
from edge_agent.intake import watch as watch_module
from edge_agent.intake.folder import FolderIntake, IgnoreRule, Seen, scan_folder
from edge_agent.intake.watch import FolderWatch, has_native_events
from edge_agent.records import Arrival

PATTERNS = ("*.part", "*.tmp", "~*", "._*", ".*", ".DS_Store", "Thumbs.db")
NO_RULE = IgnoreRule(())


def names(inbox: Path, rule: IgnoreRule = NO_RULE, below: str = "") -> list[str]:
    return sorted(path for path, _ in scan_folder(inbox, rule, below))


def everything(batch: list[Seen]) -> list[Seen]:
    return batch


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    return inbox


@pytest.fixture
def start(inbox: Path) -> Iterator[Callable[..., FolderIntake]]:
    """Starts an intake without settle time, whose watch reports nowhere."""
    started = []

    def start(unknown: Callable[[list[Seen]], list[Seen]] = everything, settle_time_s: float = 0.0) -> FolderIntake:
        intake = FolderIntake(inbox, settle_time_s, PATTERNS, unknown)
        intake.start(lambda _path: None)
        started.append(intake)
        return intake

    yield start
    for intake in started:
        intake.stop()


def take(intake: FolderIntake) -> list[Arrival]:
    intake.scan_some()
    return intake.settled()


class TestScan:
    def test_files_and_links_at_every_depth(self, inbox: Path) -> None:
        (inbox / "x.png" / "deep").mkdir(parents=True)
        for name in ("a.png", "x.png/b", "x.png/deep/c d\n\N{LUNGS}"):
            (inbox / name).touch()
        (inbox / "link.png").symlink_to("/nowhere")
        (inbox / "folder-link").symlink_to("/etc")
        os.mkfifo(inbox / "pipe.png")
        assert names(inbox) == sorted(["a.png", "x.png/b", "x.png/deep/c d\n\N{LUNGS}", "link.png", "folder-link"])
        assert names(inbox, below="x.png") == ["x.png/b", "x.png/deep/c d\n\N{LUNGS}"]

    def test_names_that_are_not_utf_8(self, inbox: Path) -> None:
        (inbox / os.fsdecode(b"\xff.png")).touch()
        assert names(inbox) == [os.fsdecode(b"\xff.png")]

    def test_ignored_names_of_files_and_folders(self, inbox: Path) -> None:
        for name in ("a.part", ".hidden.png", "~a.png", "Thumbs.db", "a.png"):
            (inbox / name).touch()
        (inbox / ".trash").mkdir()
        (inbox / ".trash" / "b.png").touch()
        rule = IgnoreRule(PATTERNS)
        assert names(inbox, rule) == ["a.png"]
        assert rule.ignores(".trash/b.png")
        assert not rule.ignores("sub/b.png")
        assert not IgnoreRule(()).ignores(".hidden")

    def test_an_inbox_that_is_gone(self, tmp_path: Path) -> None:
        with pytest.raises(SourceGoneError, match="mount or create it") as caught:
            names(tmp_path / "absent")
        assert caught.value.exit_code == 30

    def test_a_sub_folder_that_can_not_be_read_is_stepped_over(
        self, inbox: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        (inbox / "closed").mkdir()
        (inbox / "a.png").touch()
        scandir = os.scandir

        def refusing(folder: Path) -> object:
            if folder.name == "closed":
                raise PermissionError(13, "Permission denied")
            return scandir(folder)

        monkeypatch.setattr(folder_module.os, "scandir", refusing)
        assert names(inbox) == ["a.png"]
        assert "folder_not_readable errno=EACCES" in caplog.text


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
        time.sleep(0.06)
        (inbox / "a.png").write_bytes(b"the whole")
        assert intake.settled() == []
        assert intake.waiting == 1
        time.sleep(max(0.0, intake.wake_at_s() - time.monotonic()))
        assert [arrival.size_bytes for arrival in intake.settled()] == [9]

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
        assert [arrival.path for arrival in intake.settled()] == ["sub/a.png"]

    def test_a_scan_pauses_while_many_files_wait(
        self, inbox: Path, start: Callable[..., FolderIntake], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(folder_module, "BATCH_FILES", 2)
        monkeypatch.setattr(folder_module, "MAX_WAITING_FILES", 4)
        for number in range(10):
            (inbox / f"{number}").touch()
        intake = start(settle_time_s=60)
        for _ in range(5):
            intake.scan_some()
        assert intake.waiting == 4
        assert intake.wake_at_s() > time.monotonic() + 50, "a paused scan must not keep the loop awake"

    def test_all_of_many_files_are_given_out_in_batches(
        self, inbox: Path, start: Callable[..., FolderIntake], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(folder_module, "BATCH_FILES", 3)
        for number in range(10):
            (inbox / f"{number}").touch()
        intake = start()
        found = []
        while not found or intake.wake_at_s() <= time.monotonic():
            found += take(intake)
        assert sorted(arrival.path for arrival in found) == [str(number) for number in range(10)]

    def test_an_inbox_that_was_exchanged_is_noticed(self, inbox: Path, start: Callable[..., FolderIntake]) -> None:
        intake = start()
        intake.check_root()
        inbox.rename(inbox.with_name("away"))
        with pytest.raises(SourceGoneError):
            intake.check_root()
        inbox.mkdir()
        with pytest.raises(SourceGoneError):
            intake.check_root()

    def test_without_native_events_the_inbox_is_listed_every_two_seconds(
        self, inbox: Path, start: Callable[..., FolderIntake], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(watch_module, "has_native_events", lambda _folder: False)
        intake = start()
        intake.scan_some()
        assert time.monotonic() < intake.wake_at_s() < time.monotonic() + 3

    def test_the_same_where_the_kernel_refuses_the_watch(
        self, inbox: Path, start: Callable[..., FolderIntake], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(28, "inotify watch limit reached")

        monkeypatch.setattr(watch_module, "FolderWatch", refuse)
        intake = start()
        intake.scan_some()
        assert intake.wake_at_s() < time.monotonic() + 3
        assert "watch_refused" in caplog.text
        assert "max_user_watches" in caplog.text


@pytest.fixture
def watched(inbox: Path) -> Iterator[tuple[Path, list[str | None]]]:
    told: list[str | None] = []
    watch = FolderWatch(inbox, told.append)
    yield inbox, told
    watch.stop()


class TestWatch:
    def test_created_moved_in_written_and_new_folders_are_told(self, watched: tuple[Path, list[str | None]], tmp_path: Path) -> None:
        inbox, told = watched
        (tmp_path / "outside").write_text("x")
        (inbox / "a").write_text("x")
        (tmp_path / "outside").rename(inbox / "b")
        (inbox / "sub").mkdir()
        wait_until(lambda: {"a", "b", "sub"} <= set(told))
        (inbox / "sub" / "c\n\N{LUNGS}").write_text("x")
        wait_until(lambda: "sub/c\n\N{LUNGS}" in told)
        told.clear()
        with (inbox / "a").open("a") as file:
            file.write("more")
        wait_until(lambda: "a" in told)

    def test_a_whole_folder_moved_in_is_told_and_watched(self, watched: tuple[Path, list[str | None]], tmp_path: Path) -> None:
        inbox, told = watched
        (tmp_path / "new" / "deep").mkdir(parents=True)
        (tmp_path / "new").rename(inbox / "new")
        wait_until(lambda: "new" in told)
        (inbox / "new" / "deep" / "a").write_text("x")
        wait_until(lambda: "new/deep/a" in told)

    def test_a_folder_renamed_inside_is_watched_under_its_new_name(self, watched: tuple[Path, list[str | None]]) -> None:
        inbox, told = watched
        (inbox / "old").mkdir()
        wait_until(lambda: "old" in told)
        (inbox / "old").rename(inbox / "new")
        wait_until(lambda: "new" in told)
        (inbox / "new" / "a").write_text("x")
        wait_until(lambda: "new/a" in told)

    def test_files_that_leave_hold_nothing_up(self, watched: tuple[Path, list[str | None]], tmp_path: Path) -> None:
        """
        1. A finished image is moved out of the inbox, as after every record.
        2. The next one arrives at once.
        Result: it is told at once. Left to itself, watchdog would tell of it half a second later.
        """
        inbox, told = watched
        (inbox / "a").write_text("x")
        wait_until(lambda: "a" in told)
        (inbox / "a").rename(tmp_path / "done")
        (inbox / "b").write_text("x")
        arrived_s = time.monotonic()
        wait_until(lambda: "b" in told)
        assert time.monotonic() - arrived_s < 0.4

    def test_reading_is_not_told(self, watched: tuple[Path, list[str | None]]) -> None:
        inbox, told = watched
        (inbox / "a").write_text("x")
        wait_until(lambda: told.count("a") == 2)  # created, closed
        (inbox / "a").read_text()
        (inbox / "b").write_text("x")
        wait_until(lambda: told.count("b") == 2)
        assert told.count("a") == 2

    def test_lost_events_are_told(self, watched: tuple[Path, list[str | None]]) -> None:
        _, told = watched
        logging.getLogger("watchdog.observers.inotify_c").warning("Inotify queue overflowed; filesystem events were lost")
        assert told == [None]

    def test_a_real_overflow_is_told(self, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        1. The thread that reads the kernel's events is held up.
        2. More happens than the kernel's queue holds.
        Result: the watch says that events were lost.
        """
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        if limit > 20_000:
            pytest.skip(f"the kernel's queue holds {limit} events: too many to fill in a test")
        from watchdog.observers.inotify_c import InotifyFD

        told: list[str | None] = []
        held = threading.Event()
        handle = InotifyFD.handle_event

        def slow(self: InotifyFD, event: object) -> None:
            held.wait(20)
            handle(self, event)

        monkeypatch.setattr(InotifyFD, "handle_event", slow)
        watch = FolderWatch(inbox, told.append)
        try:
            path = inbox / "a"
            for _ in range(limit * 3 // 4):  # create and close: different events, so the kernel joins none
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT))
                path.unlink()
            held.set()
            wait_until(lambda: None in told, 30)
        finally:
            held.set()
            watch.stop()


@pytest.mark.parametrize(
    ("folder", "native"),
    [("/srv/inbox", True), ("/mnt/share/inbox", False), ("/mnt/share/usb", True), ("/mnt/with space/x", False), ("/mnt/other", True)],
)
def test_network_shares_are_known_by_their_mount(tmp_path: Path, folder: str, native: bool) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/sda rw\n"
        "30 22 0:40 / /mnt/share rw - cifs //server/share rw\n"
        "31 30 8:1 / /mnt/share/usb rw - vfat /dev/sdb1 rw\n"
        "32 22 0:41 / /mnt/with\\040space rw master:1 - nfs4 server:/x rw\n"
        "33 22 0:42 / /mnt/other rw - nfs server:/y rw\n"
        "34 22 0:43 / /mnt/other rw - tmpfs tmpfs rw\n"
    )
    assert has_native_events(Path(folder), mounts) is native


def test_without_a_table_of_mounts_events_are_expected(tmp_path: Path) -> None:
    assert has_native_events(tmp_path, tmp_path / "absent")
