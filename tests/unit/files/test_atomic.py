"""Folders that are in nobody's way, and writes that are whole or not there."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from edge_agent.errors import DiskFullError, StorageError
from edge_agent.files.atomic import make_folder, replacing, storage_error


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


def test_a_folder_that_can_not_be_made_is_a_storage_error(tmp_path: Path) -> None:
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
        pytest.raises(StorageError, match=r"can not write absent/a.json: No such file.*check that the disk is mounted"),
        replacing(tmp_path / "absent" / "a.json"),
    ):
        pass
    full = storage_error(OSError(errno.ENOSPC, "No space left"), "write x")
    assert isinstance(full, DiskFullError)
    assert full.exit_code == 41
    assert isinstance(storage_error(OSError(errno.EDQUOT, "Quota"), "write x"), DiskFullError)
    assert storage_error(OSError(errno.EROFS, "Read-only"), "write x").exit_code == 40
