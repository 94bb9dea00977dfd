"""The clock: records carry its time, and a Raspberry Pi without a network or a battery starts with a wrong one."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path

from edge_agent.bench.board import read_integer, read_text
from edge_agent.doctor.finding import Finding, ok, problem, warning

_TIME_ERROR = 5
_TIMEX_BYTES = 256
"""More than ``struct timex`` has on any system."""
_SLACK = timedelta(hours=1)
_CHIP_SLACK_S = 300
"""A clock chip without a time server drifts some seconds a day."""
_SET_CLOCK = "set the clock:  sudo date --utc --set 'YYYY-MM-DD HH:MM'"


def clock_findings(witnesses: Mapping[str, datetime], now: datetime, *, synchronised: bool, root: Path = Path("/")) -> Iterator[Finding]:
    """Look at the clock.

    Parameters
    ----------
    witnesses : mapping of str to datetime
        What must lie in the past, in UTC, by what it is: "the newest record".
    now : datetime
        The time in UTC that it shows.
    synchronised : bool
        Whether a time server keeps it: see :func:`kernel_synchronised`.
    root : Path
        Where ``sys`` stands.
    """
    saw = f"{now:%Y-%m-%d %H:%M:%S} UTC"
    late = {name: when for name, when in witnesses.items() if when > now + _SLACK}
    if late:
        name, when = max(late.items(), key=lambda pair: pair[1])
        saw += f"; but {name} is of {when:%Y-%m-%d %H:%M} UTC"
        yield problem("date and time", saw, f"{_SET_CLOCK}. New results would be dated before the old ones")
    else:
        yield ok("date and time", saw)
    yield _keeper(now, synchronised, root)


def kernel_synchronised() -> bool:
    """Tell whether a time server keeps the clock, whichever program asks it.

    References
    ----------
    adjtimex(2): the return value is ``TIME_ERROR`` where the clock is not synchronised; with ``modes`` 0 nothing is set.
    """
    state: int = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    return state not in (-1, _TIME_ERROR)


def _keeper(now: datetime, synchronised: bool, root: Path) -> Finding:
    if synchronised:
        return ok("kept right by", "a time server")
    for chip in sorted((root / "sys/class/rtc").glob("rtc*")):
        since_epoch_s = read_integer(chip / "since_epoch")
        if since_epoch_s is None:
            continue
        name, apart_s = read_text(chip / "name") or chip.name, round(abs(now.timestamp() - since_epoch_s))
        if apart_s <= _CHIP_SLACK_S:
            return ok("kept right by", f"a clock chip ({name}), {apart_s} s apart; no time server")
        return warning(
            "kept right by",
            f"a clock chip ({name}), {timedelta(seconds=apart_s)} apart from the time above; no time server",
            "once that time is right, store it in the chip:  sudo hwclock --systohc. A chip that forgets it needs a new battery",
        )
    return warning(
        "kept right by",
        "nothing: no time server, no clock chip",
        "after each power cut the time is wrong: add a clock chip (a Raspberry Pi 5 needs only its battery), or a time server in the "
        "local network (/etc/systemd/timesyncd.conf)",
    )
