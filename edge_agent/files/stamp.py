"""The parts of ``lstat`` that tell one state of a file from another."""

from __future__ import annotations

import os
from typing import Literal, NamedTuple

from edge_agent.records import Arrival, Record

Order = Literal["newest", "oldest"]
"""Which of the files that have settled is taken first, by modification time."""


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

    def arrival(self, record: Record, path: str) -> Arrival:
        """Give the file of a record, with this stamp, at a path of the inbox. When it settled is not known any more: 0."""
        return Arrival(source=record.source, path=path, received_at=record.received_at, settled_ns=0, **self._asdict())

    def same_content(self, other: Stamp) -> bool:
        """Tell whether nobody wrote in between. The ctime is left out: a new owner or permission leaves the image what it was."""
        return (self.inode, self.size_bytes, self.mtime_ns) == (other.inode, other.size_bytes, other.mtime_ns)

    def rank(self, order: Order) -> int:
        """Give the number by which files are ordered: the smallest is taken first."""
        return -self.mtime_ns if order == "newest" else self.mtime_ns
