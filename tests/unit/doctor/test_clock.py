"""The doctor's look at the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_agent.doctor.clock import clock_findings, kernel_synchronised

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_a_clock_kept_by_a_time_server(tmp_path: Path) -> None:
    found = clock_findings({"the newest record": NOON - timedelta(days=1)}, NOON, synchronised=True, root=tmp_path)
    assert [finding.verdict for finding in found] == ["ok", "ok"]


def test_1970(tmp_path: Path) -> None:
    witnesses = {"the program": NOON - timedelta(days=30), "the newest record": NOON}
    date, keeper = clock_findings(witnesses, datetime(1970, 1, 1, 0, 5, tzinfo=UTC), synchronised=False, root=tmp_path)
    assert date.verdict == "problem"
    assert "the newest record is of 2026-07-01 12:00 UTC" in date.saw
    assert "date --utc --set" in date.advice
    assert keeper.verdict == "warning"


@pytest.mark.parametrize(("chip_s", "verdict"), [(20, "ok"), (86_400, "warning")])
def test_a_clock_chip(tmp_path: Path, chip_s: int, verdict: str) -> None:
    write(tmp_path, {"sys/class/rtc/rtc0/since_epoch": f"{int(NOON.timestamp()) + chip_s}\n", "sys/class/rtc/rtc0/name": "rtc-ds1307\n"})
    _, keeper = clock_findings({}, NOON, synchronised=False, root=tmp_path)
    assert keeper.verdict == verdict
    assert "rtc-ds1307" in keeper.saw


def test_the_kernel_of_this_machine_can_be_asked() -> None:
    assert {finding.check for finding in clock_findings({}, datetime.now(UTC), synchronised=kernel_synchronised())} == {
        "date and time",
        "kept right by",
    }
