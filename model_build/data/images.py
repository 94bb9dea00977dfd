"""The images of a build: classes chosen, copies and unreadable files left out, pixels prepared."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import ConfigError, InputFault
from edge_agent.imaging.preprocess import InputContract
from edge_agent.records import Task
from model_build.array_types import BoolArray, Float64Array, Int64Array, UInt8Array
from model_build.config import SourceConfig
from model_build.data.classes import choose_classes, strata_of, targets_of
from model_build.data.example import Example, Split
from model_build.data.layouts.reading import list_source
from model_build.data.pixel_store import DiskStore, MemoryStore
from model_build.data.pixels import Pixels
from model_build.data.prepare import Prepared, prepare_file
from model_build.data.read_ahead import in_order

SAME_BYTES = "the same bytes as another image"
NO_CLASS = "none of its labels is a class of this build"
IN_MEMORY_BYTES = 256 * 1024**2

Candidate = tuple[Example, tuple[int, ...]]
"""An image that the build wants, and its classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledFile:
    """One image on disk.

    ``path`` is relative to the data folder; ``labels`` are its classes, ascending indices into the config's labels: one, or for task
    multilabel any number; ``sha256`` is that of its bytes; ``origin`` says where the data set lists it; ``split`` is the data set's own.
    """

    path: Path
    labels: tuple[int, ...]
    patient: str
    sha256: str
    origin: str = ""
    split: Split | None = None
    view: str | None = None
    age_years: int | None = None
    sex: str | None = None


def labelled(example: Example, labels: tuple[int, ...], sha256: str) -> LabelledFile:
    """What a build keeps of an example."""
    return LabelledFile(
        path=example.path,
        labels=labels,
        patient=example.patient,
        sha256=sha256,
        origin=example.origin,
        split=example.split,
        view=example.view,
        age_years=example.age_years,
        sex=example.sex,
    )


@dataclass(frozen=True)
class LeftOut:
    """A file that the build does not use, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class ImageSet:
    """Decoded images with their labels.

    ``pixels`` is uint8, shape (images, rows, columns, 1), prepared by :func:`edge_agent.imaging.preprocess.prepare_input`; ``targets`` is
    bool, shape (images, labels), in the order of the config's labels: one True in every row, for task multilabel any number; ``strata`` is
    int64, shape (images,), what splits and draws spread evenly (:func:`~model_build.data.classes.strata_of`). ``thumbnails``, uint8,
    shape (images, 32, 32), and ``properties``, float64, shape (images, 4), are those of :class:`~model_build.data.prepare.Prepared`;
    ``files`` is in the same order. ``fingerprint`` is the SHA-256 over every kept file's digest and labels.
    """

    pixels: Pixels
    targets: BoolArray
    strata: Int64Array
    thumbnails: UInt8Array
    properties: Float64Array
    files: list[LabelledFile]
    left_out: list[LeftOut]
    fingerprint: str

    def left_out_counts(self) -> dict[str, int]:
        """How many files were left out for which reason, most frequent first. File names may hold patients, so none is named."""
        return dict(Counter(entry.reason for entry in self.left_out).most_common())


def read_images(
    root: Path,
    source: SourceConfig,
    contract: InputContract,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    task: Task,
    cache: Path | None = None,
    in_memory_bytes: int = IN_MEMORY_BYTES,
) -> ImageSet:
    """List a data set in its layout and decode the images of the build's classes, on all cores.

    Parameters
    ----------
    root : Path
        The data folder.
    source : SourceConfig
        Layout, labels, and which labels are merged or left out.
    contract : InputContract
        The model's input size and rules.
    on_progress : callable, optional
        Called with the number of files read and their total.
    task : str
        How many classes an image has.
    cache : Path, optional
        A folder for the prepared pixels where they take more than ``in_memory_bytes``; the next build that names it decodes only files
        whose bytes it has not seen. Without it they are held in memory, however many.
    in_memory_bytes : int
        0 writes the cache for a small set too.

    Returns
    -------
    ImageSet
        Byte-identical files are kept once (the first in the layout's order), so that no copy stands on both sides of a split. A file that
        cannot be read or decoded is left out.

    Raises
    ------
    ConfigError
        If the layout's reader finds a fault, a class has no readable image or one patient only, or the same bytes stand under two labels.
    DiskFullError, StorageError
        If the cache cannot be written.
    """
    candidates, left_out = _candidates(root, list_source(root, source), source, task)
    store: MemoryStore | DiskStore
    if cache is None or len(candidates) * contract.rows * contract.columns <= in_memory_bytes:
        store = MemoryStore(len(candidates), contract)
    else:
        store = DiskStore(cache, len(candidates), contract)
    with store:
        kept, places = _take_in(root, candidates, contract, store, left_out, on_progress)
    _check_classes(root, candidates, kept, left_out, source)
    targets = targets_of([entry.labels for entry in kept], len(source.labels))
    return ImageSet(
        pixels=store.pixels(places),
        targets=targets,
        strata=strata_of(targets),
        thumbnails=store.thumbnails(places),
        properties=store.properties(places),
        files=kept,
        left_out=left_out,
        fingerprint=_fingerprint(kept),
    )


def _fingerprint(kept: Sequence[LabelledFile]) -> str:
    return hashlib.sha256("".join(f"{entry.sha256} {','.join(map(str, entry.labels))}\n" for entry in kept).encode()).hexdigest()


def _take_in(
    root: Path,
    candidates: Sequence[Candidate],
    contract: InputContract,
    store: MemoryStore | DiskStore,
    left_out: list[LeftOut],
    on_progress: Callable[[int, int], None],
) -> tuple[list[LabelledFile], list[int]]:
    """Put every distinct readable image into the store; returns the files kept and their places there, and adds to ``left_out``."""
    kept: list[LabelledFile] = []
    places: list[int] = []
    first_by_digest: dict[str, LabelledFile] = {}

    def read(candidate: Candidate) -> tuple[str, Prepared | int | str]:
        """The digest, and the image, or its place where the store has it, or why there is none."""
        try:
            content = (root / candidate[0].path).read_bytes()
        except OSError as fault:
            return "", f"The file cannot be read from the disk: {fault.strerror}."
        sha256 = hashlib.sha256(content).hexdigest()
        place = store.place_of(sha256)
        try:
            return sha256, prepare_file(content, contract) if place is None else place
        except InputFault as fault:
            return sha256, fault.message

    for done, ((example, classes), (sha256, outcome)) in enumerate(in_order(read, candidates), start=1):
        on_progress(done, len(candidates))
        if isinstance(outcome, str):
            left_out.append(LeftOut(example.path, outcome))
            continue
        entry = labelled(example, classes, sha256)
        first = first_by_digest.setdefault(sha256, entry)
        if first.labels != classes:
            raise ConfigError(
                f"{entry.origin}: {entry.path} is the same image as {first.path} ({first.origin}), but under other labels;"
                " remove the wrong one"
            )
        if first is not entry:
            left_out.append(LeftOut(entry.path, SAME_BYTES))
            continue
        kept.append(entry)
        places.append(outcome if isinstance(outcome, int) else store.add(sha256, outcome))
    return kept, places


def _candidates(root: Path, examples: Sequence[Example], source: SourceConfig, task: Task) -> tuple[list[Candidate], list[LeftOut]]:
    candidates: list[Candidate] = []
    left_out: list[LeftOut] = []
    for example in examples:
        classes = choose_classes(example, source, task)
        if classes is None:
            left_out.append(LeftOut(example.path, NO_CLASS))
        else:
            candidates.append((example, classes))
    present = {index for _, classes in candidates for index in classes}
    for index, name in enumerate(source.labels):
        if index not in present:
            found = ", ".join(sorted({label for example in examples for label in example.labels})) or "none"
            raise ConfigError(f"{root}: no image has the label {name!r} of source.labels; the labels there are: {found}")
    return candidates, left_out


def _check_classes(
    root: Path, candidates: Sequence[Candidate], kept: Sequence[LabelledFile], left_out: Sequence[LeftOut], source: SourceConfig
) -> None:
    """Every label needs two patients with it and two without: one to train on, one to hold out."""
    for wanted, what in ((True, "of the class"), (False, "without the label")):
        for index, name in enumerate(source.labels):
            where = root / name if source.layout == "folders" else root
            members = [entry for entry in kept if (index in entry.labels) is wanted]
            listed = [example for example, classes in candidates if (index in classes) is wanted]
            if not listed:
                raise ConfigError(f"{where}: every image has the label {name!r}, so that nothing tells it apart; add images without it")
            if not members:
                reason = next(entry.reason for entry in left_out if entry.path == listed[0].path)
                raise ConfigError(f"{where}: no image {what} {name!r} can be read; of the first, {listed[0].path}: {reason}")
            if len({entry.patient for entry in members}) == 1:
                raise ConfigError(
                    f"{where}: all images {what} {name!r} ({members[0].path} is the first) belong to one patient;"
                    " at least 2 are needed to hold one out, so add images of others"
                )
