"""What is in hand, durable before a worker gets it: how a file that kills the process is known at the next start."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

from edge_agent.database.rows import signed_64
from edge_agent.files.names import printable_path
from edge_agent.records import Arrival


class Attempt(NamedTuple):
    """A file that a worker got and that has no record.

    ``path`` is as a record has it; a file with another size or modification time is another file. ``crashes`` counts how often the process
    died of a signal meanwhile, ``deaths`` how often it ended otherwise without finishing the file.
    """

    path: str
    size_bytes: int
    mtime_ns: int
    crashes: int
    deaths: int


def begin_attempts(cursor: sqlite3.Cursor, arrivals: Iterable[Arrival]) -> None:
    """Write that files are in hand from now on. What is counted against a path stays, unless another file is there now."""
    cursor.executemany(
        "INSERT INTO attempt (path, size_bytes, mtime_ns, in_hand) VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET in_hand = 1, "
        "crashes = crashes * (size_bytes = excluded.size_bytes AND mtime_ns = excluded.mtime_ns), "
        "deaths = deaths * (size_bytes = excluded.size_bytes AND mtime_ns = excluded.mtime_ns), "
        "size_bytes = excluded.size_bytes, mtime_ns = excluded.mtime_ns",
        [(printable_path(each.path), signed_64(each.size_bytes), signed_64(each.mtime_ns)) for each in arrivals],
    )


def finish_attempts(cursor: sqlite3.Cursor, paths: Iterable[str]) -> None:
    """Forget the attempts of paths that have their record now."""
    cursor.executemany("DELETE FROM attempt WHERE path = ?", [(printable_path(path),) for path in paths])


def end_attempts(cursor: sqlite3.Cursor, paths: Iterable[str] | None) -> None:
    """Write that files (None: all) are in nobody's hand any more, though they have no record. What is counted against them stays."""
    keys = None if paths is None else [(printable_path(path),) for path in paths]
    for statement in ("DELETE FROM attempt WHERE crashes = 0 AND deaths = 0", "UPDATE attempt SET in_hand = 0 WHERE in_hand = 1"):
        if keys is None:
            cursor.execute(statement)
        else:
            cursor.executemany(f"{statement} AND path = ?", keys)


def blame_attempts(cursor: sqlite3.Cursor, *, crashed: bool) -> None:
    """Count the end of the last process against the files that it had in hand."""
    cursor.execute(
        "UPDATE attempt SET in_hand = 0, crashes = crashes + ?, deaths = deaths + ? WHERE in_hand = 1", (int(crashed), int(not crashed))
    )


def all_attempts(connection: sqlite3.Connection) -> list[Attempt]:
    """List every attempt without a record."""
    return [Attempt(*row) for row in connection.execute("SELECT path, size_bytes, mtime_ns, crashes, deaths FROM attempt ORDER BY path")]
