"""The database: what is written is what is read, whole or not at all."""

from __future__ import annotations

import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import MODEL, NOON, make_arrival, make_record
from support.connections import collect_connections

from edge_agent.database import database as database_module
from edge_agent.database import events as events_module
from edge_agent.database import schema as schema_module
from edge_agent.database.attempts import Attempt
from edge_agent.database.database import Database, Reader
from edge_agent.database.pending_commit import PendingCommit, Settlement
from edge_agent.database.rows import FILE_COLUMNS, RECORD_COLUMNS, arrival_from_row, record_from_row, row_from_record, signed_64, time_text
from edge_agent.database.schema import MIGRATIONS, SCHEMA_VERSION
from edge_agent.errors import DiskFullError, StorageError
from edge_agent.files.stamp import Stamp
from edge_agent.records import Reason, Timing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edge-agent.db"


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[sqlite3.Connection]:
    """To be asked for before ``database``, whose connection is then in it."""
    return collect_connections(monkeypatch)


@pytest.fixture
def database(path: Path) -> Iterator[Database]:
    with Database(path) as database:
        yield database


def stamp_of(arrival) -> Stamp:
    return Stamp.of_arrival(arrival)


def test_a_record_comes_back_as_it_went_in(database: Database) -> None:
    plain = make_record(reason=None, model=None, scores={}, label=None, findings=[], decision=None, novelty=None, quality=[], sha256="")
    ids = database.insert(PendingCommit([(make_record(), make_arrival()), (plain, make_arrival("b"))]))
    assert ids == [1, 2]
    assert database.record(1) == msgspec.structs.replace(make_record(), id=1)
    assert database.record(2) == msgspec.structs.replace(plain, id=2)


@given(
    path=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1),
    message=st.text(st.characters(codec="utf-8")),
    scores=st.dictionaries(st.text(st.characters(codec="utf-8")), st.floats(allow_nan=False, allow_infinity=False)),
    finished_at=st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2999, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
)
def test_any_text_number_and_time_survives_the_row(path: str, message: str, scores: dict[str, float], finished_at: datetime) -> None:
    record = make_record(path=path, reason=Reason("x", message), scores=scores, finished_at=finished_at)
    row = [7, *row_from_record(record, make_arrival(path))]
    with closing(sqlite3.connect(":memory:")) as connection:
        row = connection.execute(f"SELECT {', '.join('?' * len(row))}", row).fetchone()
    back = record_from_row(row)
    assert back == msgspec.structs.replace(record, id=7)
    assert arrival_from_row(row, back) == make_arrival(path)


def test_times_sort_as_text() -> None:
    times = [NOON.replace(microsecond=0), NOON.replace(microsecond=500_000), NOON + timedelta(seconds=1)]
    assert sorted(map(time_text, times)) == [time_text(time) for time in times]
    with pytest.raises(ValueError, match="UTC"):
        time_text(NOON.replace(tzinfo=None))


@given(st.integers(min_value=0, max_value=2**64 - 1))
def test_unsigned_numbers_fit_into_signed_ones_and_back(value: int) -> None:
    assert -(2**63) <= signed_64(value) < 2**63
    assert signed_64(value) % 2**64 == value


def test_names_that_are_not_utf_8_and_numbers_beyond_63_bits_are_kept(database: Database) -> None:
    name = b"a/\xffb.png".decode("utf-8", "surrogateescape")
    arrival = make_arrival(name, inode=2**64 - 1, mtime_ns=2**63 - 5)
    database.insert(PendingCommit([(make_record(path="a/\\xffb.png"), arrival)]))
    [(record, back)] = database.undisposed()
    assert (record.path, back.path, back.inode, back.mtime_ns) == ("a/\\xffb.png", name, 2**64 - 1, 2**63 - 5)
    assert database.known([(name, stamp_of(arrival))], with_ctime=True).keys() == {name}


def test_one_bad_record_and_nothing_of_its_group_is_written(database: Database) -> None:
    with pytest.raises(StorageError):
        database.insert(PendingCommit([(make_record(), make_arrival()), (make_record(status="lost"), make_arrival())]))
    assert list(database.records()) == []
    assert database.insert(PendingCommit([(make_record(), make_arrival())]))


def test_commits_are_durable_and_the_journal_is_a_log(connections: list[sqlite3.Connection], database: Database, path: Path) -> None:
    [connection] = connections
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    database.insert(PendingCommit([(make_record(), make_arrival())]))
    with Reader(path) as reader:  # while the writer is open
        assert reader.last() == database.last()
        assert reader.totals().by_status == {"done": 1}


def test_what_becomes_known_later_is_added_without_losing_what_was_known(database: Database) -> None:
    database.insert(PendingCommit([(make_record(), make_arrival())]))
    assert [record.id for record, _ in database.undisposed()] == [1]
    database.insert(PendingCommit(settlements=[Settlement(1, 1.5, 9.5, disposed=True)], notes={"a": "1"}))
    database.insert(PendingCommit(settlements=[Settlement(1, None, None, disposed=True)], notes={"a": "2"}))
    assert database.record(1).timing_ms == Timing(1.0, 2.0, 3.0, 4.0, 5.0, 1.5, 9.5)
    assert database.undisposed() == []
    assert (database.note("a"), database.note("b")) == ("2", None)


def test_the_first_copy_is_a_result_of_the_same_model(database: Database) -> None:
    digest = MODEL.digest
    assert database.first_of("ab" * 32, digest) is None
    rejected = make_record(status="rejected", model=None)
    other = make_record(model=msgspec.structs.replace(MODEL, digest="e" * 64))
    database.insert(
        PendingCommit([(each, make_arrival()) for each in (rejected, other, make_record(), make_record(duplicate_of=3), make_record())])
    )
    first = database.first_of("ab" * 32, digest)
    assert first is not None
    assert first.id == 3
    set_aside = make_record(status="rejected", model=None, reason=Reason("quarantined", "It kills the program."))
    database.insert(PendingCommit([(set_aside, make_arrival())]))
    first = database.first_of("ab" * 32, digest)
    assert first is not None
    assert (first.id, first.status) == (6, "rejected")


def test_a_file_is_known_by_what_lstat_says_of_it(database: Database) -> None:
    arrival = make_arrival("a")
    database.insert(PendingCommit([(make_record(path="a"), arrival)]))
    seen = stamp_of(arrival)
    touched = seen._replace(ctime_ns=99)

    def known(stamp: Stamp, *, with_ctime: bool) -> bool:
        return "a" in database.known([("a", stamp), ("b", seen)], with_ctime=with_ctime)

    assert known(seen, with_ctime=True)
    assert known(touched, with_ctime=True), "it has not left the inbox: chmod makes no new image of it"
    database.insert(PendingCommit(settlements=[Settlement(1, None, None, disposed=True)]))
    assert known(seen, with_ctime=True)
    assert known(touched, with_ctime=False)
    assert not known(touched, with_ctime=True), "it had left: somebody brought it back"
    for other in (seen._replace(inode=1), seen._replace(size_bytes=1), seen._replace(mtime_ns=1)):
        assert not known(other, with_ctime=False)


def test_another_program_that_closes_the_database_leaves_the_journal_to_us(path: Path) -> None:
    """
    1. The database is there already, is checked and opened. Another process opens it too, reads, writes and closes it.
    2. We write. A third process looks.
    Result: it sees what we wrote, because the second did not take itself for the last one and remove the journal under us.
    """

    def ask(sql: str) -> str:
        program = f"import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); print(*c.execute({sql!r})); c.commit(); c.close()"
        return subprocess.run([sys.executable, "-c", program, path], check=True, capture_output=True, text=True).stdout.strip()

    Database(path).close()
    for _ in range(2):
        with Database(path, lambda: None) as database:
            ask("UPDATE note SET value = value")
            assert path.with_name(f"{path.name}-wal").exists()
            database.insert(PendingCommit([(make_record(), make_arrival())]))
            assert ask("SELECT count(*) > 0 FROM record") == "(1,)"


def test_any_number_of_files_is_asked_for_by_one_statement(connections: list[sqlite3.Connection], database: Database) -> None:
    """Python keeps 128 statements; one for each number of files took up to 17 MB in a burst."""
    asked: list[str] = []
    connections[0].set_trace_callback(lambda sql: asked.append(re.sub(r"'\[.*\]'", "?", sql)))  # it comes with its values
    for count in range(1, 40):
        database.known([(f"{number}.png", Stamp(1, 2, 3, 4)) for number in range(count)], with_ctime=True)
    assert (len(asked), len(set(asked))) == (39, 1)


def test_a_touched_file_is_known_by_its_new_stamp(database: Database) -> None:
    database.insert(PendingCommit([(make_record(path="a"), make_arrival("a"))]))
    new = make_arrival("a", mtime_ns=77)
    database.insert(PendingCommit(restamped=[(1, new)]))
    assert database.known([("a", stamp_of(new))], with_ctime=True)["a"].record_id == 1
    last = database.last_at("a")
    assert last is not None
    assert last.id == 1
    assert database.last_at("b") is None


def test_records_come_by_id_and_by_time(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "PAGE_ROWS", 3)
    times = [NOON + timedelta(hours=hour) for hour in (0, 1, 2, 3, 4, 5, 6)]
    database.insert(PendingCommit([(make_record(finished_at=time), make_arrival()) for time in times]))

    def ids(**limits: object) -> list[int | None]:
        return [record.id for record in database.records(**limits)]

    assert ids() == [1, 2, 3, 4, 5, 6, 7]
    assert ids(after_id=5) == [6, 7]
    assert ids(since=times[2]) == [3, 4, 5, 6, 7]
    assert ids(until=times[2]) == [1, 2]
    assert ids(since=times[1], until=times[3]) == [2, 3]
    assert ids(since=times[6] + timedelta(seconds=1)) == []


def test_totals(database: Database) -> None:
    duplicate = make_record(decision="negative", duplicate_of=1)
    rejected = make_record(status="rejected", decision=None)
    database.insert(PendingCommit([(each, make_arrival()) for each in (make_record(), duplicate, rejected)]))
    database.insert(PendingCommit(settlements=[Settlement(1, None, None, disposed=True)]))
    totals = database.totals()
    assert totals.by_status == {"done": 2, "rejected": 1}
    assert totals.by_decision == {"review": 1, "negative": 1}
    assert (totals.duplicates, totals.undisposed) == (1, 2)


def test_an_id_is_never_used_twice(database: Database, path: Path) -> None:
    database.insert(PendingCommit([(make_record(), make_arrival())]))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("DELETE FROM record")
    assert database.insert(PendingCommit([(make_record(), make_arrival())])) == [2]


class TestAttempts:
    """What is in hand, and who is to blame when the process dies."""

    def test_a_record_ends_the_attempt(self, database: Database) -> None:
        a, b = make_arrival("a"), make_arrival("b")
        database.insert(PendingCommit(attempts=[a, b]))
        database.insert(PendingCommit([(make_record(path="a"), a)]))
        assert database.blame(crashed=True) == [Attempt("b", 10, 20, 1, 0)]

    def test_a_path_may_end_and_begin_in_one_transaction(self, database: Database) -> None:
        a = make_arrival("a")
        database.insert(PendingCommit(attempts=[a]))
        database.insert(PendingCommit([(make_record(path="a"), a)], attempts=[a]))
        assert [attempt.path for attempt in database.blame(crashed=False)] == ["a"]

    def test_crashes_and_deaths_add_up_and_are_counted_once(self, database: Database) -> None:
        a = make_arrival("a")
        for crashed in (True, False, True):
            database.insert(PendingCommit(attempts=[a]))
            database.blame(crashed=crashed)
            database.blame(crashed=crashed)
        assert database.blame(crashed=True) == [Attempt("a", 10, 20, 2, 1)]

    def test_an_attempt_that_ended_is_blamed_for_nothing(self, database: Database) -> None:
        a, b = make_arrival("a"), make_arrival("b")
        database.insert(PendingCommit(attempts=[a]))
        database.blame(crashed=True)
        database.insert(PendingCommit(attempts=[a, b]))
        database.insert(PendingCommit(ended=["a", "b"]))
        assert database.blame(crashed=True) == [Attempt("a", 10, 20, 1, 0)], "what was counted before stays"

    def test_a_stop_ends_them_all(self, database: Database) -> None:
        a, b = make_arrival("a"), make_arrival("b")
        database.insert(PendingCommit(attempts=[a]))
        database.blame(crashed=False)
        database.insert(PendingCommit(attempts=[a, b]))
        database.insert(PendingCommit(ends_all_attempts=True))
        assert database.blame(crashed=True) == [Attempt("a", 10, 20, 0, 1)]

    def test_a_fault_of_ours_in_between_is_nobodys(self, database: Database) -> None:
        database.insert(PendingCommit(attempts=[make_arrival("a")]))
        assert database.blame(crashed=None) == []
        assert database.blame(crashed=True) == []

    def test_another_file_of_that_name_begins_anew(self, database: Database) -> None:
        database.insert(PendingCommit(attempts=[make_arrival("a")]))
        database.blame(crashed=True)
        database.insert(PendingCommit(attempts=[make_arrival("a", mtime_ns=21)]))
        assert database.blame(crashed=False) == [Attempt("a", 10, 21, 0, 1)]

    def test_names_that_are_not_utf_8(self, database: Database) -> None:
        arrival = make_arrival(b"\xff.png".decode("utf-8", "surrogateescape"))
        database.insert(PendingCommit(attempts=[arrival]))
        assert [attempt.path for attempt in database.blame(crashed=True)] == ["\\xff.png"]
        database.insert(PendingCommit([(make_record(path="\\xff.png"), arrival)]))
        assert database.blame(crashed=True) == []


def test_events_are_kept_newest_first_and_not_for_ever(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    assert database.events(10) == []
    before = datetime.now(UTC)
    database.insert(PendingCommit(events=[("one", "the first"), ("two", "the second")]))
    newest, oldest = database.events(10)
    assert (newest.code, newest.message, oldest.code) == ("two", "the second", "one")
    assert before <= newest.at <= datetime.now(UTC)
    monkeypatch.setattr(events_module, "KEPT_EVENTS", 3)
    for number in range(5):
        database.insert(PendingCommit(events=[(f"{number}", "")]))
    assert [event.code for event in database.events(10)] == ["4", "3", "2"]
    assert [event.code for event in database.events(2)] == ["4", "3"]


class TestMigrations:
    """Databases that an earlier version wrote."""

    @pytest.fixture
    def old(self, path: Path) -> list[dict[str, object]]:
        """A database as the first version wrote it, with its SQL, and its rows."""
        schema = MIGRATIONS / "0001.sql"
        arrivals = [make_arrival("a"), make_arrival("b", inode=41), make_arrival("c/\udcff.png", inode=42)]
        records = [
            make_record(path="a"),
            make_record(path="b", duplicate_of=1),
            make_record(path="c/\\xff.png", status="rejected", model=None),
        ]
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(f"BEGIN IMMEDIATE;\n{schema.read_text('utf-8')}\nPRAGMA user_version = 1;\nCOMMIT;")
            for record, arrival in zip(records, arrivals, strict=True):
                row = row_from_record(record, arrival)
                marks = ", ".join("?" * len(row))
                connection.execute(f"INSERT INTO record ({', '.join((*RECORD_COLUMNS[1:], *FILE_COLUMNS))}) VALUES ({marks})", row)  # noqa: S608
            connection.execute("INSERT INTO note VALUES ('agent', '{}')")
        return contents(path)

    def test_an_old_one_is_upgraded_with_everything_in_it(self, path: Path, old: list[dict[str, object]]) -> None:
        with Reader(path) as reader:
            assert (len(list(reader.records())), reader.events(9)) == (3, []), "a reader reads it as it is"
        with Database(path) as database:
            assert asked(path, "PRAGMA user_version") == [(SCHEMA_VERSION,)]
            assert asked(path, "PRAGMA integrity_check") == [("ok",)]
            assert database.note("agent") == "{}"
            assert contents(path) == old
            assert database.insert(
                PendingCommit([(make_record(path="d"), make_arrival("d"))], attempts=[make_arrival("e")], events=[("x", "y")])
            ) == [4]
        Database(path).close()

    def test_it_is_then_what_a_new_one_is(self, path: Path, old: list[dict[str, object]], tmp_path: Path) -> None:
        new = tmp_path / "new.db"
        for each in (path, new):
            Database(each).close()
        schema = "SELECT type, name, sql FROM sqlite_schema ORDER BY name"
        assert asked(path, schema) == asked(new, schema)

    @pytest.mark.parametrize("statement", range(1, 5))
    def test_one_that_fails_half_way_leaves_the_old_version(
        self, path: Path, old: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, statement: int
    ) -> None:
        parts = (MIGRATIONS / "0002.sql").read_text("utf-8").split(";\n")
        broken = tmp_path / "migrations"
        broken.mkdir()
        shutil.copy(MIGRATIONS / "0001.sql", broken)
        (broken / "0002.sql").write_text(";\n".join([*parts[:statement], "CREATE TABLE record (x)", *parts[statement:]]))
        monkeypatch.setattr(schema_module, "MIGRATIONS", broken)
        with pytest.raises(StorageError, match="already exists"):
            Database(path)
        assert contents(path) == old
        assert asked(path, "PRAGMA user_version") == [(1,)]
        assert asked(path, "SELECT count(*) FROM sqlite_schema WHERE name IN ('attempt', 'event', 'day')") == [(0,)]
        monkeypatch.undo()
        Database(path).close()
        assert contents(path) == old

    def test_there_is_a_step_to_every_version(self) -> None:
        assert sorted(step.name for step in MIGRATIONS.iterdir()) == [f"{number:04}.sql" for number in range(1, SCHEMA_VERSION + 1)]

    def test_a_newer_one_is_refused(self, path: Path) -> None:
        Database(path).close()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA user_version = 99")
        for opening in (Database, Reader):
            with pytest.raises(StorageError, match=rf"newer edge-agent \(schema 99; this one knows {SCHEMA_VERSION}\)") as caught:
                opening(path)
            assert not caught.value.passes


def asked(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def contents(path: Path) -> list[dict[str, object]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM record ORDER BY id")]


def test_somebody_elses_database_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE mine (x)")
    for opening in (Database, Reader):
        with pytest.raises(StorageError, match="not a database of edge-agent"):
            opening(path)


def test_a_damaged_file_is_named_with_the_next_step(path: Path) -> None:
    path.write_bytes(b"no database at all, but long enough to look like one" * 100)
    with pytest.raises(StorageError, match=r"damaged .*builds a new one by itself"):
        Database(path)


def test_a_missing_database_is_no_agent(path: Path) -> None:
    with pytest.raises(StorageError, match="no agent has run"):
        Reader(path)


def test_a_folder_that_is_not_there_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot open"):
        Database(tmp_path / "absent" / "edge-agent.db")


def test_a_full_disk_is_told_from_other_faults_and_loses_nothing(connections: list[sqlite3.Connection], database: Database) -> None:
    [connection] = connections
    database.insert(PendingCommit([(make_record(), make_arrival())]))
    connection.execute("PRAGMA max_page_count = 1")  # which SQLite takes as: no more than there are
    big = make_record(reason=Reason("x", "y" * 100_000))
    with pytest.raises(DiskFullError, match="free some space"):
        database.insert(PendingCommit([(big, make_arrival())]))
    assert [record.id for record in database.records()] == [1]
    connection.execute("PRAGMA max_page_count = 1000000")
    assert database.insert(PendingCommit([(big, make_arrival())])) == [2]


def test_a_database_that_another_program_holds_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "LOCK_WAIT_S", 0.01)
    with Database(path) as database, closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="another program holds it locked"):
            database.insert(PendingCommit([(make_record(), make_arrival())]))


def test_every_field_of_a_record_has_its_column() -> None:
    stored = set(RECORD_COLUMNS)
    for field in make_record().__struct_fields__:
        assert any(column == field or column.startswith((f"{field}_", f"{field.removesuffix('_ms')}_")) for column in stored) or (
            field == "timing_ms" and {f"{stage}_ms" for stage in Timing.__struct_fields__} <= stored
        ), field
