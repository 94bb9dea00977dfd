"""What is done with one arrival: read, recognise, decode, classify. Runs in a worker thread and changes nothing outside it."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol

from edge_agent.config import Config
from edge_agent.errors import InputFault
from edge_agent.imaging.decode import decode_image
from edge_agent.imaging.preprocess import InputContract
from edge_agent.intake.placing import printable_path
from edge_agent.intake.reading import StillChangingError, read_arrival
from edge_agent.records import Arrival, Frame, ModelIdentity, Reason, Record, Timing, Verdict
from edge_agent.store.database import Reader
from edge_agent.surfaces.log import place_of

_log = logging.getLogger(__name__)

QUARANTINED = InputFault(
    "quarantined",
    "This file made the program break down again and again, so it was set aside and is not tried any more. Export the image again, as PNG "
    "or JPEG, and drop the new file; keep this one for whoever looks after the box.",
)


class SupportsClassify(Protocol):
    """What a worker needs of :class:`edge_agent.inference.classifier.Classifier`."""

    @property
    def identity(self) -> ModelIdentity:
        """Which model speaks."""

    @property
    def input(self) -> InputContract:
        """What the model wants to see."""

    def classify(self, frame: Frame) -> Verdict:
        """Classify one image."""


class Claims:
    """Which images are in some worker's hands now, by SHA-256, so that two files with the same bytes are not classified side by side."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._claimed: set[str] = set()

    def claim(self, sha256: str) -> bool:
        """Claim an image; False where another worker has it."""
        with self._lock:
            if sha256 in self._claimed:
                return False
            self._claimed.add(sha256)
            return True

    def release(self, sha256: str) -> None:
        """Give a claim back. Only after the record is durable: who claims next must find it in the database."""
        with self._lock:
            self._claimed.discard(sha256)

    def holds(self, sha256: str) -> bool:
        """Tell whether an image is claimed."""
        with self._lock:
            return sha256 in self._claimed


@dataclass(frozen=True)
class Job:
    """What a worker is asked: to examine an arrival or, where it has killed the program before, to set it aside without decoding it."""

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
        queue_ms = _since_ms(arrival.settled_ns)
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
        # Claimed before the database is asked: a claim ends only after its record is durable, so one of the two always tells.
        first = self._reader.first_of(sha256, self._classifier.identity.digest)
        if first is not None and first.status == "rejected":
            record = rejected_record(arrival, sha256, QUARANTINED, Timing(queue=queue_ms))
        elif first is not None:
            record = duplicate_record(arrival, first, Timing(queue=queue_ms))
        else:
            record = classify_content(arrival, content, sha256, self._classifier, self._config.imaging.max_pixels, queue_ms)
        return Outcome("record", arrival, record, sha256, has_claim=True)


def classify_content(
    arrival: Arrival, content: bytes, sha256: str, classifier: SupportsClassify, max_pixels: int, queue_ms: float | None = None
) -> Record:
    """Decode and classify the bytes of one file.

    Returns
    -------
    Record
        Also where the file is to blame: then it is "rejected", with the reason.

    Raises
    ------
    EdgeAgentError
        For a fault of our own side.
    """
    started_ns = time.monotonic_ns()
    try:
        frame = _decode(content, sha256, classifier.input, max_pixels)
    except InputFault as fault:
        return rejected_record(arrival, sha256, fault, Timing(queue=queue_ms, decode=_since_ms(started_ns)))
    decode_ms = _since_ms(started_ns)
    verdict = classifier.classify(frame)
    return Record(
        source=arrival.source,
        path=printable_path(arrival.path),
        sha256=sha256,
        received_at=arrival.received_at,
        finished_at=datetime.now(UTC),
        status="done",
        reason=verdict.reason,
        model=classifier.identity,
        scores=verdict.scores,
        label=verdict.label,
        findings=verdict.findings,
        decision=verdict.decision,
        novelty=verdict.novelty,
        quality=verdict.quality,
        timing_ms=Timing(
            queue=queue_ms, decode=decode_ms, preprocess=verdict.preprocess_ms, invoke=verdict.invoke_ms, head=verdict.head_ms
        ),
    )


def _decode(content: bytes, sha256: str, wanted: InputContract, max_pixels: int) -> Frame:
    try:
        return decode_image(content, rows=wanted.rows, columns=wanted.columns, max_pixels=max_pixels)
    except InputFault:
        raise
    except Exception as error:
        # A codec that trips over one file must not stop all others.
        _log.warning("decoder_bug sha256=%.12s error=%s at=%s", sha256, type(error).__name__, place_of(error))
        raise InputFault(
            "unreadable", "This file could not be decoded. Export it again, as DICOM, PNG or JPEG, and drop the new file."
        ) from error


def rejected_record(arrival: Arrival, sha256: str, fault: InputFault, timing: Timing) -> Record:
    """Make the record of a file that can not be classified; ``sha256`` is empty where it was not read."""
    return Record(
        source=arrival.source,
        path=printable_path(arrival.path),
        sha256=sha256,
        received_at=arrival.received_at,
        finished_at=datetime.now(UTC),
        status="rejected",
        reason=Reason(fault.code, fault.message),
        timing_ms=timing,
    )


def duplicate_record(arrival: Arrival, first: Record, timing: Timing) -> Record:
    """Make the record of a file whose bytes have been classified before: the first one's result, and a reason that says so."""
    said = f" It said: {first.reason.message}" if first.reason else ""
    return Record(
        source=arrival.source,
        path=printable_path(arrival.path),
        sha256=first.sha256,
        received_at=arrival.received_at,
        finished_at=datetime.now(UTC),
        status=first.status,
        reason=Reason("duplicate", f"The same image as record {first.id} ({first.path}), whose result is repeated here.{said}"),
        model=first.model,
        scores=first.scores,
        label=first.label,
        findings=first.findings,
        decision=first.decision,
        novelty=first.novelty,
        quality=first.quality,
        duplicate_of=first.id,
        timing_ms=timing,
    )


def _since_ms(start_ns: int) -> float:
    return round((time.monotonic_ns() - start_ns) / 1e6, 3)
