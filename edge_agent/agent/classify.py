"""What is done with one arrival: read, recognise, decode, classify. Runs in a worker thread and changes nothing outside it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from edge_agent.config import Config
from edge_agent.errors import InputFault
from edge_agent.files.names import printable_path
from edge_agent.imaging.decode import decode_image
from edge_agent.imaging.preprocess import InputContract
from edge_agent.records import Arrival, Frame, ModelIdentity, Reason, Record, Timing, Verdict
from edge_agent.surfaces.log import place_of

_log = logging.getLogger(__name__)


class SupportsClassify(Protocol):
    """What a worker needs of :class:`edge_agent.inference.classifier.Classifier`."""

    @property
    def identity(self) -> ModelIdentity:
        """Which model it is."""

    @property
    def input(self) -> InputContract:
        """What the model expects as input."""

    def classify(self, frame: Frame) -> Verdict:
        """Classify one image."""


LoadClassifiers = Callable[[Config, int], Sequence[SupportsClassify]]
"""Makes the classifiers that a configuration asks for, one for each worker."""


def classify_content(
    arrival: Arrival, content: bytes, sha256: str, classifier: SupportsClassify, max_pixels: int, queue_ms: float | None = None
) -> Record:
    """Decode and classify the bytes of one file.

    Returns
    -------
    Record
        Also for a fault of the file: then it is "rejected", with the reason.

    Raises
    ------
    EdgeAgentError
        For a fault of our own side.
    """
    started_ns = time.monotonic_ns()
    try:
        frame = _decode(content, sha256, classifier.input, max_pixels)
    except InputFault as fault:
        return rejected_record(arrival, sha256, fault, Timing(queue=queue_ms, decode=since_ms(started_ns)))
    decode_ms = since_ms(started_ns)
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
    """Make the record of a file that cannot be classified; ``sha256`` is empty if the file was not read."""
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
    """Make the record of a file whose bytes were classified before: the result of the first, and a reason that says so."""
    said = f" It said: {first.reason.message}" if first.reason else ""
    return msgspec.structs.replace(
        first,
        id=None,
        source=arrival.source,
        path=printable_path(arrival.path),
        received_at=arrival.received_at,
        finished_at=datetime.now(UTC),
        reason=Reason("duplicate", f"The same image as record {first.id} ({first.path}), whose result is repeated here.{said}"),
        duplicate_of=first.id,
        timing_ms=timing,
    )


def since_ms(start_ns: int) -> float:
    """Give the time since a reading of the monotonic clock in nanoseconds, in ms, to the microsecond."""
    return round((time.monotonic_ns() - start_ns) / 1e6, 3)
