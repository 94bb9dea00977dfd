"""What the next commit writes: collected from all sides, then given to the database in one piece."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from edge_agent.records import Arrival, Record


class Settlement(NamedTuple):
    """What is known of a record only after its commit; written with the next transaction, so that it costs none of its own."""

    record_id: int
    commit_ms: float | None
    total_ms: float | None
    disposed: bool


@dataclass
class PendingCommit:
    """Everything that one transaction writes.

    Attributes
    ----------
    entries : list of (Record, Arrival)
        New records, each with the file it is about. A record ends the attempt at its path.
    settlements : list of Settlement
        What has become known of earlier records.
    restamped : list of (int, Arrival)
        Ids of records whose file stayed in the inbox with the same bytes and a new stamp.
    notes : dict
        Notes to set, by name.
    attempts : list of Arrival
        Files that workers get now.
    ended : list of str
        Paths (as an arrival has them) whose attempt ended without a record.
    ends_all_attempts : bool
        Whether every attempt that is still in hand has ended.
    events : list of (str, str)
        Code and message of what a person must learn of; they get the time of the commit.
    """

    entries: list[tuple[Record, Arrival]] = field(default_factory=list)
    settlements: list[Settlement] = field(default_factory=list)
    restamped: list[tuple[int, Arrival]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    attempts: list[Arrival] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    ends_all_attempts: bool = False
    events: list[tuple[str, str]] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether there is anything to write."""
        return self != PendingCommit()
