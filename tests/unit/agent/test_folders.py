"""The free space of the fullest of the file systems that the agent writes to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.disks import NoDisksError, memory_disk

from edge_agent.agent.folders import free_space
from edge_agent.errors import StorageAwayError


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two mebibytes."""
    try:
        with memory_disk(tmp_path / "disk", 2048) as folder:
            yield folder
    except NoDisksError as fault:
        pytest.skip(f"no disk can be mounted here: {fault}")


def test_it_is_that_of_the_home(disk: Path) -> None:
    assert free_space(disk) == 2 * 1024**2


def test_a_folder_of_the_home_may_be_another_disk(disk: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    assert free_space(home) > 2 * 1024**2
    (home / "done").symlink_to(disk)
    (disk / "file").write_bytes(bytes(1024**2))
    assert free_space(home) == 1024**2


def test_a_home_that_is_away_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageAwayError):
        free_space(tmp_path / "absent")
