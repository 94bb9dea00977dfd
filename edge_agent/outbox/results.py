"""The folder ``results/``: what the database holds, as files for people and programs. Always made from records, never a source of them."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from itertools import groupby, islice
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

import msgspec

from edge_agent.database.database import Reader
from edge_agent.database.integrity import Progress
from edge_agent.files.atomic import make_folder, replacing, storage_error, sync_file_system
from edge_agent.files.names import is_free, names_for
from edge_agent.outbox.export import CSV_HEADER, csv_lines, jsonl_line
from edge_agent.records import Record

JSONL_NAME = "predictions.jsonl"
SYNCED_NOTE = "results_synced"
"""Holds the :class:`Mark` that the disk has."""
CHUNK_RECORDS = 500
"""So many records are held in memory at once."""
_LINE_MAX_BYTES = 1024 * 1024
COPY_BYTES = 1024 * 1024
_DAY = timedelta(days=1)
_T = TypeVar("_T")


class Mark(msgspec.Struct, frozen=True):
    """How far ``results/`` is known to be on the disk: all records up to ``record_id``, in the first ``jsonl_bytes`` of the JSON lines."""

    record_id: int = 0
    jsonl_bytes: int = 0


class _Owner(msgspec.Struct):
    """The one field of a sidecar that says whose it is."""

    id: int | None


class _MovedAwayError(Exception):
    """Somebody moved the JSON lines away while they were being copied: their new file is left as it is."""


class ResultFiles:
    """Writes ``predictions.jsonl``, ``predictions-YYYY-MM-DD.csv`` (by the UTC day of ``finished_at``) and a sidecar for each image.

    Nothing here waits for the disk. After a crash :meth:`heal` writes what came after the last :class:`Mark` once more.

    Parameters
    ----------
    results : Path
        ``HOME/results``, which must exist.
    """

    def __init__(self, results: Path) -> None:
        self._results = results
        self._jsonl = results / JSONL_NAME
        self._last_id = 0
        self._torn_at: Mark | None = None

    def append(self, records: Sequence[Record]) -> None:
        """Write records that have just been committed, in the order of their ids.

        Raises
        ------
        StorageError
            If they cannot be written. The database has them: the next start writes them again.
        """
        self._torn_at = self._torn_at or self.mark()
        _append(self._jsonl, b"".join(map(jsonl_line, records)))
        for day, of_day in groupby(records, _day):
            _append(self._csv(day), csv_lines(of_day).encode(), header=CSV_HEADER.encode())
        for record in records:
            self._write_sidecar(record)
        self._torn_at = None
        self._last_id = records[-1].id or 0

    def mark(self) -> Mark:
        """Say how far the files reach now. True on the disk only after a :meth:`sync` that began later.

        After an :meth:`append` that failed half-way they reach as far as before it.
        """
        if self._torn_at is not None:
            return self._torn_at
        return Mark(self._last_id, self._jsonl.stat().st_size if self._jsonl.exists() else 0)

    def sync(self) -> None:
        """Wait until the disk has everything written below ``results/`` so far. May take seconds; may run in another thread.

        Raises
        ------
        StorageError
            If the disk did not take something.
        """
        try:
            sync_file_system(self._results)
        except OSError as fault:
            raise storage_error(fault, f"write to the disk of {self._results}") from fault

    def heal(self, reader: Reader, mark: Mark, floor_id: int = 0, progress: Progress = lambda: None) -> int:
        """Make the files hold what the database holds, after whatever ended the last run.

        Parameters
        ----------
        reader : Reader
            The truth.
        mark : Mark
            What was on the disk for certain. What follows is cut off, torn line or not, and written again.
        floor_id : int
            Records up to this one have been deleted from ``results/`` for their age and are not written again.
        progress : callable, optional
            Called for every few hundred records.

        Returns
        -------
        int
            How many records were written again.

        Raises
        ------
        StorageError
            If they cannot be written.
        """
        last = reader.last()
        if last is not None and not self._reaches(mark):
            return self.rebuild(reader, floor_id, progress)  # somebody removed, cut or edited the file
        days: set[date] = set()
        count = 0
        if self._jsonl.exists():
            try:
                os.truncate(self._jsonl, mark.jsonl_bytes)
            except OSError as fault:
                raise storage_error(fault, f"write {self._jsonl}") from fault
        for records in chunks(reader.records(after_id=max(mark.record_id, floor_id))):
            _append(self._jsonl, b"".join(map(jsonl_line, records)))
            count += self._heal_chunk(records, days, progress)
        self._rewrite_days(reader, days)
        self._last_id = (last.id if last else 0) or 0
        return count

    def rebuild(self, reader: Reader, floor_id: int = 0, progress: Progress = lambda: None) -> int:
        """Write every file again from the records after ``floor_id``. What else lies in ``results/`` stays; returns their number."""
        days: set[date] = set()
        count = 0
        with replacing(self._jsonl) as file:
            for records in chunks(reader.records(after_id=floor_id)):
                file.writelines(map(jsonl_line, records))
                count += self._heal_chunk(records, days, progress)
                self._last_id = records[-1].id or 0
            self._rewrite_days(reader, days)
            # The lines take their place last, when the disk has all else: as long as they are not there, the next start begins anew.
            file.flush()
            self.sync()
        return count

    def delete_day(self, day: date) -> None:
        """Delete the CSV file of a UTC day.

        Raises
        ------
        StorageError
            If it cannot be deleted.
        """
        try:
            self._csv(day).unlink(missing_ok=True)
        except OSError as fault:
            raise storage_error(fault, f"delete results/{self._csv(day).name}") from fault

    def trim(self, floor_id: int, copy_bytes: int = COPY_BYTES) -> Generator[None, None, bool]:
        """Leave the records up to ``floor_id`` out of the JSON lines, once they make up half of the file: no line is copied often.

        Yields
        ------
        None
            After each ``copy_bytes``, so that other work comes between. The new file takes the place of the old one in the last step.

        Returns
        -------
        bool
            Whether there is a new file.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        try:
            old = self._jsonl.open("rb")
        except FileNotFoundError:
            return False
        except OSError as fault:
            raise storage_error(fault, f"read {self._jsonl}") from fault
        with old:
            size_bytes = os.fstat(old.fileno()).st_size
            start = _first_line_after(old, size_bytes, floor_id)
            if start == 0 or 2 * start < size_bytes:
                return False
            old.seek(start)
            try:
                with replacing(self._jsonl) as new:
                    while chunk := old.read(copy_bytes):
                        new.write(chunk)
                        yield
                    if not (self._jsonl.exists() and os.path.samestat(os.fstat(old.fileno()), self._jsonl.stat())):
                        raise _MovedAwayError
            except _MovedAwayError:
                return False
            return True

    def _reaches(self, mark: Mark) -> bool:
        """Whether the line of the mark's record ends where the mark says."""
        length = min(mark.jsonl_bytes, _LINE_MAX_BYTES)
        try:
            with self._jsonl.open("rb") as file:
                file.seek(mark.jsonl_bytes - length)
                before = file.read(length)
        except OSError:
            return False
        if mark.record_id == 0 or length == 0:
            return True
        *_, line, after = (b"", *before.split(b"\n"))
        with suppress(msgspec.DecodeError):
            return len(before) == length and not after and msgspec.json.decode(line, type=_Owner).id == mark.record_id
        return False

    def _heal_chunk(self, records: list[Record], days: set[date], progress: Progress) -> int:
        progress()
        for record in records:
            self._write_sidecar(record)
            days.add(_day(record))
        return len(records)

    def _rewrite_days(self, reader: Reader, days: set[date]) -> None:
        for day in sorted(days):
            start = datetime(day.year, day.month, day.day, tzinfo=UTC)
            with replacing(self._csv(day)) as file:
                file.write(CSV_HEADER.encode())
                for records in chunks(reader.records(since=start, until=start + _DAY)):
                    file.write(csv_lines(records).encode())

    def _csv(self, day: date) -> Path:
        return self._results / f"predictions-{day.isoformat()}.csv"

    def _write_sidecar(self, record: Record) -> None:
        path = PurePosixPath(record.path)
        folder = make_folder(self._results, path.parts[:-1])
        content = msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n"
        for name in names_for(path.name, record.id or 0, ".json"):
            target = folder / name
            # A name that came twice: the first image keeps NAME.json, the next one gets its record's number.
            if is_free(target) or sidecar_id(target) == record.id:
                with replacing(target, called="a sidecar in results") as file:
                    file.write(content)
                return


def _day(record: Record) -> date:
    return record.finished_at.date()


def sidecar_id(path: Path) -> int | None:
    """Give the id of a sidecar's record; None where the file is no sidecar."""
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(path.read_bytes(), type=_Owner).id
    return None


def _first_line_after(file: IO[bytes], size_bytes: int, record_id: int) -> int:
    """Find where the first line of a record after ``record_id`` begins; 0 where it cannot be found. The ids ascend."""
    low, high = 0, size_bytes  # what begins before low is older; what begins after high is not
    while low <= high and low < size_bytes:
        middle = (low + high) // 2
        file.seek(middle)
        begin = middle if middle == low else middle + len(file.readline(_LINE_MAX_BYTES))
        if begin > high or begin >= size_bytes:
            high = middle
            continue
        line = file.readline(_LINE_MAX_BYTES)
        try:
            found = msgspec.json.decode(line, type=_Owner).id
        except msgspec.DecodeError:
            return 0
        if found is None:
            return 0
        if found <= record_id:
            low = begin + len(line)
        elif begin == low:
            break
        else:
            high = middle
    return low


def chunks(items: Iterable[_T]) -> Iterator[list[_T]]:
    """Give items in lists of a few hundred."""
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK_RECORDS)):
        yield chunk


def _append(path: Path, content: bytes, header: bytes = b"") -> None:
    """Add to a file, with a header where it is new. Opened each time, so that it may be moved away at any moment, as log rotation does."""
    try:
        with path.open("ab", buffering=0) as file:
            if header and file.tell() == 0:
                content = header + content
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
    except OSError as fault:
        raise storage_error(fault, f"write results/{path.name}") from fault
