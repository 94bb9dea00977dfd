"""When a file has stopped changing: the settle time, by observation and a monotonic clock, never by comparing clocks with a file's date."""

from __future__ import annotations

import time
from heapq import heapify, heappop, heappush

from edge_agent.files.stamp import Order, Stamp

_STALE_ENTRIES = 1000


class ObservedClock:
    """A monotonic clock that counts only while somebody looks at it.

    A program that was held up (stopped, or starved by a busy disk) saw nothing meanwhile: whoever writes a file may have been held up
    just as long, and the file has not stood still, it was not looked at. Monotonic time itself stands still while the machine sleeps.

    Parameters
    ----------
    longest_gap_s : float
        The most that counts between two looks.
    """

    def __init__(self, longest_gap_s: float) -> None:
        self._longest_gap_ns = round(longest_gap_s * 1e9)
        self._looked_ns = time.monotonic_ns()
        self._missed_ns = 0

    def look_ns(self) -> int:
        """Look at the clock."""
        now_ns = time.monotonic_ns()
        self._missed_ns += max(0, now_ns - self._looked_ns - self._longest_gap_ns)
        self._looked_ns = now_ns
        return now_ns - self._missed_ns

    def monotonic_s(self, at_ns: int) -> float:
        """Tell when this clock will show a time, in seconds of ``time.monotonic``, if it is looked at often enough."""
        return (at_ns + self._missed_ns) / 1e9

    def next_look_s(self) -> float:
        """Tell when to look again so that nothing is missed, in seconds of ``time.monotonic``."""
        return (self._looked_ns + self._longest_gap_ns // 2) / 1e9


class SettleTable:
    """The files that were seen and not taken yet: those that must stand still for longer, and those that have.

    All settle for the same time, so the order in which they were last seen changing is the order in which they become due.

    Parameters
    ----------
    settle_time_s : float
        How long size, modification time and inode must stand still, >= 0.
    order : {"newest", "oldest"}
        Which of the settled files is taken first.
    """

    def __init__(self, settle_time_s: float, order: Order = "newest") -> None:
        self._settle_ns = round(settle_time_s * 1e9)
        self._order = order
        self._settling: dict[str, tuple[Stamp, int]] = {}
        self._settled: dict[str, Stamp] = {}
        # What was settled and changed, or was forgotten, stays in the heap until it comes to the top.
        self._heap: list[tuple[int, str, Stamp]] = []

    def __len__(self) -> int:
        return len(self._settling) + len(self._settled)

    def observe(self, path: str, stamp: Stamp, now_ns: int) -> None:
        """Note what a file looks like now; its time starts again if it changed.

        Parameters
        ----------
        path : str
            Relative to the inbox.
        stamp : Stamp
            From ``lstat``, taken not later than ``now_ns``.
        now_ns : int
            The clock; never less than in an earlier call.
        """
        settling = self._settling.get(path)
        seen = settling[0] if settling is not None else self._settled.get(path)
        if seen is not None:
            if seen.same_content(stamp):
                return
            self.forget(path)
        self._settling[path] = (stamp, now_ns)

    def holds(self, path: str, stamp: Stamp) -> bool:
        """Tell whether a file is here, and was seen with this content last."""
        settling = self._settling.get(path)
        seen = settling[0] if settling is not None else self._settled.get(path)
        return seen is not None and seen.same_content(stamp)

    def forget(self, path: str) -> None:
        """Drop a file that is gone."""
        if self._settling.pop(path, None) is None:
            self._settled.pop(path, None)

    def take_due(self, now_ns: int, limit: int) -> list[tuple[str, Stamp]]:
        """Remove and return files whose time has passed, at most ``limit``, first those that come first in the order.

        The caller must look at each once more: only this finds a change that no event reported.
        """
        self._move_settled(now_ns)
        due: list[tuple[str, Stamp]] = []
        while self._heap and len(due) < limit:
            _, path, stamp = heappop(self._heap)
            if self._settled.get(path) is stamp:
                del self._settled[path]
                due.append((path, stamp))
        return due

    def keep_first(self, limit: int) -> int:
        """Drop all but the ``limit`` files that come first in the order, settled or not; return how many were dropped."""
        excess = len(self) - limit
        if excess <= 0:
            return 0
        ranked = [(stamp.rank(self._order), path) for path, stamp in self._settled.items()]
        ranked += [(stamp.rank(self._order), path) for path, (stamp, _) in self._settling.items()]
        ranked.sort()
        for _, path in ranked[limit:]:
            self.forget(path)
        self._build_heap()
        return excess

    @property
    def has_settled(self) -> bool:
        """Whether a file waits whose time was over at the last look."""
        return bool(self._settled)

    def next_due_ns(self) -> int | None:
        """The time at which the next of the settling files is due; None where none is settling."""
        for _, since_ns in self._settling.values():
            return since_ns + self._settle_ns
        return None

    def _move_settled(self, now_ns: int) -> None:
        due: list[tuple[str, Stamp]] = []
        for path, (stamp, since_ns) in self._settling.items():
            if now_ns - since_ns < self._settle_ns:
                break
            due.append((path, stamp))
        for path, stamp in due:
            del self._settling[path]
            self._settled[path] = stamp
            heappush(self._heap, (stamp.rank(self._order), path, stamp))
        if len(self._heap) > 2 * len(self._settled) + _STALE_ENTRIES:
            self._build_heap()

    def _build_heap(self) -> None:
        self._heap = [(stamp.rank(self._order), path, stamp) for path, stamp in self._settled.items()]
        heapify(self._heap)
