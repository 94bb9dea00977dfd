"""Folders that are in nobody's way, and writes that are whole or not there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge_agent.errors import DiskFullError, StorageError
from edge_agent.files.atomic import make_folder, replacing, storage_error, write_folder


def test_a_file_in_the_way_of_a_folder_is_stepped_around(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "done", ("a", "b")) == tmp_path / "done" / "a" / "b"
    assert make_folder(tmp_path / "done", ("a", "b")).is_dir()
    (tmp_path / "done" / "a" / "c").write_text("")
    assert make_folder(tmp_path / "done", ("a", "c", "d")) == tmp_path / "done" / "a" / "c-folder" / "d"
    (tmp_path / "done" / "a" / "c-folder" / "e").write_text("")
    (tmp_path / "done" / "a" / "c-folder" / "e-folder").write_text("")
    assert make_folder(tmp_path / "done", ("a", "c", "e")) == tmp_path / "done"


def test_a_path_that_would_be_too_long_ends_in_the_root(tmp_path: Path) -> None:
    assert make_folder(tmp_path, ("x" * 250,) * 20) == tmp_path


def test_a_folder_that_cannot_be_made_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="make a folder"):
        make_folder(tmp_path / "file" / "done", ("a",))


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "a.json"
    with replacing(path, durable=durable) as file:
        file.write(b"first")
        assert not path.exists()
    with pytest.raises(RuntimeError), replacing(path, durable=durable) as file:
        file.write(b"sec")
        raise RuntimeError
    assert path.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [path]


def test_faults_of_our_files_say_what_and_what_next(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"cannot write absent/a.json: No such file.*check that the disk is mounted"),
        replacing(tmp_path / "absent" / "a.json"),
    ):
        pass
    full = storage_error(OSError(errno.ENOSPC, "No space left"), "write x")
    assert isinstance(full, DiskFullError)
    assert full.exit_code == 41
    assert isinstance(storage_error(OSError(errno.EDQUOT, "Quota"), "write x"), DiskFullError)
    assert storage_error(OSError(errno.EROFS, "Read-only"), "write x").exit_code == 40


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files and folders that the disk was waited for, in their order; a name may be replaced later."""
    names: list[str] = []
    fsync = os.fsync

    def record(descriptor: int) -> None:
        names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    return names


def test_a_durable_file_is_synced_and_then_the_folder_that_names_it(tmp_path: Path, synced: list[str]) -> None:
    with replacing(tmp_path / "a.json", durable=True) as file:
        file.write(b"first")
    assert synced == [".a.json.tmp", tmp_path.name]


def test_a_folder_is_replaced_by_one_whose_files_and_names_are_on_disk(tmp_path: Path, synced: list[str]) -> None:
    target = tmp_path / "runs" / "bundle"
    write_folder(target, {"old.txt": b"old"}, "free space")
    synced.clear()
    write_folder(target, {"a.txt": b"new", "b.txt": b""}, "free space")
    assert synced == ["a.txt", "b.txt", ".bundle.part", "runs"]
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {"a.txt": b"new", "b.txt": b""}
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("step", ["fsync", "rename"])
@pytest.mark.parametrize(("number", "exit_code"), [(errno.ENOSPC, 41), (errno.EDQUOT, 41), (errno.EIO, 40)])
def test_a_folder_that_cannot_be_written_leaves_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int, exit_code: int
) -> None:
    target = tmp_path / "bundle"
    write_folder(target, {"a.txt": b"old"}, "free space")
    rename = Path.rename

    def fail(*_: object) -> None:
        raise OSError(number, "it went wrong")

    def fail_for_the_new(path: Path, other: Path) -> Path:
        return fail() or path if path.name == ".bundle.part" else rename(path, other)

    if step == "fsync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(StorageError, match=r"bundle: cannot be written: it went wrong; free space") as told:
        write_folder(target, {"a.txt": b"new"}, "free space")
    assert told.value.exit_code == exit_code
    assert (target / "a.txt").read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_command_whose_quota_is_used_up_hears_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with (
        pytest.raises(DiskFullError, match=r"a\.json: cannot be written: Disk quota exceeded; name another --out") as told,
        replacing(path, durable=True, hint="name another --out"),
    ):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")
    assert told.value.exit_code == 41
    assert list(tmp_path.iterdir()) == []
