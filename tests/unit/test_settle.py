"""The settle time: by observation, not by a file's date."""

from __future__ import annotations

from support.agents import make_arrival

from edge_agent.intake.settle import SettleTable, Stamp

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


def test_oldest_first_and_not_more_than_asked_for() -> None:
    table = SettleTable(1.0)
    for number, name in enumerate("abc"):
        table.observe(name, stamp(), number)
    table.observe("a", stamp(size=2), 3)
    assert [path for path, _ in table.take_due(2 * S, 2)] == ["b", "c"]
    assert table.next_due_ns() == S + 3
    assert [path for path, _ in table.take_due(2 * S, 2)] == ["a"]
    assert table.next_due_ns() is None


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


def test_a_stamp_is_that_of_its_arrival() -> None:
    assert Stamp.of_arrival(make_arrival(size_bytes=1, mtime_ns=2, ctime_ns=3, inode=4)) == Stamp(1, 2, 3, 4)
