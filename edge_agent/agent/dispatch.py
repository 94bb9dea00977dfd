"""Which arrival a worker gets next, and when outcomes are entered. It decides only: no threads, no clock, no input or output."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable

from edge_agent.agent.quarantine import Quarantine
from edge_agent.agent.worker import Claims, Job, Outcome
from edge_agent.records import Arrival

GROUP_SIZE = 32
"""The most outcomes that are committed together."""
IN_HAND_PER_WORKER = 32
"""Deep enough that no worker waits while a commit waits for the disk, shallow enough that memory stays flat."""


class Dispatch:
    """Orders the arrivals that are ready, counts those in hand, and collects outcomes until they are entered together.

    Every ``now_s`` is the caller's reading of the monotonic clock.

    Parameters
    ----------
    workers : int
        How many workers there are.
    quarantine : Quarantine
        Which files are tried alone or set aside.
    claims : Claims
        Which images the workers have in hand.
    group_s : float
        How long an outcome waits for others under load.

    Attributes
    ----------
    in_hand : int
        Jobs that were given to workers and have no outcome yet.
    """

    def __init__(self, workers: int, quarantine: Quarantine, claims: Claims, *, group_s: float) -> None:
        self._workers = workers
        self._limit = IN_HAND_PER_WORKER * workers
        self._quarantine = quarantine
        self._claims = claims
        self._group_s = group_s
        self._ready: deque[Arrival] = deque()
        self.in_hand = 0
        self._is_alone = False
        # Arrivals whose bytes a worker has in hand under another name, by SHA-256.
        self._twins: dict[str, list[Arrival]] = {}
        self._outcomes: list[Outcome] = []
        self._group_since_s = 0.0

    # Arrivals

    @property
    def waiting(self) -> int:
        """How many arrivals are ready or in hand."""
        return len(self._ready) + self.in_hand

    @property
    def has_ready(self) -> bool:
        """Whether arrivals wait to be tried."""
        return bool(self._ready)

    @property
    def wants_more(self) -> bool:
        """Whether there is room for more arrivals."""
        return len(self._ready) < self._limit

    def add(self, arrivals: Iterable[Arrival]) -> None:
        """Add arrivals that are ready to be tried."""
        self._ready.extend(arrivals)

    def may_pick(self, now_s: float) -> bool:
        """Whether arrivals may be given to the workers now.

        While outcomes wait for each other, so do the next arrivals: one commit then writes the outcomes and the next attempts.
        """
        if not self._ready or self.in_hand >= self._limit:
            return False
        if self.in_hand == 0:
            return True
        if self._is_alone or self._quarantine.treatment(self._ready[0]) != "as usual":
            return False
        return self.in_hand <= self._workers or self.is_group_due(now_s)

    def pick(self, now_s: float) -> list[Job]:
        """Take the arrivals that are tried next; report with :meth:`give` that the workers have them.

        An arrival that was in hand when the program died is tried alone.
        """
        if not self.may_pick(now_s):
            return []
        treatment = self._quarantine.treatment(self._ready[0])
        self._is_alone = treatment != "as usual"
        if self._is_alone:
            return [Job(self._ready.popleft(), quarantine=treatment == "quarantine")]
        jobs: list[Job] = []
        while self._ready and self.in_hand + len(jobs) < self._limit and self._quarantine.treatment(self._ready[0]) == "as usual":
            jobs.append(Job(self._ready.popleft()))
        return jobs

    def give(self, jobs: int) -> None:
        """Count jobs that the workers got."""
        self.in_hand += jobs

    def drop(self, jobs: int = 1) -> None:
        """Count jobs that end without an outcome."""
        self.in_hand -= jobs

    def stop(self) -> None:
        """Forget what is ready: it stays in the inbox for the next start."""
        self._ready.clear()

    # Outcomes

    def finish(self, outcome: Outcome, now_s: float) -> None:
        """Add what a worker found."""
        self.in_hand -= 1
        if not self._outcomes:
            self._group_since_s = now_s
        self._outcomes.append(outcome)

    @property
    def has_outcomes(self) -> bool:
        """Whether there are outcomes to enter."""
        return bool(self._outcomes)

    def is_group_due(self, now_s: float) -> bool:
        """Whether the outcomes must be entered now. Where every image has a worker, no outcome waits for another."""
        if self.in_hand <= self._workers:
            return bool(self._outcomes)
        return len(self._outcomes) >= GROUP_SIZE or now_s >= self._group_due_at_s()

    def wake_at_s(self, now_s: float, *, may_pick: bool) -> float:
        """The time from which there is something to do; infinite where only a worker or an arrival can bring it.

        ``may_pick`` says whether arrivals may be taken at all.
        """
        if self.is_group_due(now_s) or (may_pick and self.may_pick(now_s)):
            return now_s
        return self._group_due_at_s()

    def take_outcomes(self) -> list[Outcome]:
        """Take all outcomes, in the order in which they came. Twins among them wait for the record of their first copy."""
        outcomes, self._outcomes = self._outcomes, []
        for outcome in outcomes:
            self._quarantine.clear(outcome.arrival.path)
            if outcome.kind != "twin":
                continue
            if self._claims.holds(outcome.sha256):
                self._twins.setdefault(outcome.sha256, []).append(outcome.arrival)
            else:
                self._ready.appendleft(outcome.arrival)  # the other record has become durable since
        return outcomes

    def release(self, outcome: Outcome) -> None:
        """Release the claim of an outcome whose record is durable; its twins become ready.

        A worker looks at them again. It finds the record of their first copy, or tries anew where that one was rejected.
        """
        if outcome.has_claim:
            self._claims.release(outcome.sha256)
            self._ready.extendleft(self._twins.pop(outcome.sha256, ()))

    def _group_due_at_s(self) -> float:
        return self._group_since_s + self._group_s if self._outcomes else math.inf
