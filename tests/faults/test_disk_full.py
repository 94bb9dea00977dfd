"""A disk that is really full: the agent says so and waits, or with ``--once`` ends with 41; nothing is lost when there is space again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from support.agent_process import run_agent
from support.agents import AgentHome, drop, image_bytes
from support.disks import NoDisksError, fill, memory_disk
from support.proofs.space import fill_while_working

DISK_KIB = 8192


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight mebibytes."""
    try:
        with memory_disk(tmp_path / "disk", DISK_KIB) as folder:
            yield folder
    except NoDisksError as fault:
        pytest.skip(f"no small disk can be mounted here: {fault}")


def check_nothing_is_lost(home: AgentHome, images: dict[str, bytes]) -> None:
    home.run_once()
    assert sorted(row["path"] for row in home.rows()) == sorted(images)
    assert sorted(line["path"] for line in home.lines()) == sorted(images)
    assert {name: (home.home / "done" / name).read_bytes() for name in home.files("done")} == images
    assert set(home.files("results")) >= {f"{name}.json" for name in images}
    assert not list(home.home.rglob("*.tmp"))


@pytest.mark.parametrize("leave_kib", [0, 60, 100, 140, 180, 300, 600])
def test_a_disk_that_fills_up_while_images_are_copied_to_it(tmp_path: Path, small_disk: Path, leave_kib: int) -> None:
    """
    1. The home folder is on a disk with little or no space left, the inbox on another.
    2. The agent works until something cannot be written: its database, an image, or results/.
    3. Somebody frees space, and the agent starts again.
    Result: exit code 41 and a message that says what to do; then one result and one file for each image.
    """
    images = {f"{seed}.png": image_bytes(seed, (200, 150)) for seed in range(20)}  # 30 kB each
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    home = AgentHome(small_disk, inbox=inbox)
    for name, content in images.items():
        drop(home.inbox, name, content)
    filler = fill(small_disk, leave_kib=leave_kib)

    code, said = run_agent(home.home, once=True, inbox=inbox)
    assert code == 41, said
    [error] = [line for line in said.splitlines() if line.startswith("error: ")]
    assert "no space is left" in error
    assert "free some space" in error
    assert "Traceback" not in said

    filler.unlink()
    check_nothing_is_lost(home, images)


@pytest.mark.parametrize("leave_kib", [0, 60, 120])
def test_a_disk_that_holds_inbox_and_home(small_disk: Path, leave_kib: int) -> None:
    images = {f"{seed}.png": image_bytes(seed, (60, 40)) for seed in range(150)}
    home = AgentHome(small_disk)
    for name, content in images.items():
        drop(home.inbox, name, content)
    filler = fill(small_disk, leave_kib=leave_kib)
    code, said = run_agent(home.home, once=True)
    assert code == 41, said
    filler.unlink()
    check_nothing_is_lost(home, images)


@pytest.mark.parametrize(("kind", "own_inbox", "shipped"), [("tmpfs", True, False), ("ext4", False, False), ("ext4", True, True)])
def test_a_disk_that_fills_up_while_the_agent_works(disks: None, kind: Literal["tmpfs", "ext4"], own_inbox: bool, shipped: bool) -> None:
    """
    1. Many drop images; an agent works, in one case the shipped one.
    2. Something else uses up the disk. Then somebody frees it. And again.
    Result: the agent lives, says that the disk is full, and goes on by itself; nothing is lost, nothing twice.
    """
    figures = fill_while_working(seed=1, fillings=2, kind=kind, own_inbox=own_inbox, shipped=shipped)
    assert figures.faults == []
    assert figures.shown_as_full == figures.fillings == 2


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("own_inbox", [True, False])
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_disk_that_fills_up_many_times(disks: None, kind: Literal["tmpfs", "ext4"], own_inbox: bool) -> None:
    figures = fill_while_working(seed=2, fillings=15, kind=kind, own_inbox=own_inbox)
    assert figures.faults == []
    assert figures.shown_as_full == 15
