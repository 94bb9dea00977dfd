"""A worker of a session: reads one arrival, recognises it by its bytes, and has it classified. Changes nothing outside itself."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_agent.agent.classify import SupportsClassify, classify_content, duplicate_record, rejected_record, since_ms
from edge_agent.config import Config
from edge_agent.database.database import Reader
from edge_agent.errors import InputFault
from edge_agent.intake.reading import StillChangingError, read_arrival
from edge_agent.records import Arrival, Record, Timing

QUARANTINED = InputFault(
    "quarantined",
    "This file made the program break down again and again, so it was set aside and is not tried any more. Export the image again, as PNG "
    "or JPEG, and drop the new file; keep this one for whoever looks after the box.",
)


class Claims:
    """The images that workers have in hand, by SHA-256, so that two files with the same bytes are not classified at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claimed: set[str] = set()

    def claim(self, sha256: str) -> bool:
        """Claim an image; False if another worker has it."""
        with self._lock:
            if sha256 in self._claimed:
                return False
            self._claimed.add(sha256)
            return True

    def release(self, sha256: str) -> None:
        """Give a claim back. Only after the record is durable: the next claimant must find it in the database."""
        with self._lock:
            self._claimed.discard(sha256)

    def holds(self, sha256: str) -> bool:
        """Tell whether an image is claimed."""
        with self._lock:
            return sha256 in self._claimed


@dataclass(frozen=True)
class Job:
    """What a worker gets: an arrival to examine or, if it killed the program before, to set aside (``quarantine``) without decoding it."""

    arrival: Arrival
    quarantine: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a worker found.

    ``record``: there is a new record to store. ``twin``: another worker has the same bytes in hand; wait for its record. ``changed``: the
    file must settle again. ``gone``: there is no file any more. ``unchanged``: the file stays in the inbox ("keep") and was merely
    touched; ``record`` is the one it has.
    """

    kind: Literal["record", "twin", "changed", "gone", "unchanged"]
    arrival: Arrival
    record: Record | None = None
    sha256: str = ""
    has_claim: bool = False


class Worker:
    """Examines arrivals, one at a time, with a classifier and a database connection of its own.

    Parameters
    ----------
    config : Config
        Limits, and what becomes of finished images.
    inbox, database : Path
        Where the images and the records are.
    classifier : SupportsClassify
        Used by no other thread.
    claims : Claims
        Shared by all workers.
    """

    def __init__(self, config: Config, inbox: Path, database: Path, classifier: SupportsClassify, claims: Claims) -> None:
        self._config = config
        self._inbox = inbox
        self._reader = Reader(database)
        self._classifier = classifier
        self._claims = claims
        self.busy_since_s: float | None = None
        """The monotonic time at which the arrival in hand was taken; None while waiting."""

    def busy_s(self, now_s: float) -> float:
        """How long it has had one arrival in hand, in seconds; 0 while waiting. For any thread, at a time of the monotonic clock."""
        since_s = self.busy_since_s  # once: the worker may be done between two looks
        return 0.0 if since_s is None else now_s - since_s

    def close(self) -> None:
        """Close the database connection."""
        self._reader.close()

    def examine(self, job: Job) -> Outcome:
        """Examine one arrival.

        Returns
        -------
        Outcome
            A fault of the input is a record too.

        Raises
        ------
        EdgeAgentError
            For a fault of our own side. The image is untouched.
        """
        arrival = job.arrival
        queue_ms = since_ms(arrival.settled_ns)
        try:
            content = read_arrival(self._inbox, arrival, self._config.intake.max_file_bytes)
        except FileNotFoundError:
            return Outcome("gone", arrival)
        except StillChangingError:
            return Outcome("changed", arrival)
        except InputFault as fault:
            return Outcome("record", arrival, rejected_record(arrival, "", fault, Timing(queue=queue_ms)))
        sha256 = hashlib.sha256(content).hexdigest()
        if job.quarantine:
            return Outcome("record", arrival, rejected_record(arrival, sha256, QUARANTINED, Timing(queue=queue_ms)), sha256)
        if self._config.intake.on_done == "keep":
            last = self._reader.last_at(arrival.path)
            if last is not None and last.sha256 == sha256:
                return Outcome("unchanged", arrival, last)
        if not self._claims.claim(sha256):
            return Outcome("twin", arrival, sha256=sha256)
        # Claimed before the database is asked: a claim ends only after its record is durable, so one of the two always shows it.
        first = self._reader.first_of(sha256, self._classifier.identity.digest)
        if first is not None and first.status == "rejected":
            record = rejected_record(arrival, sha256, QUARANTINED, Timing(queue=queue_ms))
        elif first is not None:
            record = duplicate_record(arrival, first, Timing(queue=queue_ms))
        else:
            record = classify_content(arrival, content, sha256, self._classifier, self._config.imaging.max_pixels, queue_ms)
        return Outcome("record", arrival, record, sha256, has_claim=True)
