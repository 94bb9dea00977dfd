"""A disk that is really full: the agent says so, stops with 41, and has lost nothing when there is space again."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.agent_process import run_agent
from support.agents import AgentHome, drop, image_bytes

DISK_KIB = 2048


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_KIB}k", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(folder: Path, *, leave_kib: int) -> Path:
    """Use up a disk but for so much."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            file.truncate(max(0, file.tell() - leave_kib * 1024))
    return filler


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
    2. The agent works until something can not be written: its database, an image, or results/.
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


@pytest.mark.parametrize("leave_kib", [0, 80, 200])
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


def test_a_disk_that_fills_up_while_the_agent_runs(small_disk: Path) -> None:
    """
    1. The agent runs, with space.
    2. Something else uses up the disk; images come.
    Result: the agent stops with 41; nothing is lost.
    """
    from support.agent_process import start_agent

    home = AgentHome(small_disk)
    images = {f"{seed}.png": image_bytes(seed, (60, 40)) for seed in range(60)}
    with start_agent(home.home) as process:
        drop(home.inbox, "0.png", images["0.png"])
        home.wait_for(1)
        for name, content in list(images.items())[1:]:
            (home.inbox / f".{name}").write_bytes(content)  # a hidden name is not taken yet
        filler = fill(small_disk, leave_kib=0)
        for name in list(images)[1:]:
            (home.inbox / f".{name}").rename(home.inbox / name)
        _, said = process.communicate(timeout=30)
        assert process.returncode == 41, said
    filler.unlink()
    check_nothing_is_lost(home, images)
