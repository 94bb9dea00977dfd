"""Arrays on disk: whole or not at all, and never a pickle."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import DiskFullError, ModelError, StorageError
from model_build.arrays import read_arrays, write_arrays


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_arrays(path, first=np.arange(6.0).reshape(2, 3), second=np.array("text"))
    arrays = read_arrays(path)
    assert sorted(arrays) == ["first", "second"]
    np.testing.assert_array_equal(arrays["first"], [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize(("number", "expected"), [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EIO, StorageError)])
def test_a_failed_write_says_what_to_do_and_leaves_the_older_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[StorageError]
) -> None:
    path = tmp_path / "a.npz"
    write_arrays(path, value=np.array(1))

    def fail(*_: object, **__: object) -> None:
        raise OSError(number, "it went wrong")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(expected, match=r"a\.npz: cannot be written: it went wrong; free space"):
        write_arrays(path, value=np.array(2))
    assert int(read_arrays(path)["value"]) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.npz: no such file"):
        read_arrays(tmp_path / "none.npz")


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"bad\.npz: is not a whole file"):
        read_arrays(path)


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "objects.npz"
    np.savez(path, values=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ModelError, match=r"objects\.npz"):
        read_arrays(path)
