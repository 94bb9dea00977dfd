"""What fault tests need of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.disks import NoDisksError, check_disks, scratch
from support.signed import SERIAL, Maker

from edge_agent.inference.bundle import read_contents


@pytest.fixture(scope="session")
def disks() -> None:
    """Skips where no loop device can be mounted: that takes root, mkfs.ext4, and a kernel that lets us."""
    try:
        check_disks()
    except NoDisksError as fault:
        pytest.skip(f"no disk can be mounted here: {fault}")


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    """An empty folder in memory, where no other program's writing is waited for."""
    with scratch() as folder:
        yield folder


@pytest.fixture(scope="session")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Somebody who builds and signs models."""
    return Maker(tmp_path_factory.mktemp("maker") / "m")


@pytest.fixture(scope="session")
def good(maker: Maker) -> dict[str, bytes]:
    """The files of a bundle that would be installed. Not to be changed."""
    return read_contents(maker.bundle(SERIAL))


@pytest.fixture
def box(maker: Maker, tmp_path: Path) -> Path:
    """A home that trusts the maker."""
    return maker.trust(tmp_path / "home")
