"""When a file has stopped changing: the settle time, by observation and a monotonic clock, never by comparing clocks with a file's date."""

from __future__ import annotations

import os
from typing import NamedTuple

from edge_agent.records import Arrival


class Stamp(NamedTuple):
    """What tells one state of a file from another, without reading it: from ``lstat``."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of_stat(cls, stat: os.stat_result) -> Stamp:
        """Take the stamp from a ``stat`` result."""
        return cls(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)

    @classmethod
    def of_arrival(cls, arrival: Arrival) -> Stamp:
        """Take the stamp that a file had when it settled."""
        return cls(arrival.size_bytes, arrival.mtime_ns, arrival.ctime_ns, arrival.inode)

    def same_content(self, other: Stamp) -> bool:
        """Tell whether nobody wrote in between. The ctime is left out: a new owner or permission leaves the image what it was."""
        return (self.inode, self.size_bytes, self.mtime_ns) == (other.inode, other.size_bytes, other.mtime_ns)


class SettleTable:
    """The files that were seen and have not stood still for long enough yet.

    All wait for the same time, so the order in which they were last seen changing is the order in which they fall due: every operation
    costs the same however many wait.

    Parameters
    ----------
    settle_time_s : float
        How long size, modification time and inode must stand still, >= 0.
    """

    def __init__(self, settle_time_s: float) -> None:
        self._settle_ns = round(settle_time_s * 1e9)
        self._waiting: dict[str, tuple[Stamp, int]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def observe(self, path: str, stamp: Stamp, now_ns: int) -> None:
        """Note what a file looks like now; its time starts again where that is news.

        Parameters
        ----------
        path : str
            Relative to the inbox.
        stamp : Stamp
            From ``lstat``, taken not later than ``now_ns``.
        now_ns : int
            The monotonic clock; never less than in an earlier call.
        """
        seen = self._waiting.get(path)
        if seen is not None and seen[0].same_content(stamp):
            return
        self._waiting.pop(path, None)  # so that it goes to the end
        self._waiting[path] = (stamp, now_ns)

    def forget(self, path: str) -> None:
        """Drop a file that is gone."""
        self._waiting.pop(path, None)

    def take_due(self, now_ns: int, limit: int) -> list[tuple[str, Stamp]]:
        """Remove and return the files whose time has passed, oldest first, at most ``limit``.

        The caller must look at each once more: a change of which no event told is found only so.
        """
        due: list[tuple[str, Stamp]] = []
        for path, (stamp, since_ns) in self._waiting.items():
            if now_ns - since_ns < self._settle_ns or len(due) == limit:
                break
            due.append((path, stamp))
        for path, _ in due:
            del self._waiting[path]
        return due

    def next_due_ns(self) -> int | None:
        """The monotonic time at which the next file falls due; None where none waits."""
        for _, since_ns in self._waiting.values():
            return since_ns + self._settle_ns
        return None
