"""The doctor's look at the board, on the files that real boards show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge_agent.bench.board import read_board
from edge_agent.bench.condition import read_state
from edge_agent.doctor.board import board_findings
from edge_agent.doctor.finding import Finding, worst

PI_4 = {
    "proc/cpuinfo": "\n\n".join(f"processor : {core}\nCPU implementer : 0x41\nCPU part : 0xd08" for core in range(4)),
    "proc/meminfo": "MemTotal:        3885396 kB\nMemFree: 1 kB\nMemAvailable:    3500000 kB\nSwapTotal:        102396 kB\n",
    "proc/swaps": "Filename\tType\tSize\tUsed\tPriority\n/var/swap file 102396 0 -2\n",
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.1\0",
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "sys/class/thermal/thermal_zone0/temp": "48312\n",
    "sys/devices/platform/soc/soc:firmware/get_throttled": "0\n",
}


@pytest.fixture(autouse=True)
def no_vcgencmd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def look_at_board(root: Path, max_pixels: int = 100_000_000, **changes: Any) -> dict[str, Finding]:
    board = msgspec.structs.replace(read_board(root), architecture="aarch64", **changes)
    return by_check(board_findings(board, read_state(root), max_pixels, root))


def by_check(findings: Iterator[Finding] | list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_a_healthy_raspberry_pi_4(tmp_path: Path) -> None:
    found = look_at_board(write(tmp_path, PI_4))
    assert worst(found.values()) == "ok"
    assert found["board"].saw.startswith("Raspberry Pi 4 Model B Rev 1.1, Cortex-A72")
    assert "Debian GNU/Linux 12" in found["operating system"].saw
    assert found["memory"].saw == "4.0 GB, 3.6 GB free, 0.1 GB swap on the card"
    assert found["temperature"].saw == "48 °C"
    assert found["power supply"].saw == "never too low since the start"


def test_a_raspberry_pi_5_has_large_pages_and_says_what_its_supply_promised(tmp_path: Path) -> None:
    (tmp_path / "proc/device-tree/chosen/power").mkdir(parents=True)
    (tmp_path / "proc/device-tree/chosen/power/max_current").write_bytes((5000).to_bytes(4, "big"))
    found = look_at_board(write(tmp_path, PI_4), page_size_bytes=16384)
    assert found["memory pages"].verdict == "ok"
    assert "16 KiB" in found["memory pages"].saw
    assert "kernel8.img" in found["memory pages"].saw
    assert found["power supply"].saw.startswith("5 A negotiated")


@pytest.mark.parametrize(
    ("bits", "verdict", "word"),
    [("50005", "problem", "cable"), ("50000", "warning", "cable"), ("60002", "warning", "cooler"), ("80008", "warning", "cooler")],
)
def test_a_throttled_board_is_told_with_its_cause(tmp_path: Path, bits: str, verdict: str, word: str) -> None:
    found = look_at_board(write(tmp_path, PI_4 | {"sys/devices/platform/soc/soc:firmware/get_throttled": bits}))["power supply"]
    assert found.verdict == verdict
    assert word in found.advice


@pytest.mark.parametrize(("millidegrees", "verdict"), [(79_900, "ok"), (81_000, "warning"), (86_000, "problem")])
def test_a_hot_board(tmp_path: Path, millidegrees: int, verdict: str) -> None:
    found = look_at_board(write(tmp_path, PI_4 | {"sys/class/thermal/thermal_zone0/temp": str(millidegrees)}))
    assert found["temperature"].verdict == verdict


@pytest.mark.parametrize(("available_kb", "verdict"), [(300_000, "ok"), (200_000, "warning"), (90_000, "problem")])
def test_little_memory(tmp_path: Path, available_kb: int, verdict: str) -> None:
    meminfo = f"MemTotal: 949448 kB\nMemAvailable: {available_kb} kB\nSwapTotal: 0 kB\n"
    assert look_at_board(write(tmp_path, PI_4 | {"proc/meminfo": meminfo}))["memory"].verdict == verdict


def test_an_image_that_would_not_fit_into_a_small_board_is_foreseen(tmp_path: Path) -> None:
    root = write(tmp_path, PI_4 | {"proc/meminfo": "MemTotal: 949448 kB\nMemAvailable: 700000 kB\n"})
    found = look_at_board(root)["largest image"]
    assert found.verdict == "warning"
    assert "max_pixels = 81000000" in found.advice
    assert "largest image" not in look_at_board(root, max_pixels=81_000_000)


def test_a_kernel_that_does_not_count_memory_is_told_where_the_service_is_installed(tmp_path: Path) -> None:
    root = write(tmp_path, PI_4 | {"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids\n"})
    assert "memory limit" not in look_at_board(root)
    write(root, {"etc/systemd/system/edge-agent.service": ""})
    assert "cgroup_enable=memory" in look_at_board(root)["memory limit"].advice
    write(root, {"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory pids\n"})
    assert "memory limit" not in look_at_board(root)


def test_a_32_bit_system_is_named_with_the_way_out(tmp_path: Path) -> None:
    board = msgspec.structs.replace(read_board(write(tmp_path, PI_4)), architecture="armv7l")
    found = by_check(board_findings(board, read_state(tmp_path), 1, tmp_path))["operating system"]
    assert found.verdict == "problem"
    assert "64-bit" in found.advice


def test_a_system_that_tells_nothing_is_no_crash(tmp_path: Path) -> None:
    found = look_at_board(tmp_path)
    assert found["memory"].verdict == "warning"
    assert worst(found.values()) == "warning"
