"""Which records describe a file that lies somewhere: what is asked after the database was built again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from edge_agent.database.database import Database, Reader
from edge_agent.database.rows import signed_64
from edge_agent.records import Status


class RecordedFile(NamedTuple):
    """What a record says of its file. ``path`` is as the record has it; ``size_bytes`` and ``inode`` are as the database holds them."""

    record_id: int
    path: str
    status: Status
    size_bytes: int
    inode: int


def has_record(reader: Reader, record_id: int) -> bool:
    """Tell whether there is a record with this id."""
    return bool(reader._rows("SELECT 1 FROM record WHERE id = ?", (record_id,)))


def oldest_finish(reader: Reader) -> datetime | None:
    """Give the earliest ``finished_at`` of all records; None where there are none."""
    oldest = reader._rows("SELECT min(finished_at) FROM record")[0][0]
    return None if oldest is None else datetime.fromisoformat(oldest)


def has_file(reader: Reader, paths: Sequence[str], size_bytes: int, inode: int) -> bool:
    """Tell whether a record of one of two paths (as records have them) is about a file of this size and inode."""
    rows = reader._rows("SELECT size_bytes, inode FROM record WHERE path IN (?, ?)", paths)
    return (signed_64(size_bytes), signed_64(inode)) in rows


def files_with_digest(reader: Reader, sha256: str) -> list[RecordedFile]:
    """List what the records of these bytes say of their files."""
    return [
        RecordedFile(*row) for row in reader._rows("SELECT id, path, status, size_bytes, inode FROM record WHERE sha256 = ?", (sha256,))
    ]


def skip_ids(database: Database, count: int) -> None:
    """Leave out ``count`` ids before the next record gets one."""
    with database._transaction() as cursor:
        cursor.execute("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'record'", (count,))
