"""Records as people see them."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest

from edge_agent.records import Reason, Record
from edge_agent.surfaces.table import print_records

NOON = datetime(2026, 7, 1, 12, tzinfo=UTC)


def record(**changes: Any) -> Record:
    values = {"source": "folder", "path": "a.png", "sha256": "0" * 64, "received_at": NOON, "finished_at": NOON, "status": "done"}
    return Record(**(values | changes))


def printed(*records: Record) -> list[str]:
    stream = io.StringIO()
    print_records(records, stream)
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_a_row_says_what_was_decided_and_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = printed(
        record(decision="review", scores={"NORMAL": 0.25, "PNEUMONIA": 0.75}, novelty=1.23, reason=Reason("novel", "unlike the others")),
        record(path="b.jpg", status="rejected", reason=Reason("truncated", "The file ends too early.")),
    )
    assert lines[0].split() == ["image", "decision", "scores", "novelty", "why"]
    assert lines[2].split() == ["a.png", "review", "NORMAL", "0.25", "1.2", "unlike", "the", "others"]
    assert lines[3].split() == ["PNEUMONIA", "0.75"]
    assert lines[4].split() == ["b.jpg", "rejected", "The", "file", "ends", "too", "early."]
    assert max(map(len, lines)) <= 120


def test_no_file_name_can_break_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = printed(record(path="a\nb\x1b[2J[red]\N{LUNGS}.png", decision="negative"))
    assert len(lines) == 3
    assert r"a\nb\x1b[2J[red]" in lines[2]
    assert "\N{LUNGS}" in lines[2]


def test_no_records_are_a_table_without_rows() -> None:
    assert len(printed()) == 2
