"""Records as JSON lines and as CSV."""

from __future__ import annotations

import csv
import io
import json

import msgspec
import pytest
from support.agents import make_record

from edge_agent.outbox.export import CSV_COLUMNS, CSV_HEADER, csv_lines, jsonl_line, write_records
from edge_agent.records import Record

DAY_CSV = "predictions-2026-07-01.csv"


def parsed(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(CSV_HEADER + text, newline="")))


def test_a_json_line_is_one_line_whatever_the_name() -> None:
    record = make_record(id=1, path="a\n\u2028\x1b \N{LUNGS}.png")
    line = jsonl_line(record)
    assert line.count(b"\n") == 1
    assert msgspec.json.decode(line, type=Record) == record
    assert json.loads(line)["finished_at"] == "2026-07-01T12:00:00.123456Z"


def test_csv_has_every_field_and_survives_any_name() -> None:
    record = make_record(id=1, path='line\nbreak, "quotes" \N{LUNGS}.png', quality=["a", "b"])
    [row] = parsed(csv_lines([record]))
    assert tuple(row) == CSV_COLUMNS
    assert row["path"] == record.path
    assert row["scores"] == "NORMAL=0.25;PNEUMONIA=0.75"
    assert (row["quality"], row["decision"], row["reason_code"], row["model_version"]) == ("a;b", "review", "novel", "1")
    assert (row["decode_ms"], row["commit_ms"], row["duplicate_of"]) == ("2.0", "", "")


@pytest.mark.parametrize("name", ["=1+1.png", "+x", "-x", "@x", "\tx"])
def test_a_name_is_no_formula_for_a_spreadsheet(name: str) -> None:
    [row] = parsed(csv_lines([make_record(id=1, path=name)]))
    assert row["path"] == f"'{name}"


def test_export_streams_either_form() -> None:
    stream = io.BytesIO()
    write_records(iter([make_record(id=1), make_record(id=2)]), "jsonl", stream)
    assert [json.loads(line)["id"] for line in stream.getvalue().splitlines()] == [1, 2]
    stream = io.BytesIO()
    write_records(iter([]), "csv", stream)
    assert stream.getvalue().decode() == CSV_HEADER
