"""What the database's faults are called, which of them pass, and that each is left when its cause ends. The causes are real ones."""

from __future__ import annotations

import errno
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.agents import make_arrival, make_record
from support.connections import collect_connections
from support.disks import NoDisksError, memory_disk

from edge_agent.agent.folders import free_space
from edge_agent.database import database as database_module
from edge_agent.database.database import DATABASE_NAME, Database, Reader
from edge_agent.database.errors import storage_error_of
from edge_agent.database.integrity import suspicion
from edge_agent.database.pending_commit import PendingCommit
from edge_agent.errors import (
    DatabaseDamagedError,
    DatabaseLockedError,
    DiskFullError,
    ReadOnlyError,
    StorageAwayError,
    StorageError,
)
from edge_agent.files.atomic import storage_error
from edge_agent.records import Reason

BIG = make_record(reason=Reason("x", "y" * 200_000))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two mebibytes."""
    try:
        with memory_disk(tmp_path / "disk", 2048) as folder:
            yield folder
    except NoDisksError as fault:
        pytest.skip(f"no disk can be mounted here: {fault}")


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", disk], check=True)


def insert_big(database: Database) -> None:
    database.insert(PendingCommit([(BIG, make_arrival())]))


@pytest.mark.parametrize(
    ("code", "kind", "state"),
    [
        (sqlite3.SQLITE_FULL, DiskFullError, "disk_full"),
        (sqlite3.SQLITE_IOERR_WRITE, StorageAwayError, "storage_error"),
        (sqlite3.SQLITE_IOERR_FSYNC, StorageAwayError, "storage_error"),
        (sqlite3.SQLITE_CANTOPEN, StorageAwayError, "storage_error"),
        (sqlite3.SQLITE_READONLY, StorageAwayError, "storage_error"),
        (sqlite3.SQLITE_READONLY_DBMOVED, StorageAwayError, "storage_error"),
        (sqlite3.SQLITE_BUSY, DatabaseLockedError, "database_locked"),
        (sqlite3.SQLITE_BUSY_RECOVERY, DatabaseLockedError, "database_locked"),
        (sqlite3.SQLITE_LOCKED, DatabaseLockedError, "database_locked"),
        (sqlite3.SQLITE_PROTOCOL, DatabaseLockedError, "database_locked"),
        (sqlite3.SQLITE_CORRUPT, DatabaseDamagedError, "storage_error"),
        (sqlite3.SQLITE_CORRUPT_INDEX, DatabaseDamagedError, "storage_error"),
        (sqlite3.SQLITE_NOTADB, DatabaseDamagedError, "storage_error"),
    ],
)
def test_each_code_has_its_class_and_state(tmp_path: Path, code: int, kind: type[StorageError], state: str) -> None:
    fault = sqlite3.OperationalError("as SQLite says it")
    fault.sqlite_errorcode = code
    error = storage_error_of(fault, tmp_path / DATABASE_NAME, "write")
    assert (type(error), error.state, error.passes) == (kind, state, True)
    assert error.exit_code == (41 if kind is DiskFullError else 40)
    assert "by itself" in str(error)
    assert "start the agent" not in str(error)


@pytest.mark.parametrize(
    ("number", "kind", "state"),
    [
        (errno.ENOSPC, DiskFullError, "disk_full"),
        (errno.EDQUOT, DiskFullError, "disk_full"),
        (errno.EROFS, ReadOnlyError, "read_only"),
        (errno.EIO, StorageAwayError, "storage_error"),
        (errno.EACCES, StorageAwayError, "storage_error"),
    ],
)
def test_so_has_each_error_of_the_system(number: int, kind: type[StorageError], state: str) -> None:
    error = storage_error(OSError(number, "as the system says it"), "write x")
    assert (type(error), error.state, error.passes) == (kind, state, True)
    assert "by itself" in str(error)


def test_a_fault_that_waiting_does_not_end_does_not_pass(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    for opening in (Database, Reader):
        with pytest.raises(StorageError) as caught:
            opening(tmp_path / DATABASE_NAME)
        assert (caught.value.passes, caught.value.state) == (False, "storage_error")


def test_a_disk_that_is_full(disk: Path) -> None:
    with Database(disk / DATABASE_NAME) as database:
        database.insert(PendingCommit([(make_record(), make_arrival())]))
        filler = disk / "filler"
        with pytest.raises(OSError, match="No space"), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(65536))
        assert free_space(disk) == 0
        with pytest.raises(DiskFullError) as caught:
            insert_big(database)
        assert caught.value.state == "disk_full"
        assert [record.id for record in database.records()] == [1]
        filler.unlink()
        insert_big(database)
        assert [record.id for record in database.records()] == [1, 2]


def test_a_disk_that_is_full_before_the_database_is_there(disk: Path) -> None:
    with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(DiskFullError):
        Database(disk / DATABASE_NAME)
    (disk / "filler").unlink()
    Database(disk / DATABASE_NAME).close()


def test_a_disk_that_becomes_read_only(disk: Path) -> None:
    Database(disk / DATABASE_NAME).close()
    remount(disk, "ro")
    with pytest.raises(ReadOnlyError) as caught:
        Database(disk / DATABASE_NAME)
    assert caught.value.state == "read_only"
    with Reader(disk / DATABASE_NAME) as reader:
        assert reader.totals().by_status == {}
    remount(disk, "rw")
    with Database(disk / DATABASE_NAME) as database:
        insert_big(database)


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_a_database_that_another_program_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: str) -> None:
    monkeypatch.setattr(database_module, "LOCK_WAIT_S", 0.01)
    path = tmp_path / DATABASE_NAME
    with Database(path) as database, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute(begin)
        with pytest.raises(DatabaseLockedError) as caught:
            insert_big(database)
        assert caught.value.state == "database_locked"
        with Reader(path) as reader:
            assert reader.last() is None, "reading goes on"
        other.execute("ROLLBACK")
        insert_big(database)


def test_a_lock_is_waited_for_less_than_a_stop_may_take() -> None:
    assert database_module.LOCK_WAIT_S <= 1


def test_a_database_that_reached_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connections = collect_connections(monkeypatch)
    with Database(tmp_path / DATABASE_NAME) as database:
        connections[0].execute("PRAGMA max_page_count = 1")  # which SQLite takes as: no more than there are
        with pytest.raises(DiskFullError):
            insert_big(database)


def test_damage_that_was_met_is_remembered_for_the_next_check(tmp_path: Path) -> None:
    path = tmp_path / DATABASE_NAME
    Database(path).close()
    path.write_bytes(b"a letter, not a database\n" * 100)
    with pytest.raises(DatabaseDamagedError):
        Reader(path)
    assert suspicion(path).exists()


def test_a_check_tells_that_it_is_alive(tmp_path: Path) -> None:
    path = tmp_path / DATABASE_NAME
    with Database(path) as database:
        for _ in range(4):
            database.insert(PendingCommit([(make_record(), make_arrival(f"{number}.png")) for number in range(1000)]))
    calls: list[None] = []
    Database(path, lambda: calls.append(None)).close()
    assert calls
