"""Listing the inbox: what is seen, what is left out, and which files are kept when there are many."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge_agent.config import IntakeConfig
from edge_agent.errors import SourceGoneError
from edge_agent.intake import scan as scan_module
from edge_agent.intake.scan import IgnoreRule, Listing, Seen, Unreadable, scan_folder

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


def test_files_and_links_at_every_depth(inbox: Path) -> None:
    (inbox / "x.png" / "deep").mkdir(parents=True)
    for name in ("a.png", "x.png/b", "x.png/deep/c d\n\N{LUNGS}"):
        (inbox / name).touch()
    (inbox / "link.png").symlink_to("/nowhere")
    (inbox / "folder-link").symlink_to("/etc")
    os.mkfifo(inbox / "pipe.png")
    assert names(inbox) == sorted(["a.png", "x.png/b", "x.png/deep/c d\n\N{LUNGS}", "link.png", "folder-link"])
    assert names(inbox, below="x.png") == ["x.png/b", "x.png/deep/c d\n\N{LUNGS}"]


def test_names_that_are_not_utf_8(inbox: Path) -> None:
    (inbox / os.fsdecode(b"\xff.png")).touch()
    assert names(inbox) == [os.fsdecode(b"\xff.png")]


def test_ignored_names_of_files_and_folders(inbox: Path) -> None:
    for name in ("a.part", ".hidden.png", "~a.png", "Thumbs.db", "a.png"):
        (inbox / name).touch()
    (inbox / ".trash").mkdir()
    (inbox / ".trash" / "b.png").touch()
    rule = IgnoreRule(PATTERNS)
    assert names(inbox, rule) == ["a.png"]
    assert rule.ignores(".trash/b.png")
    assert not rule.ignores("sub/b.png")
    assert not IgnoreRule(()).ignores(".hidden")


def test_an_inbox_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(SourceGoneError, match="plug in or mount its disk or share") as caught:
        names(tmp_path / "absent")
    assert caught.value.exit_code == 30


def test_a_sub_folder_that_cannot_be_read_is_stepped_over(
    inbox: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (inbox / "closed" / "deep").mkdir(parents=True)
    (inbox / "a.png").touch()
    scandir = os.scandir

    def refusing(folder: Path) -> object:
        if folder.name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(scan_module, "scandir", refusing)
    assert names(inbox) == ["a.png"]
    assert "not_readable errno=EACCES" in caplog.text


@pytest.mark.parametrize(
    "name",
    [
        *(
            "scan.png.part",
            "SCAN.PNG.TMP",
            "scan.png.filepart",
            "scan.png.crdownload",
            "~scan.png",
            "~$report.docx",
            "._scan.png",
            ".scan.png.x8Yq",
        ),
        *(".DS_Store", "Thumbs.db", "thumbs.db", "DESKTOP.INI", "@eaDir/a.png", "sub/@eaDir/a.png/SYNOPHOTO.jpg", "#recycle/a.png"),
        *("__MACOSX/._a.png", "lost+found/#12", "System Volume Information/a", "$RECYCLE.BIN/S-1-5/a.png", "$Recycle.Bin/a.png"),
    ],
)
def test_what_systems_leave_in_a_folder_is_no_image(name: str) -> None:
    assert IgnoreRule(IntakeConfig().ignore).ignores(name)


@pytest.mark.parametrize("name", ["scan~1.png", "part.png", "a.partial.png", "tmp/a.png", "eaDir/a.png", "thumbs.db.png", "1.2.840.10008"])
def test_what_only_looks_like_it_is_one(name: str) -> None:
    assert not IgnoreRule(IntakeConfig().ignore).ignores(name)


class FailingEntries:
    """A folder that is listed, with one file in it that a dead server does not tell of."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> list[object]:
        return [FailingEntry(entry) for entry in os.scandir(self._folder)]

    def __exit__(self, *_: object) -> None:
        pass


class FailingEntry:
    def __init__(self, entry: os.DirEntry[str]) -> None:
        self._entry = entry
        self.name = entry.name

    def __getattr__(self, name: str) -> object:
        if self.name == "b.png":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return getattr(self._entry, name)


def test_one_file_that_cannot_be_looked_at_hides_no_other(
    inbox: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.png", "b.png", "c.png"):
        (inbox / name).touch()
    monkeypatch.setattr(scan_module, "scandir", FailingEntries)
    unreadable = Unreadable()
    for _ in range(3):
        assert sorted(path for path, _ in scan_folder(inbox, NO_RULE, unreadable=unreadable)) == ["a.png", "c.png"]
        unreadable.end_pass()
    assert caplog.text.count("errno=EIO") == 1, "a lasting fault must not fill the log"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT])
def test_an_inbox_that_cannot_be_listed_is_gone(inbox: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def failing(_folder: Path) -> object:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(scan_module, "scandir", failing)
    with pytest.raises(SourceGoneError, match=os.strerror(number)):
        names(inbox)


def list_all(listing: Listing, leave_out: set[str] | None = None) -> list[str]:
    while listing.go_on(leave_out or set(), everything):
        pass
    return [path for path, _ in listing.take_found()]


class TestListing:
    @pytest.fixture
    def many(self, inbox: Path) -> Path:
        """30 files in three folders, whose dates are in another order than their names."""
        for number in range(30):
            path = inbox / str(number % 3) / f"{number:02d}.png"
            path.parent.mkdir(exist_ok=True)
            path.touch()
            os.utime(path, ns=(0, (number * 7 % 30) * 1000))
        return inbox

    @staticmethod
    def by_date(inbox: Path) -> list[str]:
        return [path for path, _ in sorted(scan_folder(inbox, NO_RULE), key=lambda seen: seen[1].mtime_ns)]

    def test_the_newest_are_kept_and_the_others_counted(self, many: Path) -> None:
        listing = Listing(many, NO_RULE, "newest", 4)
        assert list_all(listing) == self.by_date(many)[:-5:-1]
        assert listing.left_out == 26
        assert listing.is_full

    def test_or_the_oldest(self, many: Path) -> None:
        listing = Listing(many, NO_RULE, "oldest", 4)
        assert list_all(listing) == self.by_date(many)[:4]

    def test_memory_does_not_grow_with_the_inbox(self, many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scan_module, "BATCH_FILES", 2)
        listing = Listing(many, NO_RULE, "newest", 3)
        kept = []
        while listing.go_on(set(), everything):
            kept.append(listing.kept)
        assert max(kept) < 6
        assert len(kept) >= 5, "each slice is small, so that the main loop goes on"

    def test_few_files_are_all_kept(self, many: Path) -> None:
        listing = Listing(many, NO_RULE, "newest", 30)
        assert len(list_all(listing)) == 30
        assert listing.left_out == 0

    def test_what_is_in_hand_and_what_has_a_record_is_left_out(self, many: Path) -> None:
        listing = Listing(many, NO_RULE, "newest", 30)
        while listing.go_on({"0/00.png"}, lambda batch: [seen for seen in batch if not seen[0].startswith("1/")]):
            pass
        found = {path for path, _ in listing.take_found()}
        assert len(found) == 19
        assert listing.left_out == 0

    def test_nobody_is_asked_about_files_that_are_not_kept_anyway(self, many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(scan_module, "BATCH_FILES", 1)
        asked: list[Seen] = []

        def ask(batch: list[Seen]) -> list[Seen]:
            asked.extend(batch)
            return batch

        listing = Listing(many, NO_RULE, "newest", 1)
        while listing.go_on(set(), ask):
            pass
        assert len(asked) < 30
        assert len(asked) + listing.left_out >= 30

    def test_a_part_of_the_inbox_and_what_is_added_on_the_way(self, many: Path) -> None:
        listing = Listing(many, NO_RULE, "newest", 30, ["1"])
        listing.add("2")
        listing.add("2")
        found = list_all(listing)
        assert len(found) == 20
        assert {path[0] for path in found} == {"1", "2"}
        assert not listing.is_full

    def test_a_folder_that_is_gone_is_no_fault(self, inbox: Path) -> None:
        assert list_all(Listing(inbox, NO_RULE, "newest", 30, ["absent"])) == []
