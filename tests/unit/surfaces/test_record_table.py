"""Records as people see them."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pytest

from edge_agent.records import NO_FINDING, Reason, Record
from edge_agent.surfaces.record_table import print_records

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


def test_several_labels_get_a_column_and_their_scores_come_highest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    scores = {"Edema": 0.1, "Mass": 0.9, "Effusion": 0.3, "Fibrosis": 0.02, "Nodule": 0.5, "Hernia": 0.04}
    lines = printed(
        # Hernia is rare, so that 0.04 is a finding: it is shown although five others are more probable.
        record(decision="positive", label="Hernia", findings=["Mass", "Hernia"], scores=scores, novelty=0.5),
        record(path="b.png", decision="negative", label=NO_FINDING, scores=scores, novelty=0.5),
        record(path="c.png", status="rejected", reason=Reason("empty", "The file is empty.")),
    )
    assert [line.split() for line in lines] == [
        ["image", "decision", "label", "scores", "novelty", "why"],
        [lines[1]],
        ["a.png", "positive", "Mass", "Mass", "0.90", "0.5"],
        ["Hernia", "Nodule", "0.50"],
        ["Effusion", "0.30"],
        ["Edema", "0.10"],
        ["Hernia", "0.040"],
        ["1", "more,", "up", "to", "0.020"],
        ["b.png", "negative", "No", "Finding", "Mass", "0.90", "0.5"],
        ["Nodule", "0.50"],
        ["Effusion", "0.30"],
        ["Edema", "0.10"],
        ["2", "more,", "up", "to", "0.040"],
        ["c.png", "rejected", "The", "file", "is", "empty."],
    ]


def test_a_class_is_said_beside_its_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = printed(record(decision="positive", label="viral", scores={"normal": 0.4, "bacterial": 0.15, "viral": 0.45}, novelty=0.5))
    assert [line.split() for line in lines[2:]] == [
        ["a.png", "positive", "viral", "viral", "0.45", "0.5"],
        ["normal", "0.40"],
        ["bacterial", "0.15"],
    ]


def test_no_file_name_can_break_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    lines = printed(record(path="a\nb\x1b[2J[red]\N{LUNGS}.png", decision="negative"))
    assert len(lines) == 3
    assert r"a\nb\x1b[2J[red]" in lines[2]
    assert "\N{LUNGS}" in lines[2]


def test_no_records_are_a_table_without_rows() -> None:
    assert len(printed()) == 2
