"""Splits by patient: all images of one patient fall on the same side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_agent.errors import ConfigError
from model_build.array_types import BoolArray, Int64Array
from model_build.config import SourceConfig
from model_build.data.classes import strata_of, targets_of
from model_build.data.images import ImageSet, LabelledFile
from model_build.data.leakage import find_leakage


def hold_out_patients(strata: Int64Array, patients: Sequence[str], fraction: float, seed: int) -> BoolArray:
    """Choose the patients to hold out, the same share of every stratum.

    Parameters
    ----------
    strata : ndarray, int64, shape (images,)
        Of each image, as :func:`~model_build.data.classes.strata_of` gives it.
    patients : sequence of str
        Patient per image.
    fraction : float
        Share of the patients to hold out, in (0, 1).
    seed : int
        The same seed, strata and patients give the same split, in any order of the images.

    Returns
    -------
    ndarray, bool, shape (images,)
        True where the image is held out. Of a stratum with two patients or more, at least one is held out and one is not; a patient who is
        alone in a stratum is not held out.
    """
    held_out: set[str] = set()
    for stratum, members in _patients_by_stratum(strata, patients).items():
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        order = np.random.default_rng([seed, stratum]).permutation(len(members))
        held_out.update(members[i] for i in order[:count])
    return np.array([patient in held_out for patient in patients], dtype=np.bool_)


def patient_folds(strata: Int64Array, patients: Sequence[str], fold_count: int, seed: int) -> Int64Array:
    """Assign every image a fold, all images of a patient the same one, the patients of every stratum spread evenly.

    Parameters
    ----------
    strata : ndarray, int64, shape (images,)
        As :func:`~model_build.data.classes.strata_of` gives it; a positive flag as 0 and 1 will do.
    patients : sequence of str
        Patient per image.
    fold_count : int
    seed : int
        The same seed, strata and patients give the same folds, in any order of the images.

    Returns
    -------
    ndarray, int64, shape (images,)
        In [0, fold_count). The numbers of patients differ by at most one between folds, in all and within a stratum.

    Notes
    -----
    Not scikit-learn's ``StratifiedGroupKFold``: it balances images and not patients, raises where there are fewer patients than folds, and
    gives other folds when the patients are renumbered.
    """
    fold: dict[str, int] = {}
    for stratum, members in _patients_by_stratum(strata, patients).items():
        order = np.random.default_rng([seed, stratum]).permutation(len(members))
        # Each stratum goes on where the last one stopped, so that small ones do not all fall into the first folds.
        fold |= {members[index]: (len(fold) + position) % fold_count for position, index in enumerate(order)}
    return np.array([fold[patient] for patient in patients], dtype=np.int64)


def _patients_by_stratum(strata: Int64Array, patients: Sequence[str]) -> dict[int, list[str]]:
    """Each patient under the rarest stratum of his images (of equally rare ones the highest); both levels sorted."""
    values, counts = np.unique(strata, return_counts=True)
    rarity = {value: (-count, value) for value, count in zip(values.tolist(), counts.tolist(), strict=True)}
    of_patient: dict[str, int] = {}
    for stratum, patient in zip(strata.tolist(), patients, strict=True):
        of_patient[patient] = max(stratum, of_patient.get(patient, stratum), key=rarity.__getitem__)
    return {value: sorted(patient for patient, stratum in of_patient.items() if stratum == value) for value in values.tolist()}


def hold_out(files: Sequence[LabelledFile], source: SourceConfig, seed: int) -> tuple[BoolArray, bool]:
    """Choose the held-out images: those of the data set's own split where it has one and the config honours it, else drawn patients.

    Returns
    -------
    held_out : ndarray, bool, shape (files,)
    official : bool
        Whether the split is the data set's own: its test images, or its validation images where it has no test images.

    Raises
    ------
    ConfigError
        If a label has no image, or only images with it stand, on one side.
    """
    targets = targets_of([entry.labels for entry in files], len(source.labels))
    own = {entry.split for entry in files}
    if not source.official_split or not own & {"test", "val"}:
        patients = [entry.patient for entry in files]
        held_out = hold_out_patients(strata_of(targets), patients, source.held_out_fraction, seed)
        _check_sides(targets, {"training": ~held_out, "held-out": held_out}, source, "the drawn", "take another seed or give more patients")
        return held_out, False
    name = "test" if "test" in own else "val"
    held_out = np.array([entry.split == name for entry in files], np.bool_)
    remedy = "draw patients by source.official_split = false"
    _check_sides(targets, {"training": ~held_out, name: held_out}, source, "the data set's own", remedy)
    return held_out, True


def cross_validation_folds(files: Sequence[LabelledFile], source: SourceConfig, seed: int) -> Int64Array:
    """Spread the patients over ``source.folds`` parts, each to be held out once.

    Returns
    -------
    ndarray, int64, shape (files,)
        The fold of each image.

    Raises
    ------
    ConfigError
        If the data set has a split of its own that the config honours, there are fewer patients than folds, or a label is missing among a
        fold's training patients.
    """
    if source.official_split and {entry.split for entry in files} & {"test", "val"}:
        raise ConfigError(
            "the data set has a test split of its own, which cross-validation would mix with the rest; set source.folds = 0 to hold that"
            " split out, or source.official_split = false to pass it over"
        )
    patients = [entry.patient for entry in files]
    if len(set(patients)) < source.folds:
        raise ConfigError(f"source.folds = {source.folds} needs as many patients, and there are {len(set(patients))}; lower source.folds")
    targets = targets_of([entry.labels for entry in files], len(source.labels))
    folds = patient_folds(strata_of(targets), patients, source.folds, seed)
    sides = {f"training (fold {fold + 1} of {source.folds})": folds != fold for fold in range(source.folds)}
    _check_sides(targets, sides, source, "the drawn", "lower source.folds, take another seed or give more patients")
    return folds


def _check_sides(targets: BoolArray, sides: dict[str, BoolArray], source: SourceConfig, whose: str, remedy: str) -> None:
    for side, chosen in sides.items():
        with_label = targets[chosen].sum(axis=0)
        for name, count in zip(source.labels, with_label.tolist(), strict=True):
            if not count:
                raise ConfigError(f"{whose} {side} split has no image of the class {name!r}; {remedy}")
        for name, count in zip(source.labels, with_label.tolist(), strict=True):
            if count == chosen.sum():
                raise ConfigError(f"every image of {whose} {side} split has the label {name!r}; {remedy}")


def refuse_too_few(images: ImageSet, held_out: BoolArray, source: SourceConfig) -> None:
    """Refuse a held-out part on which no operating point can be chosen and tried, before anything is trained.

    Parameters
    ----------
    images : ImageSet
    held_out : ndarray, bool, shape (images,)
    source : SourceConfig

    Raises
    ------
    ConfigError
        If a side has only one patient with a label, or only one without it.
    """
    patients = np.array([entry.patient for entry in images.files])
    for side, chosen in (("held out", held_out), ("trained on", ~held_out)):
        for index, name in enumerate(source.labels):
            for wanted, which in ((True, "with"), (False, "without")):
                count = len(set(patients[chosen & (images.targets[:, index] == wanted)].tolist()))
                if count < 2:
                    raise ConfigError(
                        f"only {count} patient(s) {which} the label {name!r} would be {side}, and at least 2 are needed: calibration and"
                        " operating point are chosen on one part of them and tried on the rest; give images of more patients, change"
                        " source.held_out_fraction, or set source.folds"
                    )


def refuse_leakage(images: ImageSet, sides: BoolArray | Int64Array, source: SourceConfig) -> str:
    """Look for patients and nearly identical images on several sides of the split.

    Parameters
    ----------
    images : ImageSet
    sides : ndarray, bool or int64, shape (images,)
        Whether each image is held out, or its fold.
    source : SourceConfig

    Returns
    -------
    str
        What was found, in a sentence without names, for the report.

    Raises
    ------
    ConfigError
        If there is leakage and ``source.allow_leakage`` does not allow it.
    """
    leakage = find_leakage(sides.tolist(), [entry.patient for entry in images.files], images.thumbnails)
    if leakage and not source.allow_leakage:
        raise ConfigError(
            f"{leakage}, so that the held-out figures would flatter. `model-build audit DATA --config CONFIG --names` names them: give them"
            " one patient or remove one of each, or accept it by source.allow_leakage = true"
        )
    return f"{leakage}{', which the config allows' if leakage else ''}."
