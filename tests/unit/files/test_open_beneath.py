"""Folders opened below a root, never through a link."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge_agent.files.open_beneath import open_folder


def test_what_is_opened_is_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for parts in ((), ("a",), ("a", "b")):
        descriptor = open_folder(tmp_path, parts)
        try:
            assert os.path.samestat(os.fstat(descriptor), tmp_path.joinpath(*parts).stat())
        finally:
            os.close(descriptor)


def test_a_link_on_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside" / "b").mkdir(parents=True)
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a").symlink_to(tmp_path / "outside")
    for parts in (("a",), ("a", "b")):
        with pytest.raises(OSError, match="Not a directory"):
            open_folder(tmp_path / "root", parts)


def test_what_is_gone_is_said_and_no_descriptor_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError) as caught:
        open_folder(tmp_path, ("a", "absent"))
    assert caught.value.errno == errno.ENOENT
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
