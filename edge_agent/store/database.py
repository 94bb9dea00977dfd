"""The database: the truth about every arrival. One writer, in the agent's main thread; any number of readers."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

from edge_agent.errors import DiskFullError, StorageError
from edge_agent.intake.placing import printable_path
from edge_agent.intake.settle import Stamp
from edge_agent.records import Arrival, Record
from edge_agent.store.rows import FILE_COLUMNS, RECORD_COLUMNS, arrival_from_row, record_from_row, row_from_record, stamp_row, time_text

SCHEMA_VERSION = 1
PAGE_ROWS = 1000
_LOCK_WAIT_S = 5.0
_JOURNAL_LIMIT_BYTES = 16 * 1024**2
# Below this a failed write is a full disk, whatever SQLite calls it: it can not even extend its shared memory.
_NO_SPACE_BYTES = 256 * 1024

_SELECT = f"SELECT {', '.join(RECORD_COLUMNS)} FROM record "  # noqa: S608 - constants of this package
_SELECT_WITH_FILE = f"SELECT {', '.join((*RECORD_COLUMNS, *FILE_COLUMNS))} FROM record "  # noqa: S608
_WRITTEN = (*RECORD_COLUMNS[1:], *FILE_COLUMNS)
_INSERT = f"INSERT INTO record ({', '.join(_WRITTEN)}) VALUES ({', '.join('?' * len(_WRITTEN))})"  # noqa: S608


class Settlement(NamedTuple):
    """What is known of a record only after its commit; written with the next transaction, so that it costs none of its own."""

    record_id: int
    commit_ms: float | None
    total_ms: float | None
    disposed: bool


class Known(NamedTuple):
    """A file of the inbox that has a record already."""

    record_id: int
    disposed: bool


class Totals(NamedTuple):
    """Counts for ``edge-agent status``."""

    by_status: dict[str, int]
    by_decision: dict[str, int]
    duplicates: int
    undisposed: int


@contextmanager
def _faults(path: Path, doing: str) -> Iterator[None]:
    """Turn SQLite's errors into ours."""
    try:
        yield
    except sqlite3.Error as fault:
        raise _storage_error(fault, path, doing) from fault


def _storage_error(fault: sqlite3.Error, path: Path, doing: str) -> StorageError:
    code = getattr(fault, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    primary = code & 0xFF
    if primary == sqlite3.SQLITE_FULL or (primary in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and _is_full(path)):
        return DiskFullError(f"no space is left to {doing} {path}: free some space, then start the agent again; nothing is lost")
    if primary in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StorageError(
            f"{path} is damaged ({fault}): stop the agent, move {path.name}, {path.name}-wal and {path.name}-shm to another folder and "
            "start again; the records so far also stand in results/predictions.jsonl"
        )
    if primary == sqlite3.SQLITE_BUSY:
        return StorageError(f"can not {doing} {path}: another program holds it locked; close that program, then start the agent again")
    return StorageError(f"can not {doing} {path}: {fault}; check that the disk is mounted and that the agent may write there")


def _is_full(path: Path) -> bool:
    try:
        space = os.statvfs(path.parent)
    except OSError:
        return False
    return space.f_bavail * space.f_frsize < _NO_SPACE_BYTES


def _schema_version(connection: sqlite3.Connection, path: Path) -> int:
    """Read the schema version; refuse one that this program does not know."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise StorageError(
            f"{path} was written by a newer edge-agent (schema {version}; this one knows {SCHEMA_VERSION}): "
            "install that version again, or start with another --home"
        )
    return version


class Reader:
    """Read-only access, also while the agent writes. Not thread-safe: one for each thread.

    Parameters
    ----------
    path : Path
        ``HOME/state/edge-agent.db``, which must exist.

    Raises
    ------
    StorageError
        If it is missing, damaged, or of a newer version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise StorageError(f"there is no database {path}: no agent has run on this home folder yet; name another one with --home")
        with _faults(path, "read"):
            try:
                self._connection = self._connect("mode=ro")
            except sqlite3.OperationalError:
                if path.with_name(f"{path.name}-wal").exists():
                    raise
                # Nobody writes, and we may not make SQLite's shared memory here: read it as a file that does not change.
                self._connection = self._connect("mode=ro&immutable=1")

    def _connect(self, options: str) -> sqlite3.Connection:
        uri = f"{self._path.absolute().as_uri()}?{options}"
        connection = sqlite3.connect(uri, uri=True, timeout=_LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            if _schema_version(connection, self._path) == 0:
                raise StorageError(f"{self._path} is not a database of edge-agent; name another home folder with --home")
        except (sqlite3.Error, StorageError):
            connection.close()
            raise
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        with _faults(self._path, "read"):
            return self._connection.execute(sql, values).fetchall()

    def first_of(self, sha256: str, model_digest: str) -> Record | None:
        """Find the first record of the same bytes that this same model classified; None where there is none.

        A rejection does not count: a codec may have been installed since. Another model's opinion does not count either.
        """
        rows = self._rows(
            _SELECT + "WHERE sha256 = ? AND status = 'done' AND duplicate_of IS NULL AND model_digest = ? ORDER BY id LIMIT 1",
            (sha256, model_digest),
        )
        return record_from_row(rows[0]) if rows else None

    def last_at(self, path: str) -> Record | None:
        """Find the newest record of a path (as an arrival has it); None where there is none."""
        rows = self._rows(_SELECT + "WHERE path = ? ORDER BY id DESC LIMIT 1", (printable_path(path),))
        return record_from_row(rows[0]) if rows else None

    def records(self, *, after_id: int = 0, since: datetime | None = None, until: datetime | None = None) -> Iterator[Record]:
        """Give records in the order of their ids.

        Parameters
        ----------
        after_id : int
            Only those with a greater id.
        since, until : datetime or None
            In UTC; only those with ``since <= finished_at < until``.

        Yields
        ------
        Record
            Read in pages, so that no reader keeps the agent from tidying its journal.
        """
        lowest = "0" if since is None else time_text(since)
        beyond = "9999" if until is None else time_text(until)
        if since is not None:
            # The index knows where a time begins; without it every row since the beginning of time would be read.
            first = self._rows("SELECT min(id) FROM record WHERE finished_at >= ?", (lowest,))[0][0]
            after_id = max(after_id, (first or 0) - 1)
        while True:
            rows = self._rows(
                _SELECT + "WHERE id > ? AND +finished_at >= ? AND +finished_at < ? ORDER BY id LIMIT ?",
                (after_id, lowest, beyond, PAGE_ROWS),
            )
            for row in rows:
                yield record_from_row(row)
            if len(rows) < PAGE_ROWS:
                return
            after_id = rows[-1][0]

    def last(self) -> Record | None:
        """The newest record; None where there is none."""
        rows = self._rows(_SELECT + "ORDER BY id DESC LIMIT 1")
        return record_from_row(rows[0]) if rows else None

    def totals(self) -> Totals:
        """Count the records by status and by decision."""
        rows = self._rows("SELECT status, decision, duplicate_of IS NOT NULL, disposed, count(*) FROM record GROUP BY 1, 2, 3, 4")
        totals = Totals({}, {}, 0, 0)
        for status, decision, is_duplicate, disposed, count in rows:
            totals.by_status[status] = totals.by_status.get(status, 0) + count
            if decision is not None:
                totals.by_decision[decision] = totals.by_decision.get(decision, 0) + count
            totals = totals._replace(
                duplicates=totals.duplicates + count * is_duplicate, undisposed=totals.undisposed + count * (not disposed)
            )
        return totals

    def known(self, seen: Sequence[tuple[str, Stamp]], *, with_ctime: bool) -> dict[str, Known]:
        """Find which files of the inbox have a record already.

        Parameters
        ----------
        seen : sequence of (str, Stamp)
            At most 30,000 paths with what the files look like now.
        with_ctime : bool
            Whether the ctime must be the same too, for a file that has left the inbox. A rename changes it, so that an image which somebody
            moved back into the inbox is a new arrival. chmod changes it too, which makes no new image of one that never left.

        Returns
        -------
        dict
            The newest record of each path whose file is the recorded one.
        """
        stamps = {printable_path(path): (path, stamp_row(stamp)) for path, stamp in seen}
        marks = ", ".join("?" * len(stamps))
        rows = self._rows(
            f"SELECT path, size_bytes, mtime_ns, ctime_ns, inode, id, disposed FROM record WHERE path IN ({marks}) ORDER BY id",  # noqa: S608
            list(stamps),
        )
        found = {}
        for path, size_bytes, mtime_ns, ctime_ns, inode, record_id, disposed in rows:
            true_path, stamp = stamps[path]
            if stamp == (size_bytes, mtime_ns, ctime_ns if with_ctime and disposed else stamp[2], inode):
                found[true_path] = Known(record_id, bool(disposed))
        return found

    def record(self, record_id: int) -> Record:
        """Read one record, which must exist."""
        return record_from_row(self._rows(_SELECT + "WHERE id = ?", (record_id,))[0])

    def undisposed(self) -> list[tuple[Record, Arrival]]:
        """List the records whose file has not been disposed of, as far as the database knows."""
        rows = self._rows(_SELECT_WITH_FILE + "WHERE disposed = 0 ORDER BY id")
        return [(record, arrival_from_row(row, record)) for row in rows for record in [record_from_row(row)]]

    def note(self, name: str) -> str | None:
        """Read a note; None where there is none."""
        rows = self._rows("SELECT value FROM note WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None


class Database(Reader):
    """The writer. What a method wrote is durable when it returns.

    Parameters
    ----------
    path : Path
        Made where it does not exist; its folder must.

    Raises
    ------
    StorageError
        If it can not be opened, is damaged, or was written by a newer version.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _faults(path, "open"):
            self._connection = sqlite3.connect(path, timeout=_LOCK_WAIT_S, isolation_level=None)
            try:
                version = _schema_version(self._connection, path)
                self._connection.execute("PRAGMA journal_mode = WAL")
                # FULL: a commit is on the disk when it returns, also when the power goes the moment after.
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT_BYTES}")
                self._connection.execute("PRAGMA foreign_keys = ON")
                if version == 0:
                    self._create()
            except (sqlite3.Error, StorageError):
                self._connection.close()
                raise

    def _create(self) -> None:
        with closing(self._connection.execute("SELECT count(*) FROM sqlite_schema")) as cursor:
            if cursor.fetchone()[0]:
                raise StorageError(f"{self._path} is not a database of edge-agent; name another home folder with --home")
        schema = Path(__file__).with_name("schema.sql").read_text("utf-8")
        self._connection.executescript(f"BEGIN IMMEDIATE;\n{schema}\nPRAGMA user_version = {SCHEMA_VERSION};\nCOMMIT;")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        with _faults(self._path, "write"), closing(self._connection.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    cursor.execute("ROLLBACK")
                raise

    def insert(
        self,
        entries: Sequence[tuple[Record, Arrival]],
        *,
        settlements: Sequence[Settlement] = (),
        restamped: Sequence[tuple[int, Arrival]] = (),
        notes: dict[str, str] | None = None,
    ) -> list[int]:
        """Write everything given in one transaction.

        Parameters
        ----------
        entries : sequence of (Record, Arrival)
            New records, each with the file it is about.
        settlements : sequence of Settlement
            What has become known of earlier records.
        restamped : sequence of (int, Arrival)
            Records whose file stayed in the inbox and has a new stamp, but the same bytes.
        notes : dict, optional
            Notes to set.

        Returns
        -------
        list of int
            The ids of ``entries``, ascending.

        Raises
        ------
        DiskFullError
            If no space is left. Nothing has been written then, as with every error.
        StorageError
            If it can not be written.
        """
        ids = []
        with self._transaction() as cursor:
            for record, arrival in entries:
                cursor.execute(_INSERT, row_from_record(record, arrival))
                ids.append(cursor.lastrowid or 0)
            cursor.executemany(
                "UPDATE record SET commit_ms = coalesce(?, commit_ms), total_ms = coalesce(?, total_ms), disposed = ? WHERE id = ?",
                [(each.commit_ms, each.total_ms, each.disposed, each.record_id) for each in settlements],
            )
            cursor.executemany(
                "UPDATE record SET size_bytes = ?, mtime_ns = ?, ctime_ns = ?, inode = ? WHERE id = ?",
                [(*stamp_row(Stamp.of_arrival(arrival)), record_id) for record_id, arrival in restamped],
            )
            cursor.executemany("INSERT INTO note VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (notes or {}).items())
        return ids
