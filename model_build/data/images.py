"""The images of a build: classes chosen, copies and unreadable files left out, pixels prepared."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ConfigError, InputFault
from edge_agent.imaging.decode import decode_image
from edge_agent.imaging.preprocess import InputContract, prepare_input
from model_build.config import SourceConfig
from model_build.data.example import Example, Split
from model_build.data.layouts.reading import list_examples

SAME_BYTES = "the same bytes as another image"
NO_CLASS = "none of its labels is a class of this build"
_ALL_OTHERS = "*"


@dataclass(frozen=True)
class LabelledFile:
    """One image on disk: its path below the data folder, its class index, its patient, its bytes' SHA-256, the data set's own split."""

    path: Path
    label: int
    patient: str
    sha256: str
    split: Split | None = None


@dataclass(frozen=True)
class LeftOut:
    """A file that the build does not use, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class ImageSet:
    """Decoded images with their labels.

    ``pixels`` is uint8, shape (images, rows, columns, 1), prepared by :func:`edge_agent.imaging.preprocess.prepare_input`; ``labels`` is
    int64, shape (images,), an index into the config's labels; ``files`` is in the same order. ``fingerprint`` is the SHA-256 over every
    kept file's digest and label.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    files: list[LabelledFile]
    left_out: list[LeftOut]
    fingerprint: str

    def left_out_counts(self) -> dict[str, int]:
        """How many files were left out for which reason, most frequent first. File names may hold patients, so none is named."""
        return dict(Counter(entry.reason for entry in self.left_out).most_common())


def choose_class(example: Example, source: SourceConfig) -> int | None:
    """The class of an example as an index into ``source.labels``; None where ``source.leave_out`` leaves no class.

    Raises
    ------
    ConfigError
        If one of its labels is unknown to the config, or if it has two classes.
    """
    names = list(dict.fromkeys(source.merge.get(label, label) for label in example.labels))
    classes = [name for name in names if name in source.labels]
    unknown = [name for name in names if name not in classes and name not in source.leave_out]
    if unknown and _ALL_OTHERS not in source.leave_out:
        raise ConfigError(
            f"{example.origin}: the label {unknown[0]!r} is none of source.labels {source.labels};"
            " correct it, or name it in source.merge or source.leave_out"
        )
    if len(classes) > 1:
        raise ConfigError(
            f"{example.origin}: the image is {' and '.join(map(repr, classes))} at once, and task 'binary' needs one;"
            " merge the two, or leave one out by source.leave_out"
        )
    return source.labels.index(classes[0]) if classes else None


def read_images(
    root: Path, source: SourceConfig, contract: InputContract, on_progress: Callable[[int, int], None] = lambda done, total: None
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
    examples = list_examples(root, source.layout, labels=source.labels, patient_pattern=source.patient_pattern, table=source.table)
    candidates, left_out = _candidates(root, examples, source)
    kept: list[LabelledFile] = []
    pixels = np.empty((len(candidates), contract.rows, contract.columns, 1), np.uint8)
    first_by_digest: dict[str, LabelledFile] = {}
    for done, (example, label) in enumerate(candidates, start=1):
        try:
            content = (root / example.path).read_bytes()
        except OSError as fault:
            left_out.append(LeftOut(example.path, f"The file can not be read from the disk: {fault.strerror}."))
            continue
        entry = LabelledFile(example.path, label, example.patient, hashlib.sha256(content).hexdigest(), example.split)
        first = first_by_digest.get(entry.sha256)
        if first is not None and first.label != label:
            raise ConfigError(f"{root}: {first.path} and {entry.path} are the same image under two labels; remove the wrong one")
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
    digest = hashlib.sha256("".join(f"{entry.sha256} {entry.label}\n" for entry in kept).encode()).hexdigest()
    return ImageSet(pixels[: len(kept)], np.array([entry.label for entry in kept], np.int64), kept, left_out, digest)


def _candidates(root: Path, examples: Sequence[Example], source: SourceConfig) -> tuple[list[tuple[Example, int]], list[LeftOut]]:
    candidates, left_out = [], []
    for example in examples:
        label = choose_class(example, source)
        if label is None:
            left_out.append(LeftOut(example.path, NO_CLASS))
        else:
            candidates.append((example, label))
    present = {label for _, label in candidates}
    for index, name in enumerate(source.labels):
        if index not in present:
            found = ", ".join(sorted({label for example in examples for label in example.labels}))
            raise ConfigError(f"{root}: no image has the label {name!r} of source.labels; the labels there are: {found}")
    return candidates, left_out


def _check_classes(root: Path, kept: Sequence[LabelledFile], source: SourceConfig) -> None:
    for index, name in enumerate(source.labels):
        patients = {entry.patient for entry in kept if entry.label == index}
        where = root / name if source.layout == "folders" else root
        if not patients:
            raise ConfigError(f"{where}: no image of the class {name!r} can be read")
        if len(patients) == 1:
            first = next(entry.path for entry in kept if entry.label == index)
            raise ConfigError(
                f"{where}: all images of the class {name!r} ({first} is the first) belong to one patient;"
                " at least 2 are needed to hold one out, so add images of others"
            )
