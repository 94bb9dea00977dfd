"""The board's facts, read from the files that real boards show."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from edge_agent.bench.board import Board, read_board
from edge_agent.bench.condition import BoardState, cautions, invalidity, read_state, throttled_words

# As printed by a Raspberry Pi 4 under 64-bit Raspberry Pi OS.
PI_4_CPUINFO = "\n\n".join(
    [
        *(
            f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
            "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3"
            for core in range(4)
        ),
        "Hardware\t: BCM2835\nRevision\t: c03111\nModel\t\t: Raspberry Pi 4 Model B Rev 1.1",
    ]
)
# A board with big and little cores: only what both can do counts.
TWO_KINDS_CPUINFO = "\n\n".join(
    f"processor : {core}\nFeatures : fp asimd {features}\nCPU implementer : 0x41\nCPU part : {part}"
    for core, (part, features) in enumerate([("0xd05", "asimddp"), ("0xd05", "asimddp"), ("0xd0b", "asimddp i8mm")])
)
KIOSK_CPUINFO = "processor : 0\nmodel name : Intel(R) N100\ncpu MHz : 2400.5\nflags : fpu sse4_1 avx avx2 avx_vnni"


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def state(throttled: int | None = None, governor: str | None = None, load_average: float = 0.0) -> BoardState:
    return BoardState(
        governor=governor,
        clock_hz=None,
        clock_min_hz=None,
        clock_max_hz=None,
        temperature_c=None,
        throttled=throttled,
        load_average=load_average,
    )


@pytest.fixture
def no_vcgencmd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))


def test_a_raspberry_pi_names_itself(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/cpuinfo": PI_4_CPUINFO,
            "proc/meminfo": "MemTotal:        3885396 kB\nMemFree: 1 kB\n",
            "proc/device-tree/model": b"Raspberry Pi 4 Model B Rev 1.1\0",
            "etc/os-release": 'NAME="Debian GNU/Linux"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
        },
    )
    board = read_board(root)
    assert board.model == "Raspberry Pi 4 Model B Rev 1.1"
    assert board.cpu == "Cortex-A72"
    assert board.features == ["neon"]
    assert board.memory_bytes == 3885396 * 1024
    assert board.os == "Debian GNU/Linux 12 (bookworm)"
    assert board.power_supply is None


def test_a_board_with_two_kinds_of_cores_names_both(tmp_path: Path) -> None:
    board = read_board(write(tmp_path, {"proc/cpuinfo": TWO_KINDS_CPUINFO}))
    assert board.cpu == "Cortex-A55 + Cortex-A76"
    assert board.features == ["neon", "asimddp"]


def test_an_unknown_arm_core_keeps_its_numbers(tmp_path: Path) -> None:
    board = read_board(write(tmp_path, {"proc/cpuinfo": "processor : 0\nCPU implementer : 0x61\nCPU part : 0x032"}))
    assert board.cpu == "implementer 0x61 part 0x032"


def test_a_kiosk_is_named_by_its_firmware_table(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        {
            "proc/cpuinfo": KIOSK_CPUINFO,
            "sys/class/dmi/id/sys_vendor": "ACME\n",
            "sys/class/dmi/id/product_name": "Kiosk 3\n",
            "sys/class/power_supply/AC/type": "Mains\n",
            "sys/class/power_supply/AC/online": "1\n",
            "sys/class/power_supply/BAT0/type": "Battery\n",
            "sys/class/power_supply/BAT0/status": "Discharging\n",
        },
    )
    board = read_board(root)
    assert (board.model, board.cpu) == ("ACME Kiosk 3", "Intel(R) N100")
    assert board.features == ["sse4_1", "avx", "avx2", "avx_vnni"]
    assert board.power_supply == "Mains online, Battery Discharging"
    assert read_state(root).clock_hz == 2_400_500_000


def test_a_raspberry_pi_5_says_what_its_supply_promised(tmp_path: Path) -> None:
    root = write(tmp_path, {"proc/device-tree/chosen/power/max_current": (5000).to_bytes(4, "big")})
    assert read_board(root).power_supply == "5 A negotiated"


def test_what_cannot_be_known_is_none(tmp_path: Path, no_vcgencmd: None) -> None:
    board, now = read_board(tmp_path), read_state(tmp_path)
    assert [board.model, board.cpu, board.memory_bytes, board.os, board.power_supply] == [None] * 5
    assert board.features == []
    assert board.cores >= 1
    assert board.page_size_bytes >= 4096
    assert [now.governor, now.clock_hz, now.clock_min_hz, now.clock_max_hz, now.temperature_c, now.throttled] == [None] * 6


def test_this_machine_can_be_read() -> None:
    board = read_board()
    assert board.cpu is not None
    assert board.memory_bytes is not None
    assert {"numpy", "pillow"} <= board.packages.keys()
    read_state()


def test_clock_and_heat_are_read_in_plain_units(tmp_path: Path, no_vcgencmd: None) -> None:
    frequency = "sys/devices/system/cpu/cpu0/cpufreq/"
    root = write(
        tmp_path,
        {
            frequency + "scaling_governor": "ondemand\n",
            frequency + "scaling_cur_freq": "1500000\n",
            frequency + "scaling_min_freq": "600000\n",
            frequency + "scaling_max_freq": "1800000\n",
            "sys/class/thermal/thermal_zone0/temp": "48312\n",
            "sys/class/thermal/thermal_zone1/temp": "51000\n",
            "sys/class/thermal/thermal_zone2/temp": "not now\n",
        },
    )
    now = read_state(root)
    assert now.governor == "ondemand"
    assert (now.clock_hz, now.clock_min_hz, now.clock_max_hz) == (1_500_000_000, 600_000_000, 1_800_000_000)
    assert now.temperature_c == 51.0


def test_throttling_is_asked_of_vcgencmd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "vcgencmd"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\n[ "$1" = get_throttled ] && echo throttled=0x50005\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    assert read_state(tmp_path).throttled == 0x50005


def test_throttling_is_read_from_the_firmware_where_vcgencmd_may_not_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "vcgencmd"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "Can\'t open device file: /dev/vcio" >&2\nexit 1\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    root = write(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "50000\n"})
    assert read_state(root).throttled == 0x50000


def test_the_bits_are_spelled_out() -> None:
    assert throttled_words(0) == []
    assert throttled_words(0x50005) == ["under-voltage", "throttled", "under-voltage has occurred", "throttling has occurred"]


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        ([None, None], []),
        ([0x0, 0x0], []),
        ([0x50000, 0x50000], []),
        ([0x0, 0x4, 0x0], ["throttled while the benchmark ran"]),
        ([0x0, 0x40000], ["throttling has occurred while the benchmark ran"]),
        ([0x10000, 0x10001], ["under-voltage while the benchmark ran"]),
    ],
)
def test_a_throttled_run_is_invalid(bits: list[int | None], reasons: list[str]) -> None:
    assert invalidity([state(throttled=each) for each in bits]) == reasons


def test_what_makes_a_run_less_sure_is_said() -> None:
    board: Board = read_board()
    assert cautions(board, state()) == []
    found = cautions(board, state(throttled=0x10000, governor="ondemand", load_average=board.cores))
    assert len(found) == 3
    assert "under-voltage has occurred" in found[0]
    assert "other programs" in found[1]
    assert "ondemand" in found[2]
