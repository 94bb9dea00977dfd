"""Records as JSON lines and as CSV: the forms in which they leave the database."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import IO, Literal

import msgspec

from edge_agent.database.rows import time_text
from edge_agent.records import Record, Timing

ExportFormat = Literal["jsonl", "csv"]

CSV_COLUMNS = (
    *("id", "source", "path", "sha256", "received_at", "finished_at", "status", "reason_code", "reason_message"),
    *("model_name", "model_version", "model_digest", "label", "decision", "scores", "findings", "novelty", "quality", "duplicate_of"),
    *(f"{stage}_ms" for stage in Timing.__struct_fields__),
)
CSV_HEADER = ",".join(CSV_COLUMNS) + "\r\n"

_encode = msgspec.json.Encoder().encode
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a cell that begins with one of these for a formula, and a file name is whatever somebody chose."""


def jsonl_line(record: Record) -> bytes:
    """Give a record as one line of UTF-8 JSON, with its end of line. No character in it breaks the line."""
    return _encode(record) + b"\n"


def csv_lines(records: Iterable[Record]) -> str:
    r"""Give records as CSV by RFC 4180, without the header.

    ``scores`` is ``label=probability;...``, lists are joined by ``;``. A text that a spreadsheet would take for a formula gets an
    apostrophe before it. A file name with a line break stands in quotes and so over two lines.
    """
    text = io.StringIO()
    csv.writer(text).writerows(_csv_row(record) for record in records)
    return text.getvalue()


def _csv_row(record: Record) -> list[object]:
    reason, model, timing = record.reason, record.model, record.timing_ms
    row: list[object] = [record.id, record.source, record.path, record.sha256, time_text(record.received_at), time_text(record.finished_at)]
    row += [record.status, *((reason.code, reason.message) if reason else (None, None))]
    row += (model.name, model.version, model.digest) if model else (None, None, None)
    row += (record.label, record.decision, ";".join(f"{label}={score!r}" for label, score in record.scores.items()))
    row += (";".join(record.findings), record.novelty, ";".join(record.quality), record.duplicate_of)
    row += (getattr(timing, stage) for stage in Timing.__struct_fields__)
    return [f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA_STARTS) else cell for cell in row]


def write_records(records: Iterable[Record], form: ExportFormat, stream: IO[bytes]) -> None:
    """Write records to a binary stream, one at a time, so that memory does not grow with their number."""
    if form == "csv":
        stream.write(CSV_HEADER.encode())
    for record in records:
        stream.write(jsonl_line(record) if form == "jsonl" else csv_lines([record]).encode())
