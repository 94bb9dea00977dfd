"""What tells one state of a file from another."""

from __future__ import annotations

from support.agents import make_arrival

from edge_agent.files.stamp import Stamp


def test_a_stamp_is_that_of_its_arrival() -> None:
    assert Stamp.of_arrival(make_arrival(size_bytes=1, mtime_ns=2, ctime_ns=3, inode=4)) == Stamp(1, 2, 3, 4)
