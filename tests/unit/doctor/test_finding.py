"""Findings: the gravest counts, and whatever is wrong comes with what to do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from edge_agent.bench.board import Board, read_board
from edge_agent.bench.condition import BoardState, read_state
from edge_agent.doctor.board import board_findings
from edge_agent.doctor.clock import clock_findings
from edge_agent.doctor.disk import file_system_findings
from edge_agent.doctor.finding import ok, problem, warning, worst
from edge_agent.doctor.program import python_findings
from edge_agent.files.mounts import Mount

NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def no_vcgencmd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


def mount(kind: str, options: str = "rw,relatime", source: str = "/dev/mmcblk0p2") -> Mount:
    return Mount("/", kind, source, "179:2", options)


def test_the_gravest_verdict_counts() -> None:
    assert worst([]) == "ok"
    assert worst([ok("a", ""), warning("b", "", "do"), ok("c", "")]) == "warning"
    assert worst([problem("a", "", "do"), warning("b", "", "do")]) == "problem"


def test_whatever_is_not_ok_says_what_to_do(tmp_path: Path) -> None:
    state: BoardState = msgspec.structs.replace(read_state(), temperature_c=90.0, throttled=0xF000F)
    board: Board = msgspec.structs.replace(read_board(), architecture="armv7l", glibc=None)
    findings = [
        *board_findings(board, state, 10**9, tmp_path),
        *python_findings(board),
        *(finding for role in ("home", "inbox") for finding in file_system_findings(role, mount("tmpfs", "ro"), tmp_path)),
        *clock_findings({"the program": NOON}, NOON - timedelta(days=1), synchronised=False, root=tmp_path),
    ]
    bad = [finding for finding in findings if finding.verdict != "ok"]
    assert len(bad) >= 8
    assert [finding for finding in bad if not finding.advice] == []
