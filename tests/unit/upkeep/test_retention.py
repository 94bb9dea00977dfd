"""What is deleted, when, and what never is. Time is what the test says; files and database are real."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from support.agents import arrival_of, image_bytes, make_record
from support.connections import collect_connections

from edge_agent.agent.ledger import Ledger
from edge_agent.config import RetentionConfig
from edge_agent.database import old_records as expiry_module
from edge_agent.database.database import DATABASE_NAME, Database
from edge_agent.database.old_records import CALENDAR_NOTE
from edge_agent.database.pending_commit import PendingCommit, Settlement
from edge_agent.files.names import fit_name
from edge_agent.outbox.disposal import Disposal, OnDone
from edge_agent.outbox.results import Mark, ResultFiles
from edge_agent.records import Record
from edge_agent.upkeep import retention as retention_module
from edge_agent.upkeep.rebuild import rebuild_results
from edge_agent.upkeep.retention import RETENTION_NOTE, Retention, Trimmed, read_trimmed

START = datetime(2026, 7, 1, 12, tzinfo=UTC)
OFF = RetentionConfig(done_max_age_days=0, rejected_max_age_days=0, results_max_age_days=0)
ALL_30 = RetentionConfig(done_max_age_days=30, rejected_max_age_days=30, results_max_age_days=30, rows_max_age_days=30)


class Place:
    """A home whose images come and grow old as a test says."""

    def __init__(self, home: Path, on_done: OnDone = "move") -> None:
        self.home = home
        self.inbox = home / "inbox"
        for name in ("inbox", "done", "rejected", "results", "state"):
            (home / name).mkdir(parents=True)
        self.database_path = home / "state" / DATABASE_NAME
        self.database = Database(self.database_path)
        self.results = ResultFiles(home / "results")
        self.disposal = Disposal(self.inbox, home, on_done)
        self.events: list[tuple[str, str]] = []
        self.rewritten = 0
        self.retention: Retention | None = None
        self.seed = 0
        self.day = 0.0

    def image(self, path: str, day: float = 0, *, content: bytes = b"", **changes: object) -> Record:
        """Let an image arrive, be recorded, and leave the inbox."""
        self.look(day)
        self.seed += 1
        file = self.inbox / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content or image_bytes(self.seed))
        os.utime(file, ns=(self.seed, self.seed))
        arrival = arrival_of(self.inbox, path)
        [record_id] = self.database.insert(
            PendingCommit([(make_record(path=path, finished_at=START + timedelta(days=day), **changes), arrival)])
        )
        record = self.database.record(record_id)
        outcome = self.disposal.dispose(record, arrival)
        self.database.insert(PendingCommit(settlements=[Settlement(record_id, None, None, disposed=outcome != "refused")]))
        self.results.append([record])
        return record

    def look(self, day: float, config: RetentionConfig = OFF) -> None:
        """Let the agent look at the clock, and delete all that it wants to."""
        if self.retention is None or self.config != config:
            self.retention = self.started(config)
        self.day = day
        self.retention.step((START + timedelta(days=day)).timestamp())
        deadline_s = time.monotonic() + 120
        while self.retention.is_working:
            assert time.monotonic() < deadline_s
            self.retention.step((START + timedelta(days=day)).timestamp())
            time.sleep(0.001)

    def started(self, config: RetentionConfig) -> Retention:
        self.config = config

        def tell(code: str, message: str) -> None:
            self.events.append((code, message))

        def rewritten() -> None:
            self.rewritten += 1

        return Retention(self.home, self.inbox, config, self.database, self.results, tell, rewritten)

    def after(self, days: float, config: RetentionConfig) -> None:
        """Let days pass, then delete."""
        while self.day + 20 < days:
            self.look(self.day + 20)
        self.look(days, config)

    def files(self, folder: str) -> set[str]:
        root = self.home / folder
        return {path.relative_to(root).as_posix() for path in root.rglob("*") if not path.is_dir()}

    def folders(self, folder: str) -> set[str]:
        root = self.home / folder
        return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir()}

    def ids(self) -> list[int | None]:
        return [record.id for record in self.database.records()]

    def line_ids(self) -> list[int | None]:
        lines = (self.home / "results" / "predictions.jsonl").read_bytes().splitlines()
        return [msgspec.json.decode(line, type=Record).id for line in lines]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """In memory where the machine has such a folder: each of these many commits would wait for the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path, prefix="edge-agent-") as name:
        yield Path(name)


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass follows the other at once."""
    monkeypatch.setattr(retention_module, "REST_S", 0.0)


@pytest.fixture
def place(folder: Path) -> Iterator[Place]:
    place = Place(folder / "home")
    yield place
    place.database.close()


def test_nothing_is_deleted_without_a_limit(place: Place) -> None:
    place.image("a.png")
    place.image("b.png", status="rejected")
    place.look(20, OFF)
    place.look(50, OFF)
    assert place.files("done") == {"a.png"}
    assert place.files("rejected") == {"b.png", "b.png.reason.txt"}
    assert len(place.files("results")) == 4
    assert place.ids() == [1, 2]


def test_everything_goes_after_its_days_and_not_before(place: Place) -> None:
    place.image("sub/old.png", 0)
    place.image("sub/bad.png", 0, status="rejected", model=None, decision=None)
    place.image("new.png", 15)
    place.look(29, ALL_30)
    assert place.files("done") == {"sub/old.png", "new.png"}
    place.look(30.5, ALL_30)
    place.look(31, ALL_30)
    assert place.files("done") == {"new.png"}
    assert place.folders("done") == set(), "a folder that has become empty goes too"
    assert place.files("rejected") == set()
    assert place.files("results") == {"new.png.json", "predictions-2026-07-16.csv", "predictions.jsonl"}
    assert place.line_ids() == [3]
    assert place.ids() == [3]
    assert place.rewritten == 1


def test_each_thing_has_its_own_limit(place: Place) -> None:
    place.image("a.png")
    place.image("b.png", status="rejected")
    place.image("c.png", 9)
    place.after(12, msgspec.structs.replace(OFF, rejected_max_age_days=10))
    assert (place.files("done"), place.files("rejected")) == ({"a.png", "c.png"}, set())
    place.look(12, msgspec.structs.replace(OFF, done_max_age_days=10))
    assert place.files("done") == {"c.png"}
    assert len(place.files("results")) == 6
    place.look(12, msgspec.structs.replace(OFF, results_max_age_days=10))
    assert place.files("results") == {"c.png.json", "predictions-2026-07-10.csv", "predictions.jsonl"}
    assert place.ids() == [1, 2, 3]


@pytest.mark.parametrize("jump", [365, -365, 36_500])
def test_a_clock_that_jumps_deletes_nothing_and_says_so(place: Place, jump: int) -> None:
    for number in range(5):
        place.image(f"{number}.png", number)
    for day in range(5, 12):
        place.look(day + jump, ALL_30)
    assert len(place.files("done")) == 5
    assert place.ids() == [1, 2, 3, 4, 5]
    assert [code for code, _ in place.events] == ["clock_jumped"]
    assert f"days {'ahead of' if jump > 0 else 'behind'}" in place.events[0][1]
    place.retention = None  # started again, with the clock still wrong
    place.look(12 + jump, ALL_30)
    assert place.ids() == [1, 2, 3, 4, 5]


def test_time_that_passes_by_a_wrong_clock_counts(place: Place) -> None:
    place.image("a.png")
    for day in range(1, 33):
        place.look(365 + day, ALL_30)
    assert place.files("done") == set()


class TestNever:
    """What is never deleted, however old."""

    def test_a_file_without_a_record(self, place: Place) -> None:
        place.image("a.png")
        (place.home / "done" / "mine.png").write_bytes(b"x")
        (place.home / "rejected" / "mine.reason.txt").write_text("my own words")
        place.after(40, ALL_30)
        assert place.files("done") == {"mine.png"}
        assert place.files("rejected") == {"mine.reason.txt"}

    def test_a_file_that_is_not_the_recorded_one(self, place: Place) -> None:
        place.image("a.png")
        (place.home / "done" / "a.png").write_bytes(b"edited")
        place.image("b.png", status="rejected")
        (place.home / "rejected" / "b.png.reason.txt").write_text("b.png is all right after all")
        place.after(40, ALL_30)
        assert place.files("done") == {"a.png"}
        assert place.files("rejected") == {"b.png.reason.txt"}

    def test_a_sidecar_of_another_record(self, place: Place) -> None:
        place.image("a.png")
        (place.home / "results" / "a.png.json").write_text('{"id": 77}')
        place.after(40, ALL_30)
        assert "a.png.json" in place.files("results")

    def test_a_file_in_the_inbox_and_its_row(self, folder: Path) -> None:
        place = Place(folder / "keeping", on_done="keep")
        place.image("a.png")
        place.image("b.png", status="rejected")
        place.after(20, OFF)
        place.image("c.png", 39)
        (place.inbox / "b.png").unlink()
        place.after(40, ALL_30)
        assert place.files("inbox") == {"a.png", "c.png"}
        assert place.ids() == [1, 3], "a file that stays in the inbox needs its record: it would be classified again"
        assert place.files("rejected") == set(), "the note goes, also without its image"
        place.database.close()

    def test_what_has_not_left_the_inbox_yet(self, place: Place) -> None:
        place.image("a.png")
        place.image("b.png")
        place.database.insert(PendingCommit(settlements=[Settlement(1, None, None, disposed=False)]))
        place.after(40, ALL_30)
        assert place.files("done") == {"a.png"}
        assert place.ids() == [1, 2], "1 is not done with, 2 is the newest"
        assert read_trimmed(place.database).done == 0, "the next start tries it again"
        place.database.insert(PendingCommit(settlements=[Settlement(1, None, None, disposed=True)]))
        place.retention = None
        place.look(40, ALL_30)
        assert place.files("done") == set()

    def test_the_newest_row_and_one_that_is_repeated(self, place: Place) -> None:
        for number, day in enumerate((0, 1, 2, 20)):
            place.image(f"{number}.png", day, duplicate_of=1 if number in (1, 3) else None)
        place.after(35, ALL_30)
        assert place.ids() == [1, 4], "4 repeats 1"
        place.after(60, ALL_30)
        assert place.ids() == [1, 4], "4 is the newest"
        place.image("5.png", 60)
        place.look(61, ALL_30)
        assert place.ids() == [5]

    def test_a_row_whose_file_is_still_there(self, place: Place) -> None:
        place.image("a.png")
        place.image("b.png")
        place.image("c.png")
        place.after(5, msgspec.structs.replace(OFF, done_max_age_days=1))
        (place.home / "done" / "a.png").write_bytes(b"put back by hand")
        os.utime(place.home / "done" / "a.png", ns=(1, 1))
        with closing(sqlite3.connect(place.database_path, isolation_level=None)) as other:
            other.execute("UPDATE record SET size_bytes = 16 WHERE id = 1")
        place.after(40, ALL_30)
        assert place.ids() == [1, 3]


def test_names_that_clash_and_folders_in_the_way_are_found(place: Place) -> None:
    long = "n" * 251 + ".png"
    for path in ("a.png", "x", "x/y.png", long):
        place.image(path)
    for path in ("a.png", "x/y.png", long):
        place.image(path, 20)
    before = place.files("done")
    kept = {"a-5.png", "x-folder/y-6.png", fit_name(long, tag="-7")}
    assert before == {"a.png", "x", "x-folder/y.png", long, *kept}
    place.after(31, ALL_30)
    assert place.files("done") == kept
    sidecars = {"a-5.png.json", "x/y-6.png.json", fit_name(long, ".json", "-7")}
    assert place.files("results") == {*sidecars, "predictions-2026-07-21.csv", "predictions.jsonl"}


def test_an_old_record_does_not_take_a_new_image_of_its_name(place: Place) -> None:
    place.image("a.png")
    (place.home / "done" / "a.png").unlink()
    place.image("a.png", 20)
    place.after(31, ALL_30)
    assert place.files("done") == {"a.png"}


def test_names_that_are_not_utf_8(place: Place) -> None:
    name = os.fsdecode(b"\xff.png")
    file = place.inbox / name
    file.write_bytes(image_bytes(1))
    arrival = arrival_of(place.inbox, name)
    place.look(0)
    place.database.insert(PendingCommit([(make_record(path="\\xff.png", finished_at=START), arrival)]))
    place.disposal.dispose(place.database.record(1), arrival)
    place.database.insert(PendingCommit(settlements=[Settlement(1, None, None, disposed=True)]))
    assert place.files("done") == {name}
    place.after(31, ALL_30)
    assert place.files("done") == set()


class TestSize:
    """``done_max_bytes``."""

    def limit(self, images: float) -> RetentionConfig:
        return msgspec.structs.replace(OFF, done_max_bytes=int(images * 1000 / 0.95))

    def test_the_oldest_go_first_and_today_stays(self, place: Place) -> None:
        for number in range(6):
            place.image(f"{number}.png", number, content=b"x" * 1000)
        place.look(6, self.limit(4))
        assert place.files("done") == {"2.png", "3.png", "4.png", "5.png"}
        place.look(6, self.limit(0.5))
        assert place.files("done") == set()
        place.image("today.png", 6, content=b"x" * 1000)
        place.look(6, self.limit(0.5))
        assert place.files("done") == {"today.png"}

    def test_a_folder_below_its_limit_is_not_looked_through_again(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        looked: list[Path] = []
        real = retention_module.folder_bytes

        def counted(root: Path) -> int:
            looked.append(root)
            return real(root)

        monkeypatch.setattr(retention_module, "folder_bytes", counted)
        place.retention = place.started(self.limit(4))
        for number in range(4):
            place.look(number, self.limit(4))
            self.without_look(place, f"{number}.png", number)
        assert len(looked) == 1
        self.without_look(place, "5.png", 5)
        place.look(5, self.limit(4))
        assert len(looked) == 3, "too much: looked through before and after"
        assert "0.png" not in place.files("done")

    def without_look(self, place: Place, path: str, day: float) -> None:
        held, place.look = place.look, lambda *_: None  # type: ignore[method-assign]
        place.image(path, day, content=b"x" * 1000)
        place.look = held  # type: ignore[method-assign]

    def test_what_is_not_ours_counts_but_stays(self, place: Place) -> None:
        (place.home / "done" / "archive.zip").write_bytes(b"x" * 10_000)
        place.image("a.png", 0)
        place.look(2, self.limit(4))
        assert place.files("done") == {"archive.zip"}


class TestJsonLines:
    """``predictions.jsonl`` is written anew only where at least half of it is old."""

    def test_no_line_is_copied_before_half_is_old(self, place: Place) -> None:
        for number in range(10):
            place.image(f"{number}.png", number)
        size_bytes = (place.home / "results" / "predictions.jsonl").stat().st_size
        for day in range(10, 14):
            place.look(day, msgspec.structs.replace(OFF, results_max_age_days=10))
        assert read_trimmed(place.database).results == 3
        assert (place.home / "results" / "predictions.jsonl").stat().st_size == size_bytes
        for day in range(14, 18):
            place.look(day, msgspec.structs.replace(OFF, results_max_age_days=10))
        assert place.line_ids() == [7, 8, 9, 10]
        assert place.rewritten == 1

    @pytest.mark.parametrize("floor", [0, 4, 6, 7, 9, 10, 11])
    def test_exactly_the_old_lines_go(self, place: Place, floor: int) -> None:
        for number in range(10):
            place.image(f"{number}.png", reason=None if number % 3 else make_record().reason)
        list(place.results.trim(floor))
        left = place.line_ids()
        assert left == list(range(floor + 1, 11)) or (left == list(range(1, 11)) and floor <= 6)

    def test_what_is_written_meanwhile_is_kept(self, place: Place) -> None:
        for number in range(10):
            place.image(f"{number}.png")
        steps = place.results.trim(6, copy_bytes=500)
        for number in range(3):
            next(steps)
            place.image(f"later-{number}.png")
        list(steps)
        assert place.line_ids() == [7, 8, 9, 10, 11, 12, 13]
        assert place.results.mark() == Mark(13, (place.home / "results" / "predictions.jsonl").stat().st_size)

    def test_a_file_that_somebody_moved_away_meanwhile_is_left_alone(self, place: Place) -> None:
        for number in range(10):
            place.image(f"{number}.png")
        steps = place.results.trim(6)
        next(steps)
        (place.home / "results" / "predictions.jsonl").rename(place.home / "rotated.jsonl")
        place.image("next.png")
        list(steps)
        assert place.line_ids() == [11]

    def test_an_edited_file_is_left_alone(self, place: Place) -> None:
        for number in range(10):
            place.image(f"{number}.png")
        path = place.home / "results" / "predictions.jsonl"
        path.write_bytes(path.read_bytes().replace(b'"id"', b'"ID"'))
        before = path.read_bytes()
        list(place.results.trim(9))
        assert path.read_bytes() == before

    def test_stopping_half_way_leaves_the_file_whole(self, place: Place) -> None:
        for number in range(10):
            place.image(f"{number}.png")
        steps = place.results.trim(6)
        next(steps)
        steps.close()
        assert place.line_ids() == list(range(1, 11))
        assert not [name for name in place.files("results") if name.endswith(".tmp")]


class TestAfterACrash:
    """What was deleted does not come back, and what should be deleted goes, whatever the last run came to."""

    def old_and_new(self, place: Place) -> Mark:
        for number in range(10):
            place.image(f"{number}.png", number)
        return place.results.mark()

    def test_healing_and_rebuilding_leave_out_what_is_gone(self, place: Place) -> None:
        self.old_and_new(place)
        place.after(17, msgspec.structs.replace(OFF, results_max_age_days=10))
        kept = place.files("results")
        assert place.line_ids() == [8, 9, 10]
        for file in place.files("results"):
            (place.home / "results" / file).unlink()
        place.database.close()
        assert rebuild_results(place.home) == 3
        assert place.files("results") == kept
        assert place.line_ids() == [8, 9, 10]
        place.database = Database(place.database_path)

    def test_between_the_new_json_lines_and_their_mark(self, place: Place) -> None:
        mark = self.old_and_new(place)
        place.after(17, msgspec.structs.replace(OFF, results_max_age_days=10))
        kept = place.files("results")
        # The database still has the mark of the longer file.
        floor_id = read_trimmed(place.database).results_floor
        assert ResultFiles(place.home / "results").heal(place.database, mark, floor_id) == 3
        assert (place.line_ids(), place.files("results")) == ([8, 9, 10], kept)

    def test_between_the_note_and_the_deletion(self, place: Place) -> None:
        mark = self.old_and_new(place)
        place.database.insert(PendingCommit(notes={RETENTION_NOTE: msgspec.json.encode(Trimmed(results_floor=7)).decode()}))
        assert ResultFiles(place.home / "results").heal(place.database, mark, 7) == 0
        place.after(17, msgspec.structs.replace(OFF, results_max_age_days=10))
        assert place.line_ids() == [8, 9, 10]
        assert "0.png.json" not in place.files("results")

    def test_all_results_are_old(self, place: Place) -> None:
        self.old_and_new(place)
        place.after(100, msgspec.structs.replace(OFF, results_max_age_days=10))
        assert place.files("results") == {"predictions.jsonl"}
        mark = place.results.mark()
        assert mark.jsonl_bytes == 0
        files = ResultFiles(place.home / "results")
        assert files.heal(place.database, mark, read_trimmed(place.database).results_floor) == 0
        assert files.mark() == mark


def test_a_file_that_cannot_be_deleted_holds_up_no_other(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == "0.png":
            raise PermissionError(13, "not yours")
        real(path, missing_ok)

    for number in range(3):
        place.image(f"{number}.png")
    monkeypatch.setattr(Path, "unlink", unlink)
    place.after(31, msgspec.structs.replace(OFF, done_max_age_days=30))
    assert place.files("done") == {"0.png"}
    monkeypatch.undo()
    place.retention = None
    place.look(32, msgspec.structs.replace(OFF, done_max_age_days=30))
    assert place.files("done") == set()


def test_many_old_records_go_in_small_batches(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry_module, "BATCH_RECORDS", 3)
    for number in range(11):
        place.image(f"{number}.png")
    deleted: list[int] = []
    real = retention_module.delete_records

    def counted(database: Database, record_ids: set[int]) -> int:
        deleted.append(len(record_ids))
        return real(database, record_ids)

    monkeypatch.setattr(retention_module, "delete_records", counted)
    place.after(40, ALL_30)
    assert place.ids() == [11]
    assert place.files("done") == set()
    assert deleted == [3, 3, 3, 2]


def test_deleting_a_row_does_not_read_the_whole_table(place: Place) -> None:
    with closing(sqlite3.connect(place.database_path)) as other:
        plan = other.execute("EXPLAIN QUERY PLAN SELECT 1 FROM record AS later WHERE later.duplicate_of = 1").fetchone()
    assert "record_duplicate_of" in plan[3]


def test_with_nothing_to_do_a_step_is_a_look_at_the_clock(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connections = collect_connections(monkeypatch)
    place = Place(folder / "home")
    place.image("a.png")
    monkeypatch.setattr(retention_module, "REST_S", 3600.0)
    place.look(1, ALL_30)
    statements: list[str] = []
    connections[0].set_trace_callback(statements.append)
    for second in range(100):
        place.retention.step((START + timedelta(days=1, seconds=second)).timestamp())
    assert statements == []
    place.database.close()


def test_an_agent_that_is_never_quiet_deletes_all_the_same(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.image("a.png")
    for day in range(40):
        place.look(day)
    place.retention = place.started(ALL_30)
    now_s = (START + timedelta(days=40)).timestamp()
    for _ in range(10):
        place.retention.step(now_s, quiet=False)
        time.sleep(0.01)
    assert "a.png" in place.files("done")
    monkeypatch.setattr(retention_module, "BUSY_LIMIT_S", 0.0)
    deadline_s = time.monotonic() + 120
    while "a.png" in place.files("done"):
        assert time.monotonic() < deadline_s
        place.retention.step(now_s, quiet=False)
        time.sleep(0.01)


def test_the_ledger_retains_and_takes_over_the_new_mark(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(10):
        place.image(f"{number}.png", number)
    calendar = place.database.note(CALENDAR_NOTE)
    assert calendar is not None
    place.database.close()
    monkeypatch.setattr(time, "time", lambda: (START + timedelta(days=26)).timestamp())
    ledger = Ledger(place.home, place.inbox, "move")
    ledger.recover()
    deadline_s = time.monotonic() + 120
    while len(place.line_ids()) == 10 or "0.png" in place.files("done"):
        assert time.monotonic() < deadline_s
        ledger.retain(RetentionConfig(done_max_age_days=20, results_max_age_days=20), quiet=True)
    ledger.close(sync_timeout_s=10)
    place.database = Database(place.database_path)
    note = place.database.note("results_synced")
    assert note is not None
    mark = msgspec.json.decode(note, type=Mark)
    assert mark == Mark(10, (place.home / "results" / "predictions.jsonl").stat().st_size)
    assert ResultFiles(place.home / "results").heal(place.database, mark, 6) == 0
    assert place.files("done") == {f"{number}.png" for number in range(6, 10)}
