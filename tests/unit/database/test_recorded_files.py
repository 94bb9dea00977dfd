"""What is asked of the records after the database was built again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from support.agents import NOON, make_arrival, make_record

from edge_agent.database.database import Database
from edge_agent.database.pending_commit import PendingCommit
from edge_agent.database.recorded_files import RecordedFile, files_with_digest, has_file, has_record, oldest_finish, skip_ids


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "edge-agent.db") as database:
        yield database


def test_an_empty_database_knows_no_file(database: Database) -> None:
    assert oldest_finish(database) is None
    assert not has_record(database, 1)
    assert not has_file(database, ("a", "a"), 5, 7)
    assert files_with_digest(database, "0" * 64) == []


def test_files_are_known_by_their_path_size_and_inode_or_by_their_bytes(database: Database) -> None:
    one = make_record(path="a", sha256="1" * 64, finished_at=NOON)
    other = make_record(path="b", sha256="1" * 64, finished_at=NOON - timedelta(days=1), status="rejected")
    big = 2**64 - 1
    entries = [(one, make_arrival("a", size_bytes=5, inode=big)), (other, make_arrival("b", size_bytes=6, inode=8))]
    database.insert(PendingCommit(entries))
    assert oldest_finish(database) == NOON - timedelta(days=1)
    assert has_record(database, 2)
    assert has_file(database, ("absent", "a"), 5, big)
    assert not has_file(database, ("absent", "a"), 5, 8)
    assert not has_file(database, ("absent", "absent"), 5, big)
    assert files_with_digest(database, "1" * 64) == [RecordedFile(1, "a", "done", 5, -1), RecordedFile(2, "b", "rejected", 6, 8)]


def test_ids_that_are_left_out_are_not_given(database: Database) -> None:
    database.insert(PendingCommit([(make_record(), make_arrival())]))
    skip_ids(database, 100)
    assert database.insert(PendingCommit([(make_record(), make_arrival())])) == [102]
