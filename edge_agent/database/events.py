"""The events that a person must learn of, kept in the database for every surface."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import NamedTuple

from edge_agent.database.rows import time_text

KEPT_EVENTS = 1000


class Event(NamedTuple):
    """Something that happened to the agent: ``code`` is for programs and stable, ``message`` is for people. ``at`` is in UTC."""

    at: datetime
    code: str
    message: str


def add_events(cursor: sqlite3.Cursor, events: Iterable[tuple[str, str]]) -> None:
    """Write events (code, message) as of now, and keep only the newest :data:`KEPT_EVENTS`."""
    now = time_text(datetime.now(UTC))
    rows = [(now, code, message) for code, message in events]
    if rows:
        cursor.executemany("INSERT INTO event (at, code, message) VALUES (?, ?, ?)", rows)
        cursor.execute("DELETE FROM event WHERE id <= (SELECT max(id) FROM event) - ?", (KEPT_EVENTS,))


def newest_events(connection: sqlite3.Connection, limit: int) -> list[Event]:
    """List events, the newest first."""
    rows = connection.execute("SELECT at, code, message FROM event ORDER BY id DESC LIMIT ?", (limit,))
    return [Event(datetime.fromisoformat(at), code, message) for at, code, message in rows]
