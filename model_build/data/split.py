"""Splits by patient: all images of one patient fall on the same side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ConfigError
from model_build.config import SourceConfig
from model_build.data.images import ImageSet, LabelledFile
from model_build.data.leakage import find_leakage
from model_build.data.similarity import thumbnail


def hold_out_patients(labels: NDArray[np.int64], patients: Sequence[str], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose the patients to hold out, stratified by class.

    Parameters
    ----------
    labels : ndarray, int64, shape (images,)
        Class index per image.
    patients : sequence of str
        Patient per image.
    fraction : float
        Share of the patients to hold out, in (0, 1).
    seed : int
        The same seed, labels and patients give the same split, in any order of the images.

    Returns
    -------
    ndarray, bool, shape (images,)
        True where the image is held out. A patient with several classes counts with the highest one.

    Raises
    ------
    ConfigError
        If a class has fewer than two patients, so that no split can show it on both sides.
    """
    stratum: dict[str, int] = {}
    for label, patient in zip(labels.tolist(), patients, strict=True):
        stratum[patient] = max(label, stratum.get(patient, label))
    held_out: set[str] = set()
    for label in sorted(set(labels.tolist())):
        members = sorted(patient for patient, highest in stratum.items() if highest == label)
        if len(members) < 2:
            raise ConfigError(f"class {label} has {len(members)} patient(s) of its own; at least 2 are needed to hold one out")
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        order = np.random.default_rng([seed, label]).permutation(len(members))
        held_out.update(members[i] for i in order[:count])
    return np.array([patient in held_out for patient in patients], dtype=np.bool_)


def hold_out(files: Sequence[LabelledFile], source: SourceConfig, seed: int) -> tuple[NDArray[np.bool_], bool]:
    """Choose the held-out images: those of the data set's own split where it has one and the config honours it, else drawn patients.

    Returns
    -------
    held_out : ndarray, bool, shape (files,)
    official : bool
        Whether the split is the data set's own: its test images, or its validation images where it has no test images.

    Raises
    ------
    ConfigError
        If a class is missing on one side of the data set's own split, or has too few patients to draw from.
    """
    labels = np.array([entry.label for entry in files], np.int64)
    own = {entry.split for entry in files}
    if not source.official_split or not own & {"test", "val"}:
        return hold_out_patients(labels, [entry.patient for entry in files], source.held_out_fraction, seed), False
    held_out_split = "test" if "test" in own else "val"
    held_out = np.array([entry.split == held_out_split for entry in files], np.bool_)
    for index, name in enumerate(source.labels):
        of_class = held_out[labels == index]
        if of_class.all() or not of_class.any():
            side = "training" if of_class.all() else held_out_split
            raise ConfigError(
                f"the data set's own {side} split has no image of the class {name!r}; draw patients by source.official_split = false"
            )
    return held_out, True


def refuse_leakage(images: ImageSet, held_out: NDArray[np.bool_], source: SourceConfig) -> str:
    """Look for patients and nearly identical images on both sides of the split.

    Returns
    -------
    str
        What was found, in a sentence without names, for the report.

    Raises
    ------
    ConfigError
        If there is leakage and ``source.allow_leakage`` does not allow it.
    """
    sides = ["held out" if taken else "training" for taken in held_out.tolist()]
    thumbnails = np.stack([thumbnail(pixels[:, :, 0]) for pixels in images.pixels])
    leakage = find_leakage(sides, [entry.patient for entry in images.files], thumbnails)
    if leakage and not source.allow_leakage:
        raise ConfigError(
            f"{leakage}, so that the held-out figures would flatter. `model-build audit DATA --config CONFIG --names` names them: give them"
            " one patient or remove one of each, or accept it by source.allow_leakage = true"
        )
    return f"{leakage}{', which the config allows' if leakage else ''}."


def draw_labels(labels: NDArray[np.int64], candidates: NDArray[np.bool_], per_class: int, seed: int) -> NDArray[np.bool_]:
    """Draw the same number of images of every class.

    Parameters
    ----------
    labels : ndarray, int64, shape (images,)
        Class index per image.
    candidates : ndarray, bool, shape (images,)
        The images to draw from: those of training patients.
    per_class : int
        How many of each class.
    seed : int

    Returns
    -------
    ndarray, bool, shape (images,)

    Raises
    ------
    ConfigError
        If a class has fewer.
    """
    drawn = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        members = np.flatnonzero(candidates & (labels == label))
        if len(members) < per_class:
            raise ConfigError(f"train.labels_per_class asks for {per_class} images; class {label} has {len(members)} to train on")
        drawn[np.random.default_rng([seed, int(label)]).choice(members, per_class, replace=False)] = True
    return drawn
