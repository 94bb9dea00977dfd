"""The audit of a data set: what is in it, and what would make a model's figures lie."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.records import Task
from model_build.config import SourceConfig
from model_build.data.audit.pseudonyms import Pseudonyms
from model_build.data.audit.scan import Scan, scan_images
from model_build.data.audit.shortcuts import Shortcut, measure_shortcuts
from model_build.data.classes import choose_classes
from model_build.data.example import Example
from model_build.data.grouping import join_patients
from model_build.data.images import LabelledFile, labelled
from model_build.data.leakage import patients_on_several_sides
from model_build.data.similarity import near_identical_pairs
from model_build.data.split import cross_validation_folds, hold_out

NO_SPLIT = "all"
NO_LABEL = "no label"


class Cell(msgspec.Struct, frozen=True):
    """Readable images and patients of one class in one split."""

    images: int
    patients: int


class UnreadableFile(msgspec.Struct, frozen=True):
    """A file that cannot be decoded."""

    file: str
    reason: str


class SamePicture(msgspec.Struct, frozen=True, kw_only=True):
    """Files that show the same picture. ``correlation`` is 1 for the same bytes, else that of the two thumbnails."""

    files: list[str]
    labels: list[str]
    correlation: float
    across_patients: bool
    across_splits: bool


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """All findings; files and patients are hashed unless asked for by name. ``counts`` goes by split, then by label."""

    images: int
    patients: int
    patients_known: bool
    outside_the_build: int
    counts: dict[str, dict[str, Cell]]
    sizes: dict[str, int]
    modes: dict[str, int]
    unreadable: list[UnreadableFile]
    identical: list[SamePicture]
    near_identical: list[SamePicture]
    label_conflicts: list[SamePicture]
    patients_in_several_splits: list[str]
    shortcuts: list[Shortcut]


class _Naming:
    """How files and patients are called in this audit."""

    def __init__(self, pseudonyms: Pseudonyms | None) -> None:
        self._pseudonyms = pseudonyms

    def file(self, path: Path) -> str:
        return str(path) if self._pseudonyms is None else self._pseudonyms.file(path)

    def patient(self, name: str) -> str:
        return name if self._pseudonyms is None else self._pseudonyms.patient(name)


def audit_examples(
    root: Path,
    examples: Sequence[Example],
    *,
    source: SourceConfig | None = None,
    task: Task = "binary",
    seed: int = 0,
    patients_known: bool = True,
    pseudonyms: Pseudonyms | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Audit:
    """Audit a data set.

    Parameters
    ----------
    root : Path
        The data folder.
    examples : sequence of Example
        As the layout's reader lists them.
    source : SourceConfig, optional
        With it, labels become the build's classes, and the split is the one that training would use; without it, the data set's own.
    task, seed
        The build's, where there is a ``source``.
    patients_known : bool
        False where every file merely counts as a patient of its own.
    pseudonyms : Pseudonyms, optional
        Without it, files and patients are named.
    on_progress : callable, optional
        Called with the number of files read and their total.

    Returns
    -------
    Audit

    Raises
    ------
    ConfigError
        If a label is unknown to ``source``, or no split can be drawn.
    """
    naming = _Naming(pseudonyms)
    classes = _build_classes(examples, source, task)
    chosen = [example for example in examples if source is None or example.path in classes]
    scan = scan_images(root, chosen, on_progress)
    labels = [_names(image.example, classes, source) for image in scan.images]
    pairs, correlations = near_identical_pairs(scan.thumbnails)
    sides = _sides(scan, classes, source, seed, pairs.tolist())
    identical = _identical(scan, labels, sides, naming)
    near = [
        _group(scan, (first, second), round(correlation, 4), labels, sides, naming)
        for (first, second), correlation in zip(pairs.tolist(), correlations.tolist(), strict=True)
        if scan.images[first].sha256 != scan.images[second].sha256
    ]
    patients = [image.example.patient for image in scan.images]
    return Audit(
        images=len(scan.images),
        patients=len(set(patients)),
        patients_known=patients_known,
        outside_the_build=len(examples) - len(chosen),
        counts=_counts(scan, labels, sides),
        sizes=dict(Counter(f"{image.rows}x{image.columns}" for image in scan.images).most_common()),
        modes=dict(Counter(image.mode for image in scan.images).most_common()),
        unreadable=[UnreadableFile(naming.file(example.path), reason) for example, reason in scan.unreadable],
        identical=identical,
        near_identical=near,
        label_conflicts=[group for group in (*identical, *near) if len(group.labels) > 1],
        patients_in_several_splits=[naming.patient(name) for name in patients_on_several_sides(sides, patients)],
        shortcuts=_shortcuts(scan, labels),
    )


def _build_classes(examples: Sequence[Example], source: SourceConfig | None, task: Task) -> dict[Path, tuple[int, ...]]:
    """The classes of every example that the build would use, by its path; none without a build."""
    if source is None:
        return {}
    chosen = ((example.path, choose_classes(example, source, task)) for example in examples)
    return {path: classes for path, classes in chosen if classes is not None}


def _names(example: Example, classes: dict[Path, tuple[int, ...]], source: SourceConfig | None) -> tuple[str, ...]:
    """The labels under which an image is counted."""
    names = example.labels if source is None else tuple(source.labels[index] for index in classes[example.path])
    return names or (NO_LABEL,)


def _sides(
    scan: Scan, classes: dict[Path, tuple[int, ...]], source: SourceConfig | None, seed: int, near_pairs: Sequence[Sequence[int]]
) -> list[str]:
    """The split in which each readable image stands."""
    own = [image.example.split or NO_SPLIT for image in scan.images]
    if source is None:
        return own
    patients = [image.example.patient for image in scan.images]
    if source.group_near_copies:
        patients = join_patients(patients, near_pairs)
    # Training splits what is left once copies are gone; a copy then stands where its patient stands.
    kept: dict[str, LabelledFile] = {}
    for image, patient in zip(scan.images, patients, strict=True):
        entry = labelled(image.example, classes[image.example.path], image.sha256)
        kept.setdefault(image.sha256, replace(entry, patient=patient))
    files = list(kept.values())
    if source.folds:
        sides = [f"fold {fold + 1}" for fold in cross_validation_folds(files, source, seed).tolist()]
    else:
        held_out, official = hold_out(files, source, seed)
        if official:
            return own
        sides = ["held out" if taken else "training" for taken in held_out.tolist()]
    of_patient = {entry.patient: side for entry, side in zip(files, sides, strict=True)}
    # A patient all of whose images are copies of another's is on no side of its own.
    of_digest = {entry.sha256: side for entry, side in zip(files, sides, strict=True)}
    return [of_patient.get(patient, of_digest[image.sha256]) for image, patient in zip(scan.images, patients, strict=True)]


def _counts(scan: Scan, labels: Sequence[tuple[str, ...]], sides: Sequence[str]) -> dict[str, dict[str, Cell]]:
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for image, own, side in zip(scan.images, labels, sides, strict=True):
        for label in own:
            found[side, label].append(image.example.patient)
    counts: dict[str, dict[str, Cell]] = {}
    for (side, label), patients in sorted(found.items()):
        counts.setdefault(side, {})[label] = Cell(len(patients), len(set(patients)))
    return counts


def _shortcuts(scan: Scan, labels: Sequence[tuple[str, ...]]) -> list[Shortcut]:
    first = {image.sha256: index for index, image in reversed(list(enumerate(scan.images)))}
    distinct = [scan.images[index] for index in sorted(first.values())]
    names = sorted({label for own in labels for label in own})
    properties = np.array([[image.byte_count, image.rows, image.columns, image.mean] for image in distinct], np.float64).reshape(-1, 4)
    targets = np.array([[name in labels[index] for name in names] for index in sorted(first.values())], np.bool_).reshape(-1, len(names))
    return measure_shortcuts(properties, targets, names, [image.example.patient for image in distinct])


def _group(
    scan: Scan, members: Sequence[int], correlation: float, labels: Sequence[tuple[str, ...]], sides: Sequence[str], naming: _Naming
) -> SamePicture:
    examples = [scan.images[i].example for i in members]
    return SamePicture(
        files=[naming.file(example.path) for example in examples],
        labels=sorted({"|".join(labels[i]) for i in members}),
        correlation=correlation,
        across_patients=len({example.patient for example in examples}) > 1,
        across_splits=len({sides[i] for i in members}) > 1,
    )


def _identical(scan: Scan, labels: Sequence[tuple[str, ...]], sides: Sequence[str], naming: _Naming) -> list[SamePicture]:
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, image in enumerate(scan.images):
        members[image.sha256].append(index)
    return [_group(scan, indexes, 1.0, labels, sides, naming) for indexes in members.values() if len(indexes) > 1]
