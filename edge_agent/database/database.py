"""The database: the truth about every arrival. One writer, in the agent's main thread; any number of readers."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self

import msgspec

from edge_agent.database.attempts import Attempt, all_attempts, begin_attempts, blame_attempts, end_attempts, finish_attempts
from edge_agent.database.errors import sqlite_faults
from edge_agent.database.events import Event, add_events, newest_events
from edge_agent.database.integrity import Progress, check_sound, read_ahead
from edge_agent.database.pending_commit import PendingCommit
from edge_agent.database.rows import FILE_COLUMNS, RECORD_COLUMNS, arrival_from_row, record_from_row, row_from_record, stamp_row, time_text
from edge_agent.database.schema import SCHEMA_VERSION, not_ours, schema_version, upgrade
from edge_agent.errors import EdgeAgentError, StorageError
from edge_agent.files.names import printable_path
from edge_agent.files.stamp import Stamp
from edge_agent.records import Arrival, Record

PAGE_ROWS = 1000
LOCK_WAIT_S = 1.0
"""How long to wait for a locked database, in the main loop too: less than a stop may take, and far less than systemd's watchdog allows."""
_JOURNAL_LIMIT_BYTES = 16 * 1024**2
_READER_CACHE_KIB = 500
"""Each worker has a reader and asks it for one row at a time: SQLite's own 2 MB for each would not be used twice."""

_SELECT = f"SELECT {', '.join(RECORD_COLUMNS)} FROM record "  # noqa: S608 - constants of this package
_SELECT_WITH_FILE = f"SELECT {', '.join((*RECORD_COLUMNS, *FILE_COLUMNS))} FROM record "  # noqa: S608
_WRITTEN = (*RECORD_COLUMNS[1:], *FILE_COLUMNS)
_INSERT = f"INSERT INTO record ({', '.join(_WRITTEN)}) VALUES ({', '.join('?' * len(_WRITTEN))})"  # noqa: S608

_RESTORED = (*RECORD_COLUMNS, *FILE_COLUMNS, "disposed")
_RESTORE = f"INSERT OR IGNORE INTO record ({', '.join(_RESTORED)}) VALUES ({', '.join('?' * len(_RESTORED))})"  # noqa: S608


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
        with sqlite_faults(path, "read"):
            try:
                self._connection = self._connect("mode=ro")
            except sqlite3.OperationalError:
                if path.with_name(f"{path.name}-wal").exists():
                    raise
                # Nobody writes, and we may not make SQLite's shared memory here: read it as a file that does not change.
                self._connection = self._connect("mode=ro&immutable=1")

    def _connect(self, options: str) -> sqlite3.Connection:
        uri = f"{self._path.absolute().as_uri()}?{options}"
        connection = sqlite3.connect(uri, uri=True, timeout=LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            self._version = schema_version(connection, self._path)
            if self._version == 0:
                raise not_ours(self._path)
            connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
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
        """Ask; for the modules of this folder only, where SQL stands."""
        with sqlite_faults(self._path, "read"):
            return self._connection.execute(sql, values).fetchall()

    def quick_check(self) -> str:
        """Look through the structure of the whole file; give the first damage that SQLite finds, "" where there is none."""
        found = str(self._rows("PRAGMA quick_check(1)")[0][0])
        return "" if found == "ok" else found

    def first_of(self, sha256: str, model_digest: str) -> Record | None:
        """Find the record that decides over a file with these bytes; None where there is none.

        That is one that was set aside because it kills the program, else the first that this same model classified. Another rejection does
        not count: a codec may have been installed since. Another model's opinion does not count either. One statement for both: each makes
        SQLite look for what the agent has written since, for every image.
        """
        rows = self._rows(
            _SELECT
            + "WHERE sha256 = ? AND (reason_code = 'quarantined' OR status = 'done' AND duplicate_of IS NULL AND model_digest = ?)"
            + " ORDER BY reason_code IS NOT 'quarantined', id LIMIT 1",
            (sha256, model_digest),
        )
        return record_from_row(rows[0]) if rows else None

    def last_at(self, path: str) -> Record | None:
        """Find the newest record of a path (as an arrival has it); None where there is none."""
        return next(iter(self.records_at(path, limit=1)), None)

    def records_at(self, path: str, limit: int = -1) -> list[Record]:
        """List the records of a path (as an arrival has it), the newest first; at most ``limit``, where that is not negative."""
        rows = self._rows(_SELECT + "WHERE path = ? ORDER BY id DESC LIMIT ?", (printable_path(path), limit))
        return [record_from_row(row) for row in rows]

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
            Paths with what the files look like now.
        with_ctime : bool
            Whether the ctime must be the same too, for a file that has left the inbox. A rename changes it, so that an image which somebody
            moved back into the inbox is a new arrival. chmod changes it too, which makes no new image of one that never left.

        Returns
        -------
        dict
            The newest record of each path whose file is the recorded one.
        """
        stamps = {printable_path(path): (path, stamp_row(stamp)) for path, stamp in seen}
        # One parameter, whatever their number: a statement of 500 parameters takes 136 kB, and Python keeps 128 statements of other texts.
        rows = self._rows(
            "SELECT path, size_bytes, mtime_ns, ctime_ns, inode, id, disposed FROM record"
            " WHERE path IN (SELECT value FROM json_each(?)) ORDER BY id",
            (msgspec.json.encode(list(stamps)).decode(),),
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

    def events(self, limit: int) -> list[Event]:
        """List the events that a person must learn of, the newest first."""
        if self._version < 2:  # written by an earlier agent, which kept none
            return []
        with sqlite_faults(self._path, "read"):
            return newest_events(self._connection, limit)


class Database(Reader):
    """The writer. What a method wrote is durable when it returns.

    Parameters
    ----------
    path : Path
        Made where it does not exist; its folder must.
    progress : callable, optional
        Check first that the whole file is sound; called many times a second meanwhile.

    Raises
    ------
    DatabaseDamagedError
        If it is not whole.
    StorageError
        If it cannot be opened, or was written by a newer version.
    """

    def __init__(self, path: Path, progress: Progress | None = None) -> None:
        self._path = path
        if progress is not None:
            read_ahead(path, progress)
        with sqlite_faults(path, "open"):
            self._connection = sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None)
            try:
                self._version = schema_version(self._connection, path)
                if progress is not None:
                    check_sound(self._connection, path, progress)
                self._connection.execute("PRAGMA journal_mode = WAL")
                # FULL: a commit is on the disk when it returns, also when the power goes the moment after.
                self._connection.execute("PRAGMA synchronous = FULL")
                self._connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT_BYTES}")
                self._connection.execute("PRAGMA foreign_keys = ON")
                upgrade(self._connection, self._version)
                self._version = SCHEMA_VERSION
            except (sqlite3.Error, EdgeAgentError):
                self._connection.close()
                raise

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        """Write all or nothing; for the modules of this folder only."""
        with sqlite_faults(self._path, "write"), closing(self._connection.cursor()) as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            try:
                yield cursor
                cursor.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    cursor.execute("ROLLBACK")
                raise

    def insert(self, commit: PendingCommit) -> list[int]:
        """Write a commit in one transaction.

        Returns
        -------
        list of int
            The ids of its entries, ascending.

        Raises
        ------
        DiskFullError
            If no space is left. Nothing has been written then, as with every error.
        StorageError
            If it cannot be written.
        """
        ids = []
        with self._transaction() as cursor:
            for record, arrival in commit.entries:
                cursor.execute(_INSERT, row_from_record(record, arrival))
                ids.append(cursor.lastrowid or 0)
            finish_attempts(cursor, [arrival.path for _, arrival in commit.entries])
            end_attempts(cursor, None if commit.ends_all_attempts else commit.ended)
            begin_attempts(cursor, commit.attempts)
            cursor.executemany(
                "UPDATE record SET commit_ms = coalesce(?, commit_ms), total_ms = coalesce(?, total_ms), disposed = ? WHERE id = ?",
                [(each.commit_ms, each.total_ms, each.disposed, each.record_id) for each in commit.settlements],
            )
            cursor.executemany(
                "UPDATE record SET size_bytes = ?, mtime_ns = ?, ctime_ns = ?, inode = ? WHERE id = ?",
                [(*stamp_row(Stamp.of_arrival(arrival)), record_id) for record_id, arrival in commit.restamped],
            )
            cursor.executemany("INSERT INTO note VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", commit.notes.items())
            add_events(cursor, commit.events)
        return ids

    def restore(self, entries: Sequence[tuple[Record, Arrival]]) -> int:
        """Enter records that have their ids already, in one transaction; their files are disposed of.

        An id that is taken stays as it is, and so does a reference to a record that is gone for good.

        Returns
        -------
        int
            How many were entered.
        """
        self._connection.execute("PRAGMA foreign_keys = OFF")
        try:
            with self._transaction() as cursor:
                cursor.executemany(_RESTORE, ([record.id, *row_from_record(record, arrival), 1] for record, arrival in entries))
                return cursor.rowcount
        finally:
            self._connection.execute("PRAGMA foreign_keys = ON")

    def fold(self) -> None:
        """Bring everything from the journal into the one file, on the disk.

        Raises
        ------
        StorageError
            If that cannot be done, also because somebody else reads.
        """
        with sqlite_faults(self._path, "write"):
            if self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                raise sqlite3.OperationalError("the journal is in use")

    def blame(self, *, crashed: bool | None) -> list[Attempt]:
        """Count the end of the last process against what it had in hand, once, and list every attempt without a record.

        Parameters
        ----------
        crashed : bool or None
            Whether it died of a signal of its own (a fault in a codec), as far as is known; None where no process ended.

        Returns
        -------
        list of Attempt
            With their counts as they are now.
        """
        if self._rows("SELECT 1 FROM attempt WHERE in_hand = 1 LIMIT 1"):
            with self._transaction() as cursor:
                if crashed is None:
                    end_attempts(cursor, None)
                else:
                    blame_attempts(cursor, crashed=crashed)
        with sqlite_faults(self._path, "read"):
            return all_attempts(self._connection)


DATABASE_NAME = "edge-agent.db"
