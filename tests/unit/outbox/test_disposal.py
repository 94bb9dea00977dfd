"""What becomes of an image after its record is durable: nothing overwritten, nothing followed, nothing lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.agents import arrival_of, make_record

from edge_agent.errors import StorageError
from edge_agent.outbox import disposal as disposal_module
from edge_agent.outbox.disposal import Disposal
from edge_agent.records import Reason, Record

BAD = Reason("truncated", "The end of the image is missing. Copy it again.")


class Place:
    """An inbox and a home, with one disposal."""

    def __init__(self, root: Path, on_done: Any = "move", inbox: Path | None = None) -> None:
        self.home = root / "home"
        self.inbox = inbox or root / "inbox"
        for folder in (self.home, self.inbox):
            folder.mkdir(exist_ok=True)
        self.disposal = Disposal(self.inbox, self.home, on_done)

    def drop(self, name: str, content: bytes = b"image") -> None:
        (self.inbox / name).parent.mkdir(parents=True, exist_ok=True)
        (self.inbox / name).write_bytes(content)

    def record(self, name: str, record_id: int = 7, **changes: Any) -> Record:
        return make_record(id=record_id, path=name, **changes)

    def dispose(self, name: str, record_id: int = 7, *, resume: bool = False, **changes: Any) -> str:
        return self.disposal.dispose(self.record(name, record_id, **changes), arrival_of(self.inbox, name), resume=resume)

    def files(self) -> dict[str, bytes]:
        found = {}
        for root in (self.inbox, self.home):
            for path in root.rglob("*"):
                if path.is_file() and not path.is_symlink():
                    found[f"{root.name}/{path.relative_to(root)}"] = path.read_bytes()
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("name", ["a.png", "sub/b c.png", "x.png/in.png", "line\nbreak \N{LUNGS}.png", os.fsdecode(b"\xff\xfe.png")])
def test_a_classified_image_moves_to_done_with_its_folders(place: Place, name: str) -> None:
    place.drop(name)
    before = os.lstat(place.inbox / name)
    assert place.dispose(name) == "moved"
    assert place.files() == {f"home/done/{name}": b"image"}
    assert os.lstat(place.home / "done" / name).st_mtime_ns == before.st_mtime_ns


def test_a_rejected_image_moves_to_rejected_with_a_note(place: Place) -> None:
    place.drop("sub/a.png")
    assert place.dispose("sub/a.png", status="rejected", reason=BAD) == "moved"
    files = place.files()
    note = files.pop("home/rejected/sub/a.png.reason.txt").decode()
    assert files == {"home/rejected/sub/a.png": b"image"}
    assert note == f"a.png\nwas not classified on 2026-07-01 at 12:00:00 UTC (record 7).\n\n{BAD.message}\n"


def test_nothing_is_overwritten(place: Place) -> None:
    for record_id, content in enumerate((b"one", b"two", b"three"), start=1):
        place.drop("a.png", content)
        assert place.dispose("a.png", record_id) == "moved"
    (place.home / "done" / "a-4.png").write_bytes(b"mine")
    place.drop("a.png", b"four")
    assert place.dispose("a.png", 4) == "moved"
    assert place.files() == {
        "home/done/a.png": b"one",
        "home/done/a-2.png": b"two",
        "home/done/a-3.png": b"three",
        "home/done/a-4.png": b"mine",
        "home/done/a-4-1.png": b"four",
    }


def test_a_note_is_overwritten_neither(place: Place) -> None:
    for record_id in (1, 2):
        place.drop("a.png", b"%d" % record_id)
        place.dispose("a.png", record_id, status="rejected", reason=BAD)
    (place.home / "rejected" / "b.png.reason.txt").write_text("mine")
    place.drop("b.png")
    place.dispose("b.png", 3, status="rejected", reason=BAD)
    assert set(place.files()) == {
        *("home/rejected/a.png", "home/rejected/a.png.reason.txt", "home/rejected/a-2.png", "home/rejected/a-2.png.reason.txt"),
        *("home/rejected/b.png.reason.txt", "home/rejected/b-3.png", "home/rejected/b-3.png.reason.txt"),
    }


def test_keep_leaves_the_image_and_still_explains_a_rejection(tmp_path: Path) -> None:
    place = Place(tmp_path, "keep")
    place.drop("a.png")
    assert place.dispose("a.png") == "kept"
    assert place.dispose("a.png", status="rejected", reason=BAD) == "kept"
    assert set(place.files()) == {"inbox/a.png", "home/rejected/a.png.reason.txt"}


def test_delete_deletes_what_was_classified_and_nothing_else(tmp_path: Path) -> None:
    place = Place(tmp_path, "delete")
    place.drop("a.png")
    place.drop("b.png")
    assert place.dispose("a.png") == "deleted"
    assert place.dispose("b.png", status="rejected", reason=BAD) == "moved"
    assert set(place.files()) == {"home/rejected/b.png", "home/rejected/b.png.reason.txt"}


@pytest.mark.parametrize("on_done", ["move", "keep", "delete"])
def test_another_file_of_the_same_name_is_left_alone(tmp_path: Path, on_done: str) -> None:
    place = Place(tmp_path, on_done)
    place.drop("a.png")
    arrival = arrival_of(place.inbox, "a.png")
    place.drop("new", b"new image")
    (place.inbox / "new").rename(place.inbox / "a.png")
    assert place.disposal.dispose(place.record("a.png"), arrival) == "replaced"
    (place.inbox / "a.png").unlink()
    assert place.disposal.dispose(place.record("a.png"), arrival) == "gone"


@pytest.mark.parametrize("on_done", ["move", "delete"])
@pytest.mark.parametrize("third", [False, True])
def test_a_file_replaced_in_the_last_moment_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_done: str, third: bool) -> None:
    """
    1. The image is looked at: it is the recorded one.
    2. Before it is renamed, a new image of the same name takes its place; with ``third`` one more comes right after the rename.
    Result: the new images are in the inbox, to be taken; none is in done/ or deleted.
    """
    place = Place(tmp_path, on_done)
    place.drop("a.png")
    rename = os.rename

    def late(source: Any, target: Any, **options: Any) -> None:
        if source == "a.png" and "src_dir_fd" in options:
            place.drop("a.new", b"new image")
            rename(place.inbox / "a.new", place.inbox / "a.png")
        rename(source, target, **options)
        if third and source == "a.png":
            place.drop("a.png", b"third image")

    monkeypatch.setattr(disposal_module.os, "rename", late)
    assert place.dispose("a.png") == "replaced"
    expected = {"inbox/a.png": b"third image", "inbox/a-0.png": b"new image"} if third else {"inbox/a.png": b"new image"}
    assert place.files() == expected


def test_a_symbolic_link_is_moved_itself(place: Place, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (place.inbox / "a.png").symlink_to(secret)
    assert place.dispose("a.png", status="rejected", reason=BAD) == "moved"
    assert (place.home / "rejected" / "a.png").readlink() == secret
    assert secret.read_text() == "secret"


def test_a_folder_swapped_for_a_link_is_not_followed(place: Place, tmp_path: Path) -> None:
    place.drop("sub/a.png")
    arrival = arrival_of(place.inbox, "sub/a.png")
    outside = tmp_path / "outside"
    (place.inbox / "sub").rename(outside)
    (place.inbox / "sub").symlink_to(outside)
    assert place.disposal.dispose(place.record("sub/a.png"), arrival) == "gone"
    assert (outside / "a.png").exists()


def test_an_inbox_that_lets_nothing_go_is_no_reason_to_stop(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.drop("a.png")
    real = os.rename

    def refuse(source: Any, target: Any, **options: Any) -> None:
        if "src_dir_fd" in options:
            raise PermissionError(13, "Permission denied")
        real(source, target, **options)

    monkeypatch.setattr(disposal_module.os, "rename", refuse)
    assert place.dispose("a.png") == "refused"
    assert place.files() == {"inbox/a.png": b"image"}


def test_a_home_that_takes_nothing_is_a_storage_error(place: Place) -> None:
    place.drop("a.png")
    (place.home / "done").write_text("a file in the way")
    with pytest.raises(StorageError):
        place.dispose("a.png")
    assert (place.inbox / "a.png").exists()


class TestTwoFileSystems:
    """The inbox on another file system than the home: a rename is not possible."""

    @pytest.fixture
    def place(self, tmp_path: Path, other_file_system: Path) -> Place:
        return Place(tmp_path, inbox=other_file_system)

    def test_the_image_is_copied_whole_and_then_removed(self, place: Place) -> None:
        place.drop("sub/a.png", b"x" * 3_000_000)
        before = os.lstat(place.inbox / "sub/a.png")
        assert place.dispose("sub/a.png") == "moved"
        assert place.files() == {"home/done/sub/a.png": b"x" * 3_000_000}
        assert os.lstat(place.home / "done/sub/a.png").st_mtime_ns == before.st_mtime_ns

    def test_names_do_not_clash(self, place: Place) -> None:
        for record_id, content in ((1, b"one"), (2, b"two")):
            place.drop("a.png", content)
            assert place.dispose("a.png", record_id) == "moved"
        assert place.files() == {"home/done/a.png": b"one", "home/done/a-2.png": b"two"}

    def test_a_copy_that_was_made_before_a_crash_is_not_made_twice(self, place: Place) -> None:
        place.drop("a.png")
        (place.home / "done").mkdir()
        (place.home / "done" / "a.png").write_bytes(b"image")
        sha256 = "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"
        assert place.dispose("a.png", resume=True, sha256=sha256) == "moved"
        assert place.files() == {"home/done/a.png": b"image"}

    def test_deleting_needs_no_copy(self, tmp_path: Path, other_file_system: Path) -> None:
        place = Place(tmp_path, "delete", inbox=other_file_system)
        place.drop("a.png")
        assert place.dispose("a.png") == "deleted"
        assert place.files() == {}

    def test_a_link_is_made_again_not_followed(self, place: Place) -> None:
        (place.inbox / "a.png").symlink_to("/etc/hostname")
        assert place.dispose("a.png", status="rejected", reason=BAD) == "moved"
        assert (place.home / "rejected" / "a.png").readlink() == Path("/etc/hostname")
        assert not os.path.lexists(place.inbox / "a.png")


def test_what_a_crash_left_between_inbox_and_deletion_is_deleted(tmp_path: Path) -> None:
    place = Place(tmp_path, "delete")
    place.drop("a.png")
    arrival = arrival_of(place.inbox, "a.png")
    leaving = place.home / "state" / "leaving"
    leaving.mkdir(parents=True)
    (place.inbox / "a.png").rename(leaving / "7")
    assert place.disposal.dispose(place.record("a.png"), arrival, resume=True) == "gone"
    assert place.files() == {}


def test_what_lies_there_and_is_another_image_goes_back(tmp_path: Path) -> None:
    place = Place(tmp_path, "delete")
    place.drop("sub/a.png")
    arrival = arrival_of(place.inbox, "sub/a.png")
    leaving = place.home / "state" / "leaving"
    leaving.mkdir(parents=True)
    (leaving / "7").write_bytes(b"another image")
    place.disposal.dispose(place.record("sub/a.png"), arrival, resume=True)
    assert place.files() == {"inbox/a.png": b"another image"}


def test_the_same_bytes_under_a_new_inode_are_the_recorded_image_after_a_restore(place: Place) -> None:
    place.drop("a.png")
    arrival = arrival_of(place.inbox, "a.png")
    (place.inbox / "a.png").rename(place.inbox / "old")
    place.drop("a.png")
    sha256 = "6105d6cc76af400325e94d588ce511be5bfdbb73b437dc51eca43917d7a43e3d"
    assert place.disposal.dispose(place.record("a.png", sha256=sha256), arrival) == "replaced"
    assert place.disposal.dispose(place.record("a.png", sha256=sha256), arrival, resume=True) == "moved"
