"""How well a class can be guessed without looking at the picture: from file size, image size and mean intensity alone."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_build.array_types import BoolArray, Float64Array, Int64Array
from model_build.data.classes import strata_of
from model_build.data.images import ImageSet
from model_build.data.split import patient_folds
from model_build.metrics.classification import roc_auc

ALARM_AUC = 0.75
MIN_PATIENTS = 20
_FOLDS = 5
_MOST_IMAGES = 10_000
_GROUPS = {"file_size": [0], "image_size": [1, 2, 3], "mean_intensity": [4], "together": [0, 1, 2, 3, 4]}
"""Columns of the feature table."""


class Shortcut(msgspec.Struct, frozen=True, kw_only=True):
    """Cross-validated AUC of guessing ``label`` against all others, by each property alone and by all of them."""

    label: str
    file_size: float
    image_size: float
    mean_intensity: float
    together: float
    alarm: bool


def image_shortcuts(images: ImageSet, labels: Sequence[str], seed: int = 0) -> list[Shortcut]:
    """As :func:`measure_shortcuts`, from what reading the images has left; decodes nothing."""
    return measure_shortcuts(images.properties, images.targets, labels, [entry.patient for entry in images.files], seed)


def measure_shortcuts(
    properties: Float64Array, targets: BoolArray, labels: Sequence[str], patients: Sequence[str], seed: int = 0
) -> list[Shortcut]:
    """Try to guess each class from what should not give it away.

    Parameters
    ----------
    properties : ndarray, float64, shape (images, 4)
        File size in bytes, rows, columns, mean grey value; of distinct images, since copies would let the guess cheat.
    targets : ndarray, bool, shape (images, labels)
    labels : sequence of str
        The columns' names.
    patients : sequence of str
        The patient of each image.
    seed : int
        Of the folds and the model.

    Returns
    -------
    list of Shortcut
        For every label with at least 20 patients with it and 20 without; of two labels that exclude one another, only the second, since the
        first has the same AUC. ``alarm`` where any AUC reaches ``ALARM_AUC``.

    Notes
    -----
    A forest of 50 shallow trees for all labels at once, five folds, the images of one patient in one fold; of more than 10,000 images, so
    many are drawn. Mean intensity may differ for an honest reason, since disease whitens a lung; a class that file or image size tells was
    made differently, and a model will learn that first.
    """
    drawn = np.random.default_rng(seed).permutation(len(properties))[:_MOST_IMAGES]
    targets, names = targets[drawn], np.array([patients[index] for index in drawn.tolist()])
    byte_count, rows, columns, mean = properties[drawn].T
    features = np.stack([np.log(byte_count), rows, columns, columns / rows, mean], axis=1)
    exclusive = targets.shape[1] == 2 and bool((targets.sum(axis=1) == 1).all())
    known = [index for index in range(int(exclusive), targets.shape[1]) if _patient_count(targets[:, index], names) >= MIN_PATIENTS]
    if not known:
        return []
    folds = patient_folds(strata_of(targets[:, known]), names.tolist(), _FOLDS, seed)
    aucs = {group: _grouped_aucs(features[:, chosen], targets[:, known], folds, seed) for group, chosen in _GROUPS.items()}
    shortcuts = []
    for position, index in enumerate(known):
        of_label = {group: values[position] for group, values in aucs.items()}
        shortcuts.append(Shortcut(label=labels[index], **of_label, alarm=max(of_label.values()) >= ALARM_AUC))
    return shortcuts


def _patient_count(positive: BoolArray, patients: NDArray[np.str_]) -> int:
    """Patients with or without, whichever are fewer."""
    return min(len(set(patients[positive].tolist())), len(set(patients[~positive].tolist())))


def _grouped_aucs(features: Float64Array, targets: BoolArray, folds: Int64Array, seed: int) -> list[float]:
    """For each label, the mean over the folds of the AUC on the fold's patients; folds without one of its two sides are passed over."""
    from sklearn.ensemble import RandomForestClassifier

    aucs = np.full((_FOLDS, targets.shape[1]), np.nan)
    for fold in range(_FOLDS):
        rest, here = folds != fold, folds == fold
        model = RandomForestClassifier(50, max_depth=5, min_samples_leaf=5, class_weight="balanced", random_state=seed)
        guesses = model.fit(features[rest], targets[rest].astype(np.int64).squeeze()).predict_proba(features[here])
        for index, guess in enumerate([guesses] if targets.shape[1] == 1 else guesses):
            aucs[fold, index] = roc_auc(guess[:, -1].astype(np.float32), targets[here, index])
    return [float(np.mean(column[~np.isnan(column)])) for column in aucs.T]
