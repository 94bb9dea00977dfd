"""Records read back from ``results/``, for a database that lost them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import msgspec

from edge_agent.database.database import Database
from edge_agent.database.integrity import Progress
from edge_agent.database.recorded_files import has_record, skip_ids
from edge_agent.files.atomic import storage_error
from edge_agent.files.stamp import Stamp
from edge_agent.outbox.results import JSONL_NAME, Mark, chunks, sidecar_id
from edge_agent.records import Arrival, Record
from edge_agent.upkeep.delete_files import folder_of, places_of

_LINE_MAX_BYTES = 1024 * 1024
_ID_MAX = 2**53
_IDS_LEFT_OUT = 100
"""The newest records may be lost without a trace. Somebody may have seen their ids, so this many ids are left out."""
_NO_OFFSET = timedelta(0)

_decode = msgspec.json.Decoder(Record).decode


class Line(NamedTuple):
    """A line of ``predictions.jsonl``: its record, None where it holds none, and where it ends."""

    record: Record | None
    end_bytes: int


class Restored(NamedTuple):
    """What came back. ``mark`` is how far ``predictions.jsonl`` is what the database holds now; at 0 it must be written anew."""

    records: int
    skipped_lines: int
    mark: Mark


def restore_records(database: Database, home: Path, progress: Progress) -> Restored:
    """Enter the records of ``predictions.jsonl``, and those that only a sidecar holds, with their ids and every field.

    Parameters
    ----------
    database : Database
        Without records.
    home : Path
        With ``results/``, ``done/`` and ``rejected/`` in it.
    progress : callable
        Called for each batch.

    Returns
    -------
    Restored
        A line that is torn, or was edited into something else than a record, is skipped and counted.

    Raises
    ------
    StorageError
        If something cannot be read or written.
    """
    lines = skipped = entered = last_id = end_bytes = 0
    is_ascending = True
    for batch in chunks(read_lines(home / "results" / JSONL_NAME)):
        records = [line.record for line in batch if line.record is not None]
        for record in records:
            is_ascending = is_ascending and (record.id or 0) > last_id
            last_id = max(last_id, record.id or 0)
        lines += len(batch)
        skipped += len(batch) - len(records)
        end_bytes = batch[-1].end_bytes
        entered += enter_restored(database, home, records)
        progress()
    of_lines = entered
    for records in chunks(_read_sidecars(home / "results", database)):
        entered += enter_restored(database, home, records)
        progress()
    skip_ids(database, _IDS_LEFT_OUT)
    is_whole = is_ascending and lines == of_lines == entered
    return Restored(entered, skipped, Mark(last_id, end_bytes) if is_whole else Mark())


def read_lines(jsonl: Path, start_bytes: int = 0) -> Iterator[Line]:
    """Read ``predictions.jsonl`` from a place on; nothing where it is missing.

    Raises
    ------
    StorageError
        If it cannot be read.
    """
    try:
        with jsonl.open("rb") as file:
            file.seek(start_bytes)
            end_bytes = start_bytes
            while line := file.readline(_LINE_MAX_BYTES):
                end_bytes += len(line)
                yield Line(_record_of(line), end_bytes)
    except FileNotFoundError:
        return
    except OSError as fault:
        raise storage_error(fault, f"read results/{jsonl.name}") from fault


def enter_restored(database: Database, home: Path, records: Sequence[Record]) -> int:
    """Enter records with what their files look like now; gives how many were new."""
    return database.restore([(record, _file_of(home, record)) for record in records])


def _read_sidecars(results: Path, database: Database) -> Iterator[Record]:
    for folder, _, names in os.walk(results):
        for name in names:
            path = Path(folder, name)
            if not name.endswith(".json") or (record_id := sidecar_id(path)) is None:
                continue
            if not has_record(database, min(record_id, _ID_MAX)):
                with suppress(OSError):
                    record = _record_of(path.read_bytes())
                    if record is not None:
                        yield record


def _record_of(line: bytes) -> Record | None:
    """Read a record, but none that this program cannot have written: its path must lead nowhere else."""
    try:
        record = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    path = PurePosixPath(record.path)
    if not path.name or path.is_absolute() or ".." in path.parts or "\0" in record.path:
        return None
    if any(time.utcoffset() != _NO_OFFSET for time in (record.received_at, record.finished_at)):
        return None
    ids = (record.id, record.duplicate_of or 1)
    return record if all(number is not None and 0 < number < _ID_MAX for number in ids) else None


def _file_of(home: Path, record: Record) -> Arrival:
    """See where the image of a record lies, for its stamp: zeros where it lies nowhere.

    The name tells. A file of another record that is lost, and that had the same name, would be taken for this one only where this one's
    own is gone.
    """
    stamp = Stamp(0, 0, 0, 0)
    for place in places_of(home / folder_of(record.status), record.path, record.id or 0):
        with suppress(OSError):
            stamp = Stamp.of_stat(place.lstat())
            break
    return stamp.arrival(record, record.path)
