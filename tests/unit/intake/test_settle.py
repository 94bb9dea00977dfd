"""The settle time: by observation, not by a file's date."""

from __future__ import annotations

import random

import pytest

from edge_agent.files.stamp import Stamp
from edge_agent.intake import settle as settle_module
from edge_agent.intake.settle import ObservedClock, SettleTable

S = 1_000_000_000


def stamp(size: int = 1, mtime: int = 1, ctime: int = 1, inode: int = 1) -> Stamp:
    return Stamp(size, mtime, ctime, inode)


def test_a_file_is_due_when_it_has_stood_still_for_the_settle_time() -> None:
    table = SettleTable(1.0)
    table.observe("a", stamp(), 0)
    assert table.take_due(S - 1, 10) == []
    assert table.take_due(S, 10) == [("a", stamp())]
    assert len(table) == 0


def test_seeing_it_again_unchanged_does_not_start_its_time_again() -> None:
    table = SettleTable(1.0)
    table.observe("a", stamp(), 0)
    table.observe("a", stamp(), S - 1)
    assert [path for path, _ in table.take_due(S, 10)] == ["a"]


def test_a_change_of_size_date_or_inode_starts_its_time_again() -> None:
    for changed in (stamp(size=2), stamp(mtime=2), stamp(inode=2)):
        table = SettleTable(1.0)
        table.observe("a", stamp(), 0)
        table.observe("a", changed, S // 2)
        assert table.take_due(S, 10) == []
        assert table.take_due(S + S // 2, 10) == [("a", changed)]


def test_a_change_of_permissions_does_not() -> None:
    table = SettleTable(1.0)
    table.observe("a", stamp(ctime=1), 0)
    table.observe("a", stamp(ctime=2), S // 2)
    assert [path for path, _ in table.take_due(S, 10)] == ["a"]


@pytest.mark.parametrize(("order", "expected"), [("newest", ["b", "c", "a"]), ("oldest", ["a", "c", "b"])])
def test_the_date_decides_which_is_first_and_not_more_than_asked_for(order: settle_module.Order, expected: list[str]) -> None:
    table = SettleTable(1.0, order)
    for number, (name, mtime) in enumerate([("a", 10), ("b", 30), ("c", 20)]):
        table.observe(name, stamp(mtime=mtime), number)
    assert [path for path, _ in table.take_due(2 * S, 2)] == expected[:2]
    assert table.has_settled
    assert [path for path, _ in table.take_due(2 * S, 2)] == expected[2:]
    assert not table.has_settled


def test_of_one_date_the_name_decides() -> None:
    table = SettleTable(0.0)
    for name in ("c", "a", "b"):
        table.observe(name, stamp(), 0)
    assert [path for path, _ in table.take_due(0, 9)] == ["a", "b", "c"]


def test_a_new_file_does_not_wait_behind_the_old_ones() -> None:
    table = SettleTable(1.0)
    for number in range(1000):
        table.observe(f"old {number}", stamp(mtime=number), 0)
    assert len(table.take_due(S, 10)) == 10
    table.observe("new", stamp(mtime=5000), S)
    assert table.next_due_ns() == 2 * S
    assert table.take_due(2 * S, 1) == [("new", stamp(mtime=5000))]


def test_a_settled_file_that_changes_must_settle_again() -> None:
    table = SettleTable(1.0)
    table.observe("a", stamp(mtime=1), 0)
    table.observe("b", stamp(mtime=9), 0)
    assert table.take_due(S, 1) == [("b", stamp(mtime=9))]
    table.observe("a", stamp(size=2), S)
    assert table.take_due(S + 1, 10) == []
    assert table.take_due(2 * S, 10) == [("a", stamp(size=2))]


def test_a_settled_file_that_is_gone_is_forgotten() -> None:
    table = SettleTable(0.0)
    for name in ("a", "b"):
        table.observe(name, stamp(), 0)
    table.take_due(0, 1)
    table.forget("b")
    assert len(table) == 0
    assert table.take_due(1, 9) == []


def test_next_due_is_that_of_the_next_one_settling() -> None:
    table = SettleTable(1.0)
    table.observe("a", stamp(), 7)
    table.observe("b", stamp(), 8)
    table.observe("a", stamp(size=2), 9)
    assert table.next_due_ns() == S + 8
    table.take_due(2 * S, 9)
    assert table.next_due_ns() is None


@pytest.mark.parametrize(("order", "expected"), [("newest", ["9", "8", "7"]), ("oldest", ["0", "1", "2"])])
def test_a_full_table_keeps_what_comes_first_settled_or_not(order: settle_module.Order, expected: list[str]) -> None:
    table = SettleTable(1.0, order)
    for number in (4, 7, 0, 2, 8):
        table.observe(str(number), stamp(mtime=number), 0)
    assert table.take_due(S, 0) == []
    for number in (5, 9, 3, 1, 6):
        table.observe(str(number), stamp(mtime=number), S)
    assert table.keep_first(3) == 7
    assert table.keep_first(3) == 0
    assert [path for path, _ in table.take_due(2 * S, 9)] == expected


def test_nothing_is_left_behind_by_files_that_change_again_and_again() -> None:
    table = SettleTable(0.0, "oldest")
    table.observe("first", stamp(mtime=-1), 0)
    for number in range(5000):
        table.observe("growing", stamp(mtime=number), number)
        table.take_due(number, 0)
    assert len(table) == 2
    assert len(table._heap) < 2500
    assert [path for path, _ in table.take_due(9999, 9)] == ["first", "growing"]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_every_file_is_taken_in_its_last_state_or_was_dropped(seed: int) -> None:
    """
    1. Files come, change and vanish at random; the table is bounded now and then, and files are taken from it.
    Result: what was taken had stood still for the settle time in that very state; nothing else is missing but what was dropped.
    """
    chance = random.Random(seed)
    table = SettleTable(3e-9)
    seen: dict[str, tuple[Stamp, int]] = {}
    dropped = 0
    for now in range(2000):
        name = str(chance.randrange(40))
        match chance.randrange(8):
            case 0:
                table.forget(name)
                seen.pop(name, None)
            case 1:
                for path, taken in table.take_due(now, chance.randrange(5)):
                    state, since = seen.pop(path)
                    assert (taken, now - since >= 3) == (state, True)
            case 2:
                dropped += table.keep_first(20)
            case _:
                state = stamp(mtime=chance.randrange(-3, 3) * 10**17)
                if not table.holds(name, state):
                    seen[name] = (state, now)
                table.observe(name, state, now)
    assert dropped
    left = dict(table.take_due(9999, 9999))
    assert left.items() <= {path: state for path, (state, _) in seen.items()}.items()
    assert len(table) == 0


class TestObservedClock:
    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> tuple[ObservedClock, list[int]]:
        now = [100 * S]
        monkeypatch.setattr(settle_module.time, "monotonic_ns", lambda: now[0])
        return ObservedClock(0.5), now

    def test_it_runs_like_any_clock_while_it_is_looked_at(self, clock: tuple[ObservedClock, list[int]]) -> None:
        watched, now = clock
        before = watched.look_ns()
        for _ in range(10):
            now[0] += S // 2
            last = watched.look_ns()
        assert last - before == 5 * S
        assert watched.monotonic_s(last + S) == (now[0] + S) / S
        assert watched.next_look_s() == now[0] / S + 0.25

    def test_what_happened_while_nobody_looked_counts_little(self, clock: tuple[ObservedClock, list[int]]) -> None:
        """
        1. A file was seen; the program is stopped for an hour, and with it perhaps the one that writes the file.
        Result: half a second has passed for the file, and its settle time is not over.
        """
        watched, now = clock
        table = SettleTable(1.0)
        table.observe("a", stamp(), watched.look_ns())
        now[0] += 3600 * S
        assert table.take_due(watched.look_ns(), 1) == []
        due_ns = table.next_due_ns()
        assert due_ns is not None
        assert watched.monotonic_s(due_ns) == now[0] / S + 0.5
        now[0] += S // 2
        assert table.take_due(watched.look_ns(), 1) == [("a", stamp())]

    def test_a_busy_program_still_gets_on(self, clock: tuple[ObservedClock, list[int]]) -> None:
        watched, now = clock
        before = watched.look_ns()
        for _ in range(2):
            now[0] += 20 * S
            watched.look_ns()
        assert watched.look_ns() - before == S


def test_what_is_gone_is_forgotten() -> None:
    table = SettleTable(0.0)
    table.observe("a", stamp(), 0)
    table.forget("a")
    table.forget("never seen")
    assert table.take_due(S, 10) == []


def test_without_a_settle_time_a_file_is_due_at_once() -> None:
    table = SettleTable(0.0)
    table.observe("a", stamp(), 5)
    assert table.next_due_ns() == 5
    assert table.take_due(5, 10) == [("a", stamp())]
