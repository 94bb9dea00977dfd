"""How hot, fast and well supplied the board was while a benchmark ran, and whether that spoils the result."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from edge_agent.bench.board import Board, read_cpuinfo, read_integer, read_text

_THROTTLED_BITS = {
    0: "under-voltage",
    1: "ARM frequency capped",
    2: "throttled",
    3: "soft temperature limit",
    16: "under-voltage has occurred",
    17: "ARM frequency capping has occurred",
    18: "throttling has occurred",
    19: "soft temperature limit has occurred",
}
"""As https://www.raspberrypi.com/documentation/computers/os.html#get_throttled has them."""
_NOW_MASK = 0xF
_SINCE_BOOT_SHIFT = 16


class BoardState(msgspec.Struct, frozen=True, kw_only=True):
    """What may change: read before and after a run.

    ``clock_hz`` is what the kernel asked for: on a Raspberry Pi it does not show throttling (raspberrypi/linux#2986); the bit field of its
    firmware, ``throttled``, does. ``temperature_c`` is that of the hottest zone, ``load_average`` that of the last minute.
    """

    governor: str | None
    clock_hz: int | None
    clock_min_hz: int | None
    clock_max_hz: int | None
    temperature_c: float | None
    throttled: int | None
    load_average: float


def read_state(root: Path = Path("/")) -> BoardState:
    """Read clock, temperature and throttling as they are now."""
    frequency = root / "sys/devices/system/cpu/cpu0/cpufreq"
    return BoardState(
        governor=read_text(frequency / "scaling_governor"),
        clock_hz=_kilo(frequency / "scaling_cur_freq") or _cpuinfo_clock_hz(root),
        clock_min_hz=_kilo(frequency / "scaling_min_freq"),
        clock_max_hz=_kilo(frequency / "scaling_max_freq"),
        temperature_c=_temperature_c(root),
        throttled=_throttled(root),
        load_average=round(os.getloadavg()[0], 2),
    )


def throttled_words(bits: int) -> list[str]:
    """Spell out the bit field of ``vcgencmd get_throttled``, the lowest bit first."""
    return [words for bit, words in _THROTTLED_BITS.items() if bits & 1 << bit]


def invalidity(states: Sequence[BoardState]) -> list[str]:
    """Say why a run measures the cooling or the power supply and not the board; empty where it does not.

    Parameters
    ----------
    states : sequence of BoardState
        In the order in which they were read: before the run, during it, after it. The bits "has occurred" stay set until the next boot:
        only those that were not set before count.
    """
    bits = [state.throttled for state in states if state.throttled is not None]
    if not bits:
        return []
    seen = 0
    for each in bits:
        seen |= each & _NOW_MASK
    since_boot = bits[-1] & ~bits[0] & _NOW_MASK << _SINCE_BOOT_SHIFT
    return [f"{words} while the benchmark ran" for words in throttled_words(seen | since_boot)]


def cautions(board: Board, before: BoardState) -> list[str]:
    """Say what makes a run less sure without spoiling it; ``before`` is the state when it began."""
    found = []
    if before.throttled is not None and before.throttled >> _SINCE_BOOT_SHIFT & _NOW_MASK:
        words = ", ".join(throttled_words(before.throttled & _NOW_MASK << _SINCE_BOOT_SHIFT))
        found.append(f"since the last boot: {words}; whether it happened again during this run cannot be seen")
    if before.load_average > board.cores / 4:
        found.append(f"other programs were running: the load average was {before.load_average:.2f} on {board.cores} cores")
    if before.governor is not None and before.governor != "performance":
        found.append(f"the clock governor is {before.governor!r}: the clock may change between two runs")
    return found


def _kilo(path: Path) -> int | None:
    value = read_integer(path)
    return None if value is None else value * 1000


def _cpuinfo_clock_hz(root: Path) -> int | None:
    for core in read_cpuinfo(root):
        if "cpu MHz" in core:
            return round(float(core["cpu MHz"]) * 1e6)
    return None


def _temperature_c(root: Path) -> float | None:
    millidegrees = [
        value for zone in (root / "sys/class/thermal").glob("thermal_zone*") if (value := read_integer(zone / "temp")) is not None
    ]
    return max(millidegrees) / 1000 if millidegrees else None


def _throttled(root: Path) -> int | None:
    """Ask ``vcgencmd``, else the firmware's file, which needs no membership of the group ``video``."""
    program = shutil.which("vcgencmd")
    answer = None
    if program is not None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            answer = subprocess.run([program, "get_throttled"], capture_output=True, text=True, timeout=5, check=True).stdout  # noqa: S603
    if answer is None:
        files = (root / "sys/devices/platform").glob("soc*/soc*firmware/get_throttled")
        answer = next((text for file in files if (text := read_text(file)) is not None), None)
    try:
        return None if answer is None else int(answer.strip().removeprefix("throttled="), 16)
    except ValueError:
        return None
