"""The doctor's look at file systems, their room and their wear."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from edge_agent.doctor.disk import file_system_findings, space_finding, wear_findings
from edge_agent.files.mounts import Mount

GIGABYTE = 10**9


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def mount(kind: str, options: str = "rw,relatime", source: str = "/dev/mmcblk0p2") -> Mount:
    return Mount("/", kind, source, "179:2", options)


@pytest.mark.parametrize(
    ("role", "stands_on", "verdict", "word"),
    [
        ("home", mount("ext4"), "ok", ""),
        ("home", mount("vfat"), "problem", "ext4"),
        ("inbox", mount("vfat"), "ok", ""),
        ("home", mount("ext4", "ro,noatime"), "problem", "dmesg"),
        ("inbox", mount("exfat", "ro"), "problem", "dmesg"),
        ("home", mount("tmpfs"), "problem", "real disk"),
        ("inbox", mount("tmpfs"), "warning", "real disk"),
        ("home", mount("cifs", source="//nas/home"), "problem", "disk of this box"),
        ("inbox", mount("cifs", source="//nas/xray"), "ok", ""),
        ("home", mount("ext4", "rw,relatime,rw,data=writeback"), "problem", "fstab"),
        ("home", mount("ext4", "rw,relatime,rw,nobarrier"), "problem", "fstab"),
        ("home", mount("overlay"), "ok", ""),
    ],
)
def test_each_kind_of_file_system(tmp_path: Path, role: Any, stands_on: Mount, verdict: str, word: str) -> None:
    (found,) = file_system_findings(role, stands_on, tmp_path)
    assert found.verdict == verdict, found
    assert word in found.advice


def test_a_card_that_forgets_at_the_next_start(tmp_path: Path) -> None:
    """raspi-config's overlay file system."""
    write(tmp_path, {"proc/cmdline": "console=tty1 root=/dev/mmcblk0p2 overlayroot=tmpfs quiet"})
    (found,) = file_system_findings("home", mount("overlay"), tmp_path)
    assert found.verdict == "problem"
    assert "gone at the next start" in found.saw


@pytest.mark.parametrize(
    ("free", "files", "verdict"),
    [(20 * GIGABYTE, 10**6, "ok"), (GIGABYTE // 2, 10**6, "warning"), (10**6, 10**6, "problem"), (0, 0, "problem")],
)
def test_room(free: int, files: int, verdict: str) -> None:
    space = os.statvfs_result((4096, 4096, 32 * GIGABYTE // 4096, free // 4096, free // 4096, 2 * 10**6, files, files, 0, 255))
    assert space_finding("home", space, 200 * 1024**2).verdict == verdict


def test_room_for_files_can_end_before_room_for_bytes_but_not_where_files_are_not_counted() -> None:
    few = os.statvfs_result((4096, 4096, 10**7, 10**7, 10**7, 10**6, 10, 10, 0, 255))
    assert space_finding("home", few, 0).verdict == "problem"
    assert "10 more files" in space_finding("home", few, 0).saw
    vfat = os.statvfs_result((4096, 4096, 10**7, 10**7, 10**7, 0, 0, 0, 0, 255))
    assert space_finding("home", vfat, 0).verdict == "ok"


@pytest.fixture
def card(tmp_path: Path) -> Path:
    partition = tmp_path / "sys/devices/mmc0/block/mmcblk0/mmcblk0p2"
    write(partition.parent, {"mmcblk0p2/partition": "2", "device/type": "SD\n", "device/name": "SC32G\n", "device/date": "08/2021\n"})
    (tmp_path / "sys/dev/block").mkdir(parents=True)
    (tmp_path / "sys/dev/block/179:2").symlink_to(partition)
    return write(tmp_path, {"sys/fs/ext4/mmcblk0p2/lifetime_write_kbytes": "797000000", "sys/fs/ext4/mmcblk0p2/errors_count": "0"})


def test_a_card_says_what_it_is_and_how_much_was_written(card: Path) -> None:
    (found,) = wear_findings(mount("ext4"), card)
    assert (found.verdict, found.saw) == ("ok", "SD card SC32G, made 08/2021, 816 GB written so far")


def test_a_file_system_that_noted_errors(card: Path) -> None:
    (found,) = wear_findings(mount("ext4"), write(card, {"sys/fs/ext4/mmcblk0p2/errors_count": "3"}))
    assert found.verdict == "problem"
    assert "3 errors" in found.saw


def test_an_emmc_near_its_end(card: Path) -> None:
    write(card, {"sys/devices/mmc0/block/mmcblk0/device/life_time": "0x02 0x09\n"})
    (found,) = wear_findings(mount("ext4"), card)
    assert found.verdict == "warning"
    assert "90 % of its life" in found.saw


def test_what_has_no_disk_has_no_wear(tmp_path: Path) -> None:
    assert list(wear_findings(Mount("/", "tmpfs", "tmpfs", "0:25", "rw"), tmp_path)) == []
