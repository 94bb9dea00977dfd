"""SQLite's errors as ours: which of them are transient, and what a person can do."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_agent.database.integrity import damaged, suspect
from edge_agent.errors import DatabaseLockedError, StorageError
from edge_agent.files.atomic import storage_error

_NO_SPACE_BYTES = 256 * 1024
"""With less free space than this a failed write means a full disk, whatever SQLite calls it: it cannot even extend its shared memory."""
_VAGUE = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN)
"""SQLite's codes for an operation that the system refused for a reason that SQLite does not pass on."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL)


@contextmanager
def sqlite_faults(path: Path, doing: str) -> Iterator[None]:
    """Raise SQLite's errors as ours.

    Parameters
    ----------
    path : Path
        The database file.
    doing : str
        "open", "read" or "write".

    Raises
    ------
    StorageError
        One that ``passes`` where the disk, its space, a lock or damage is to blame; else the plain one.
    """
    try:
        yield
    except sqlite3.Error as fault:
        raise storage_error_of(fault, path, doing) from fault


def storage_error_of(fault: sqlite3.Error, path: Path, doing: str) -> StorageError:
    """Turn one error of SQLite into ours; see :func:`sqlite_faults`.

    References
    ----------
    SQLite, "Result and Error Codes"; the low byte of an extended code is the primary one.
    """
    primary = getattr(fault, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if primary == sqlite3.SQLITE_FULL or (primary in _VAGUE and _is_full(path)):
        return storage_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), f"{doing} {path}")
    if primary in _DAMAGED:
        suspect(path)
        return damaged(path, fault)
    if primary in _LOCKED:
        return DatabaseLockedError(
            f"cannot {doing} {path}: another program holds it locked; close that program; "
            "a running agent goes on by itself then, and nothing is lost"
        )
    if (primary == sqlite3.SQLITE_READONLY or primary in _VAGUE) and _is_read_only(path):
        return storage_error(OSError(errno.EROFS, os.strerror(errno.EROFS)), f"{doing} {path}")
    return storage_error(OSError(str(fault)), f"{doing} {path}")


def _is_full(path: Path) -> bool:
    try:
        space = os.statvfs(path.parent)
    except OSError:
        return False
    return space.f_bavail * space.f_frsize < _NO_SPACE_BYTES


def _is_read_only(path: Path) -> bool:
    try:
        return bool(os.statvfs(path.parent).f_flag & os.ST_RDONLY)
    except OSError:
        return False
