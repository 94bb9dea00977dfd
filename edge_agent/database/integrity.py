"""Whether a database file is whole."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edge_agent.errors import DatabaseDamagedError, EdgeAgentError
from edge_agent.files.atomic import storage_error

Progress = Callable[[], None]
"""Called now and then during long work, so that the watchdog knows that this process lives. It may raise an
EdgeAgentError, to have it given up."""

_PROGRESS_STEPS = 100_000
_READ_BYTES = 1024 * 1024
_read_before: set[Path] = set()


def suspicion(path: Path) -> Path:
    """Name the file that lies beside a database in which damage was met: the next check is the thorough one."""
    return path.with_name(f"{path.name}-suspect")


def suspect(path: Path) -> None:
    """Remember that damage was met, where that can be written."""
    with suppress(OSError):
        suspicion(path).touch()


def damaged(path: Path, found: object) -> DatabaseDamagedError:
    """Say that a database is damaged, and what becomes of it."""
    return DatabaseDamagedError(
        f"{path} is damaged ({found}): the agent builds a new one by itself, from results/ and the images, and keeps the damaged one in a "
        "folder beside it; check the disk"
    )


def check_sound(connection: sqlite3.Connection, path: Path, progress: Progress) -> None:
    """Read the whole database; 100,000 records take about 0.1 s of a fast core, and as long as the disk needs for 60 MB.

    Parameters
    ----------
    connection : sqlite3.Connection
        Open on ``path``.
    path : Path
        The database file.
    progress : callable
        Called many times a second meanwhile.

    Raises
    ------
    DatabaseDamagedError
        If a page, a row or (where damage has been met before) an index is not what it should be.
    sqlite3.Error, StorageError
        If it cannot even be read.
    EdgeAgentError
        What ``progress`` raises.
    """
    given_up: list[EdgeAgentError] = []

    def live() -> int:
        try:
            progress()
        except EdgeAgentError as why:  # SQLite lets no exception through
            given_up.append(why)
        return len(given_up)

    thorough = suspicion(path).exists()
    connection.set_progress_handler(live, _PROGRESS_STEPS)
    try:
        found = connection.execute("PRAGMA integrity_check(1)" if thorough else "PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.OperationalError:
        if given_up:
            raise given_up[0] from None
        raise
    finally:
        connection.set_progress_handler(None, 0)
    if found != "ok":
        raise damaged(path, found) from sqlite3.DatabaseError(found)
    if thorough:
        suspicion(path).unlink(missing_ok=True)


def read_ahead(path: Path, progress: Progress) -> None:
    """Let the system have the file in memory, in its order on the disk: SQLite reads it in its own, and without a word meanwhile.

    Once in each process, and before it has a connection. Closing a file lets go of every POSIX lock that the process has on it, of those of
    SQLite too; and any other program that closes the database is then the last one to its knowledge, and takes the journal away, with
    every commit that the agent makes from there on (sqlite.org/howtocorrupt.html, 2.2).

    Raises
    ------
    StorageError
        If it cannot be read.
    EdgeAgentError
        What ``progress`` raises.
    """
    if path in _read_before or not path.exists():
        return
    _read_before.add(path)
    try:
        with path.open("rb", buffering=0) as file:
            while file.read(_READ_BYTES):
                progress()
    except OSError as fault:
        raise storage_error(fault, f"read {path}") from fault
