"""The images of a build: classes chosen, copies and unreadable files left out, pixels prepared."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ConfigError, InputFault
from edge_agent.imaging.decode import decode_image
from edge_agent.imaging.preprocess import InputContract, prepare_input
from edge_agent.records import Task
from model_build.config import SourceConfig
from model_build.data.classes import choose_classes, strata_of, targets_of
from model_build.data.example import Example, Split
from model_build.data.layouts.reading import list_source

SAME_BYTES = "the same bytes as another image"
NO_CLASS = "none of its labels is a class of this build"


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


class Pixels(Protocol):
    """Prepared images, uint8, shape (images, rows, columns, 1): an array, or a store on disk that reads only what is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(images, rows, columns, 1)."""

    def __len__(self) -> int:
        """The number of images."""

    def __getitem__(self, index: int | slice | NDArray[np.int64] | NDArray[np.bool_], /) -> NDArray[np.uint8]:
        """One image, uint8, shape (rows, columns, 1), or those that a slice, indices or flags choose, shape (chosen, rows, columns, 1)."""


@dataclass(frozen=True)
class ImageSet:
    """Decoded images with their labels.

    ``pixels`` is uint8, shape (images, rows, columns, 1), prepared by :func:`edge_agent.imaging.preprocess.prepare_input`; ``targets`` is
    bool, shape (images, labels), in the order of the config's labels: one True in every row, for task multilabel any number; ``strata`` is
    int64, shape (images,), what splits and draws spread evenly (:func:`~model_build.data.classes.strata_of`); ``files`` is in the same
    order. ``fingerprint`` is the SHA-256 over every kept file's digest and labels.
    """

    pixels: Pixels
    targets: NDArray[np.bool_]
    strata: NDArray[np.int64]
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
) -> ImageSet:
    """List a data set in its layout and decode the images of the build's classes.

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

    Returns
    -------
    ImageSet
        Byte-identical files are kept once (the first in the layout's order), so that no copy stands on both sides of a split. A file that
        can not be read or decoded is left out.

    Raises
    ------
    ConfigError
        If the layout's reader finds a fault, a class has no readable image or one patient only, or the same bytes stand under two labels.
    """
    candidates, left_out = _candidates(root, list_source(root, source), source, task)
    kept: list[LabelledFile] = []
    pixels = np.empty((len(candidates), contract.rows, contract.columns, 1), np.uint8)
    first_by_digest: dict[str, LabelledFile] = {}
    for done, (example, classes) in enumerate(candidates, start=1):
        try:
            content = (root / example.path).read_bytes()
        except OSError as fault:
            left_out.append(LeftOut(example.path, f"The file can not be read from the disk: {fault.strerror}."))
            continue
        entry = labelled(example, classes, hashlib.sha256(content).hexdigest())
        first = first_by_digest.get(entry.sha256)
        if first is not None and first.labels != classes:
            raise ConfigError(
                f"{entry.origin}: {entry.path} is the same image as {first.path} ({first.origin}), but under other labels;"
                " remove the wrong one"
            )
        if first is not None:
            left_out.append(LeftOut(entry.path, SAME_BYTES))
            continue
        try:
            frame = decode_image(content, rows=contract.rows, columns=contract.columns)
        except InputFault as fault:
            left_out.append(LeftOut(entry.path, fault.message))
            continue
        pixels[len(kept)] = prepare_input(frame.pixels, contract)
        first_by_digest[entry.sha256] = entry
        kept.append(entry)
        on_progress(done, len(candidates))
    _check_classes(root, kept, source)
    targets = targets_of([entry.labels for entry in kept], len(source.labels))
    fingerprint = hashlib.sha256("".join(f"{entry.sha256} {','.join(map(str, entry.labels))}\n" for entry in kept).encode()).hexdigest()
    return ImageSet(pixels[: len(kept)], targets, strata_of(targets), kept, left_out, fingerprint)


def _candidates(
    root: Path, examples: Sequence[Example], source: SourceConfig, task: Task
) -> tuple[list[tuple[Example, tuple[int, ...]]], list[LeftOut]]:
    candidates, left_out = [], []
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


def _check_classes(root: Path, kept: Sequence[LabelledFile], source: SourceConfig) -> None:
    """Every label needs two patients with it and two without: one to train on, one to hold out."""
    for wanted, what in ((True, "of the class"), (False, "without the label")):
        for index, name in enumerate(source.labels):
            members = [entry for entry in kept if (index in entry.labels) is wanted]
            where = root / name if source.layout == "folders" else root
            if not members:
                raise ConfigError(f"{where}: no image {what} {name!r} can be read")
            if len({entry.patient for entry in members}) == 1:
                raise ConfigError(
                    f"{where}: all images {what} {name!r} ({members[0].path} is the first) belong to one patient;"
                    " at least 2 are needed to hold one out, so add images of others"
                )
