"""The versions of the database's schema, and the steps from each to the next: ``migrations/0001.sql``, ``0002.sql``, ..."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from edge_agent.errors import StorageError

SCHEMA_VERSION = 2
MIGRATIONS = Path(__file__).with_name("migrations")


def schema_version(connection: sqlite3.Connection, path: Path) -> int:
    """Read the schema version of an open database; 0 is a new file.

    Raises
    ------
    StorageError
        If a newer version of this program wrote it, or another program.
    """
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StorageError(
            f"{path} was written by a newer edge-agent (schema {version}; this one knows {SCHEMA_VERSION}): "
            "install that version again, or start with another --home"
        )
    if version < 1 and connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise not_ours(path)
    return version


def not_ours(path: Path) -> StorageError:
    """Say that a file is a database, but none of this program."""
    return StorageError(f"{path} is not a database of edge-agent; name another home folder with --home")


def upgrade(connection: sqlite3.Connection, version: int) -> None:
    """Take a database from ``version`` to :data:`SCHEMA_VERSION`, one step after the other.

    Each step is one transaction together with its number: whatever ends the process, the file holds one version or the next, whole.
    """
    for number in range(version + 1, SCHEMA_VERSION + 1):
        migrate(connection, number)


def migrate(connection: sqlite3.Connection, number: int) -> None:
    """Do one step, to version ``number``."""
    step = (MIGRATIONS / f"{number:04}.sql").read_text("utf-8")
    try:
        connection.executescript(f"BEGIN IMMEDIATE;\n{step}\nPRAGMA user_version = {number};\nCOMMIT;")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
