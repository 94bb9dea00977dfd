"""How well a class can be guessed without looking at the picture: from file size, image size and mean intensity alone."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedGroupKFold

from model_build.data.scan import Scanned
from model_build.evaluate import roc_auc

ALARM_AUC = 0.75
_FOLDS = 5
MIN_PATIENTS = 20
# Columns of the feature table.
_GROUPS = {"file_size": [0], "image_size": [1, 2, 3], "mean_intensity": [4], "together": [0, 1, 2, 3, 4]}


class Shortcut(msgspec.Struct, frozen=True, kw_only=True):
    """Cross-validated AUC of guessing ``label`` against all others, by each property alone and by all of them."""

    label: str
    file_size: float
    image_size: float
    mean_intensity: float
    together: float
    alarm: bool


def measure_shortcuts(images: Sequence[Scanned], labels: Sequence[tuple[str, ...]], seed: int = 0) -> list[Shortcut]:
    """Try to guess each class from what should not tell it.

    Parameters
    ----------
    images : sequence of Scanned
        One for each distinct image: copies would let the guess cheat.
    labels : sequence of tuple of str
        Of each image.
    seed : int
        Of the folds and the model.

    Returns
    -------
    list of Shortcut
        For every label with at least 20 patients with it and 20 without; of two labels that exclude one another, only the second, since the
        first has the same AUC. ``alarm`` where any AUC reaches ``ALARM_AUC``.

    Notes
    -----
    A forest of 50 shallow trees, five folds, the images of one patient in one fold. Mean intensity may differ for an honest reason, since
    disease whitens a lung; a class that file or image size tells was made differently, and a model will learn that first.
    """
    features = np.array([[np.log(i.byte_count), i.rows, i.columns, i.columns / i.rows, i.mean] for i in images], np.float64).reshape(-1, 5)
    patients = np.array([image.example.patient for image in images])
    names = sorted({label for own in labels for label in own})
    exclusive = len(names) == 2 and all(len(own) == 1 for own in labels)
    shortcuts = []
    for name in names[1:] if exclusive else names:
        positive = np.array([name in own for own in labels], np.bool_)
        if min(len(set(patients[positive])), len(set(patients[~positive]))) < MIN_PATIENTS:
            continue
        aucs = {group: _grouped_auc(features[:, columns], positive, patients, seed) for group, columns in _GROUPS.items()}
        shortcuts.append(Shortcut(label=name, **aucs, alarm=max(aucs.values()) >= ALARM_AUC))
    return shortcuts


def _grouped_auc(features: NDArray[np.float64], positive: NDArray[np.bool_], patients: NDArray[np.str_], seed: int) -> float:
    """Mean over the folds of the AUC on each fold's held-out patients."""
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    aucs = []
    for train, test in folds.split(features, positive, patients):
        model = RandomForestClassifier(50, max_depth=5, min_samples_leaf=5, class_weight="balanced", random_state=seed)
        scores = model.fit(features[train], positive[train]).predict_proba(features[test])
        if scores.shape[1] == 2:  # else the fold's training patients have one class only
            aucs.append(roc_auc(scores[:, 1].astype(np.float32), positive[test]))
    return float(np.nanmean(aucs))
