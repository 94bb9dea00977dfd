"""Which records are old, as the database knows it, and their deletion."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from datetime import date, datetime, timedelta
from typing import NamedTuple

import msgspec

from edge_agent.database.calendar import Calendar
from edge_agent.database.database import Database, Reader
from edge_agent.database.rows import time_text
from edge_agent.records import Status

CALENDAR_NOTE = "calendar"
BATCH_RECORDS = 500


class OldRecord(NamedTuple):
    """A record and its file, as far as deletion needs them. ``path`` is the true one; ``day`` is the UTC day of ``finished_at``."""

    record_id: int
    path: str
    status: Status
    day: date
    size_bytes: int
    mtime_ns: int
    disposed: bool


def keep_calendar(database: Database, wall_s: float, calendar: Calendar | None = None) -> Calendar:
    """Look at the clock; a new day is written down, durably. Look before records are entered: those that are there came before it.

    Parameters
    ----------
    database : Database
        Holds the calendar.
    wall_s : float
        Unix time.
    calendar : Calendar, optional
        As the last call gave it; from the database, or from its records where there is none yet, if not given.
    """
    if calendar is None:
        note = database.note(CALENDAR_NOTE)
        calendar = msgspec.json.decode(note, type=Calendar) if note else _calendar_of_records(database, wall_s)
    looked = calendar.look(wall_s)
    if looked.day > calendar.day:
        with database._transaction() as cursor:
            _begin_day(cursor, looked, calendar.day + 1, newest_id(database))
    return looked


def _calendar_of_records(database: Database, wall_s: float) -> Calendar:
    """Begin a calendar: each record is a look at the clock, in the order of their ids."""
    hours = database._rows("SELECT substr(finished_at, 1, 13) || ':00:00Z', max(id) FROM record GROUP BY 1 ORDER BY min(id)")
    calendar = Calendar.begin(datetime.fromisoformat(hours[0][0]).timestamp() if hours else wall_s)
    with database._transaction() as cursor:
        _begin_day(cursor, calendar, calendar.day, 0)
        last_id = 0
        for hour, hour_id in hours:
            before, calendar = calendar, calendar.look(datetime.fromisoformat(hour).timestamp())
            if calendar.day > before.day:
                _begin_day(cursor, calendar, before.day + 1, last_id)
            last_id = max(last_id, hour_id)
    return calendar


def _begin_day(cursor: sqlite3.Cursor, calendar: Calendar, number: int, last_id: int) -> None:
    """Write the first day since the last look: the records that are there came before it, even if more days have passed."""
    cursor.execute("INSERT OR IGNORE INTO day VALUES (?, ?)", (number, last_id))
    cursor.execute(
        "INSERT INTO note VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value",
        (CALENDAR_NOTE, msgspec.json.encode(calendar).decode()),
    )


def newest_id(reader: Reader) -> int:
    """Give the id of the newest record; 0 where there is none."""
    return int(reader._rows("SELECT coalesce(max(id), 0) FROM record")[0][0])


def last_id_before(reader: Reader, day: int) -> int:
    """Give the id up to which all records were there when a day began; 0 where there were none, or nobody knows."""
    rows = reader._rows("SELECT last_id FROM day WHERE number <= ? ORDER BY number DESC LIMIT 1", (day,))
    return int(rows[0][0]) if rows else 0


def old_records(reader: Reader, after_id: int, last_id: int, status: Status | None = None) -> list[OldRecord]:
    """List the first of the records with ``after_id < id <= last_id``, at most :data:`BATCH_RECORDS`."""
    rows = reader._rows(
        "SELECT id, path, path_bytes, status, finished_at, size_bytes, mtime_ns, disposed FROM record "
        "WHERE id > ? AND id <= ? AND (? IS NULL OR status = ?) ORDER BY id LIMIT ?",
        (after_id, last_id, status, status, BATCH_RECORDS),
    )
    return [
        OldRecord(
            record_id,
            path if path_bytes is None else os.fsdecode(path_bytes),
            of_status,
            datetime.fromisoformat(finished_at).date(),
            size_bytes,
            mtime_ns,
            bool(disposed),
        )
        for record_id, path, path_bytes, of_status, finished_at, size_bytes, mtime_ns, disposed in rows
    ]


def bytes_since(reader: Reader, after_id: int, status: Status) -> int:
    """Sum up the sizes of the files that have left the inbox, of records with an id after ``after_id``."""
    rows = reader._rows("SELECT total(size_bytes) FROM record WHERE id > ? AND status = ? AND disposed", (after_id, status))
    return int(rows[0][0])


def days_without_records(reader: Reader, days: Iterable[date], after_id: int) -> Iterator[date]:
    """Give the days (UTC) on which no record with an id after ``after_id`` was finished."""
    for day in days:
        start, end = (time_text(datetime.fromisoformat(f"{each}T00:00:00Z")) for each in (day, day + timedelta(days=1)))
        if not reader._rows("SELECT 1 FROM record WHERE finished_at >= ? AND finished_at < ? AND id > ? LIMIT 1", (start, end, after_id)):
            yield day


def delete_records(database: Database, record_ids: Iterable[int]) -> int:
    """Delete rows in one transaction, but not the newest, one that a younger record repeats, or one whose file has not left the inbox.

    Returns
    -------
    int
        How many.
    """
    count = 0
    with database._transaction() as cursor:
        for record_id in sorted(record_ids, reverse=True):  # a repetition goes before what it repeats
            cursor.execute(
                "DELETE FROM record WHERE id = ? AND disposed AND id < (SELECT max(id) FROM record) "
                "AND NOT EXISTS (SELECT 1 FROM record AS later WHERE later.duplicate_of = record.id)",
                (record_id,),
            )
            count += cursor.rowcount
    return count
