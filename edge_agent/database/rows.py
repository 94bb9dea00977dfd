"""Records as rows of the database, and back."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from edge_agent.files.names import printable_path
from edge_agent.files.stamp import Stamp
from edge_agent.records import Arrival, ModelIdentity, Reason, Record, Timing

_STAGES = Timing.__struct_fields__
RECORD_COLUMNS = (
    *("id", "source", "path", "sha256", "received_at", "finished_at", "status", "reason_code", "reason_message"),
    *("model_name", "model_version", "model_digest", "scores", "label", "findings", "decision", "novelty", "quality", "duplicate_of"),
    *(f"{stage}_ms" for stage in _STAGES),
)
FILE_COLUMNS = ("path_bytes", "size_bytes", "mtime_ns", "ctime_ns", "inode")

Row = Sequence[Any]
"""Values in the order of ``RECORD_COLUMNS``, then ``FILE_COLUMNS`` where those were asked for."""

_decode_scores = msgspec.json.Decoder(dict[str, float]).decode
_decode_names = msgspec.json.Decoder(list[str]).decode
_encode = msgspec.json.Encoder().encode
_UTC_OFFSET = timedelta(0)


def time_text(time: datetime) -> str:
    """Write a UTC time so that text order is time order: always six digits of a second."""
    if time.utcoffset() != _UTC_OFFSET:
        raise ValueError(f"not a time in UTC: {time!r}")
    return time.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def signed_64(value: int) -> int:
    """Fold an unsigned 64-bit number into SQLite's signed one; inodes of network shares and far-off dates need it."""
    return (value + 2**63) % 2**64 - 2**63


def stamp_row(stamp: Stamp) -> tuple[int, int, int, int]:
    """Give size, mtime, ctime and inode as the database holds them."""
    return signed_64(stamp.size_bytes), signed_64(stamp.mtime_ns), signed_64(stamp.ctime_ns), signed_64(stamp.inode)


def row_from_record(record: Record, arrival: Arrival) -> list[Any]:
    """Give a record and its file as the values of ``RECORD_COLUMNS`` without ``id``, then ``FILE_COLUMNS``."""
    reason, model, timing = record.reason, record.model, record.timing_ms
    row: list[Any] = [
        record.source,
        record.path,
        record.sha256,
        time_text(record.received_at),
        time_text(record.finished_at),
        record.status,
    ]
    row += (reason.code, reason.message) if reason else (None, None)
    row += (model.name, model.version, model.digest) if model else (None, None, None)
    row += (_encode(record.scores).decode(), record.label, _encode(record.findings).decode(), record.decision, record.novelty)
    row += (_encode(record.quality).decode(), record.duplicate_of)
    row += (getattr(timing, stage) for stage in _STAGES)
    is_text = printable_path(arrival.path) == arrival.path
    return [*row, None if is_text else os.fsencode(arrival.path), *stamp_row(Stamp.of_arrival(arrival))]


def record_from_row(row: Row) -> Record:
    """Give the record of a row that begins with ``RECORD_COLUMNS``."""
    (record_id, source, path, sha256, received_at, finished_at, status, reason_code, reason_message) = row[:9]
    (model_name, model_version, model_digest, scores, label, findings, decision, novelty, quality, duplicate_of) = row[9:19]
    return Record(
        id=record_id,
        source=source,
        path=path,
        sha256=sha256,
        received_at=datetime.fromisoformat(received_at),
        finished_at=datetime.fromisoformat(finished_at),
        status=status,
        reason=None if reason_code is None else Reason(reason_code, reason_message),
        model=None if model_name is None else ModelIdentity(model_name, model_version, model_digest),
        scores=_decode_scores(scores),
        label=label,
        findings=_decode_names(findings),
        decision=decision,
        novelty=novelty,
        quality=_decode_names(quality),
        duplicate_of=duplicate_of,
        timing_ms=Timing(*row[19 : 19 + len(_STAGES)]),
    )


def arrival_from_row(row: Row, record: Record) -> Arrival:
    """Give the file of a row of ``RECORD_COLUMNS`` and ``FILE_COLUMNS``."""
    path_bytes, size_bytes, mtime_ns, ctime_ns, inode = row[len(RECORD_COLUMNS) :]
    stamp = Stamp(size_bytes, mtime_ns, ctime_ns, inode % 2**64)
    return stamp.arrival(record, record.path if path_bytes is None else os.fsdecode(path_bytes))
