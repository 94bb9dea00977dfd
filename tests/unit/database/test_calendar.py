"""Days that really passed: whatever the clock of the box does, nothing grows old by it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.agents import make_arrival, make_record

from edge_agent.database.calendar import BELIEVED_S, DAY_S, Calendar
from edge_agent.database.database import Database
from edge_agent.database.old_records import keep_calendar, last_id_before
from edge_agent.database.pending_commit import PendingCommit

START = datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()
YEAR_S = 365 * DAY_S


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "edge-agent.db") as database:
        yield database


def days_after(*looks: float) -> float:
    """Days counted from the first of some looks at the clock (in days after START) to the last."""
    calendar = Calendar.begin(START + looks[0] * DAY_S)
    begin_s = calendar.passed_s
    for look in looks[1:]:
        calendar = calendar.look(START + look * DAY_S)
    return round((calendar.passed_s - begin_s) / DAY_S, 3)


def test_a_clock_that_is_right_is_believed() -> None:
    assert days_after(0, 0.5, 1, 3, 33) == 33, "switched off for a month"


def test_a_jump_of_a_year_ahead_counts_nothing_and_time_goes_on() -> None:
    assert days_after(0, 1, 366, 367, 368) == 3
    assert days_after(0, 1, 366, 367, 3) == 3, "set right again: what passed meanwhile is known"


def test_a_jump_of_a_year_back_counts_nothing_and_time_goes_on() -> None:
    assert days_after(0, 1, -364, -363, -362) == 3
    assert days_after(0, 1, -364, -363, 4) == 4


def test_a_box_without_a_clock_battery_ages_as_the_network_says() -> None:
    boots = itertools.chain.from_iterable((-20_000, -20_000 + 0.01, day, day + 0.4) for day in range(1, 100))
    assert days_after(0, 0.4, *boots) == 99.4


def test_a_first_look_at_a_wrong_clock_is_got_over() -> None:
    before_the_time_was_set = datetime(1970, 1, 1, tzinfo=UTC)
    offset = (before_the_time_was_set.timestamp() - START) / DAY_S
    assert days_after(offset, offset + 0.01, 0, 1, 2) == 2.01
    # After a week the new time is the right one, so that a box that is off for two weeks counts them.
    assert days_after(offset, offset + 0.01, *range(10), 24) == 24.01


def test_a_jump_by_less_than_a_month_costs_that_much_once() -> None:
    forth_and_back = [day + (20 if day % 2 else 0) for day in range(1, 41)]
    assert days_after(0, *forth_and_back) <= 40 + 20


@given(st.lists(st.floats(min_value=-100_000, max_value=100_000), min_size=1, max_size=50))
def test_time_never_goes_back_and_no_look_counts_more_than_a_month(clock: list[float]) -> None:
    calendar = Calendar.begin(START)
    for day in clock:
        looked = calendar.look(START + day * DAY_S)
        assert 0 <= looked.passed_s - calendar.passed_s <= BELIEVED_S + 1
        calendar = looked


def enter(database: Database, *days: float) -> None:
    times = [datetime.fromtimestamp(START, UTC) + timedelta(days=day) for day in days]
    database.insert(PendingCommit([(make_record(finished_at=time), make_arrival()) for time in times]))


def test_a_record_is_as_old_as_the_days_since(database: Database) -> None:
    calendar = None
    for day in range(10):
        calendar = keep_calendar(database, START + day * DAY_S, calendar)
        enter(database, day)
    assert calendar is not None
    assert last_id_before(database, calendar.day) == 9
    assert last_id_before(database, calendar.day - 4) == 5
    assert last_id_before(database, calendar.day - 100) == 0
    assert last_id_before(database, calendar.day + 100) == 9


def test_the_calendar_goes_on_after_a_start(database: Database) -> None:
    calendar = keep_calendar(database, START)
    enter(database, 0)
    calendar = keep_calendar(database, START + 2 * DAY_S, calendar)
    again = keep_calendar(database, START + 3 * DAY_S)
    assert again.day == calendar.day + 1
    assert last_id_before(database, again.day) == 1
    # A start with a clock that is a year ahead.
    assert keep_calendar(database, START + YEAR_S).day == again.day


def test_days_without_records_are_days(database: Database) -> None:
    calendar = keep_calendar(database, START)
    enter(database, 0)
    for day in range(1, 400, 20):
        calendar = keep_calendar(database, START + day * DAY_S, calendar)
    assert last_id_before(database, calendar.day - 365) == 1
    assert last_id_before(database, calendar.day - 381) == 0


def test_an_old_database_gets_its_calendar_from_its_records(database: Database) -> None:
    enter(database, *range(10))
    calendar = keep_calendar(database, START + 9 * DAY_S)
    assert last_id_before(database, calendar.day - 4) == 5


def test_records_of_a_wrong_clock_are_not_taken_for_old_ones(database: Database) -> None:
    enter(database, 0, 1, -20_000, -20_000.5, 2, 400, 401, 3, 4)  # 1970, then a year ahead, then right again
    calendar = keep_calendar(database, START + 5 * DAY_S)
    assert last_id_before(database, calendar.day - 30) == 0
    assert last_id_before(database, calendar.day) == 9


def test_a_day_is_written_once(database: Database, tmp_path: Path) -> None:
    import sqlite3

    calendar = keep_calendar(database, START)
    with closing(sqlite3.connect(tmp_path / "edge-agent.db")) as other:
        before = other.execute("PRAGMA data_version").fetchone()
        for second in range(100):
            calendar = keep_calendar(database, START + second, calendar)
        assert other.execute("PRAGMA data_version").fetchone() == before
        keep_calendar(database, START + DAY_S, calendar)
        assert other.execute("PRAGMA data_version").fetchone() != before
