"""The frozen values that rooms exchange. Database, JSON lines, CSV and sidecars use the same field names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from edge_agent.array_types import UInt8Array

Status = Literal["done", "rejected"]
Decision = Literal["positive", "negative", "review"]
Task = Literal["binary", "multiclass", "multilabel"]
"""What a model answers: one question with yes or no; which one of several classes; yes or no for each of several findings."""

NO_FINDING = "No Finding"
"""``label`` of a multilabel record without a finding."""


def probability_text(probability: float) -> str:
    """Write one of several probabilities for people: two decimals, three below 0.1, because rare findings have low limits."""
    return f"{probability:.2f}" if probability >= 0.1 else f"{probability:.3f}"


class Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Why a record is not a plain result: a rejection, a review, a duplicate.

    ``code`` is for programs and stable; ``message`` is for the technician and names the next step. Neither holds a full path.
    """

    code: str
    message: str


class ModelIdentity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which model spoke. ``digest`` is the SHA-256 of the bundle's manifest, which holds the SHA-256 of every other file."""

    name: str
    version: str
    digest: str


class Timing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Durations of one image in milliseconds, by the monotonic clock; null where the stage did not run.

    ``queue`` runs from the end of the settle time to the first byte read, ``commit`` is the durable database commit that the image
    shared with its group, ``total`` runs from the end of the settle time to the end of the commit.
    """

    queue: float | None = None
    decode: float | None = None
    preprocess: float | None = None
    invoke: float | None = None
    head: float | None = None
    commit: float | None = None
    total: float | None = None


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One arrival and what became of it: the prediction record.

    ``id`` is the database's row number, null before it is stored (and in ``predict``, which stores nothing). ``path`` is relative to the
    inbox, with forward slashes. ``scores`` holds a calibrated probability per label. ``label`` is the class at the bundle's operating
    point. Of a multilabel model, ``findings`` are the labels at or above their operating points, in the bundle's order, and ``label`` is
    the one that lies farthest above, or ``NO_FINDING``; other models leave ``findings`` empty. ``novelty`` is the distance from the
    training images in units of the bundle's limit: above 1 the image is unlike them. ``duplicate_of`` is the ``id`` of the first record of
    the same bytes.
    """

    id: int | None = None
    source: str
    path: str
    sha256: str
    received_at: datetime
    finished_at: datetime
    status: Status
    reason: Reason | None = None
    model: ModelIdentity | None = None
    scores: dict[str, float] = {}
    label: str | None = None
    findings: list[str] = []
    decision: Decision | None = None
    novelty: float | None = None
    quality: list[str] = []
    duplicate_of: int | None = None
    timing_ms: Timing = Timing()


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """A file that has stood still for the settle time and waits to be read.

    ``path`` is relative to the inbox, with forward slashes. The four ``stat`` values are those seen when it settled; ``settled_ns`` is the
    monotonic clock then.
    """

    source: str
    path: str
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    received_at: datetime
    settled_ns: int


@dataclass(frozen=True)
class Frame:
    """A decoded image: grey, as the eye would see it (bone bright).

    ``pixels`` is uint8, shape (rows, columns), possibly decoded at reduced size; ``rows`` and ``columns`` are the file's own.
    ``file_format`` is what the content is ("JPEG", "PNG", "DICOM", ...), not what the name says.
    """

    pixels: UInt8Array
    rows: int
    columns: int
    file_format: str


@dataclass(frozen=True)
class Verdict:
    """The outcome of one inference, before it becomes a :class:`Record`. Durations in milliseconds."""

    scores: dict[str, float]
    label: str
    findings: list[str]
    decision: Decision
    reason: Reason | None
    novelty: float
    quality: list[str]
    preprocess_ms: float
    invoke_ms: float
    head_ms: float
