"""Measure a classifier honestly: intervals by bootstrap over patients, AUC within folds, accuracy of the label that the agent would say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from edge_agent.inference.decision import point_scores
from edge_agent.inference.manifest import OperatingPoint
from model_build.array_types import BoolArray, Float32Array, Float64Array, Int64Array
from model_build.metrics.bootstrap import Estimate, estimate_figure, patient_draws


class Confusion(msgspec.Struct, frozen=True):
    """Counts at the operating point."""

    true_positive: int
    false_negative: int
    true_negative: int
    false_positive: int


@dataclass(frozen=True)
class Scored:
    """Held-out images at one operating point: three arrays of shape (images,), and the patient of each image.

    ``folds``, int64, shape (images,), says which model scored the image: scores of two models are never ranked against each other. None
    where one model scored all.
    """

    probabilities: Float32Array
    positive: BoolArray
    predicted: BoolArray
    patients: Sequence[str] | Int64Array
    folds: Int64Array | None = None


def roc_auc(scores: Float32Array, positive: BoolArray, folds: Int64Array | None = None) -> float:
    """Area under the ROC curve, ties counted half (the Mann-Whitney statistic).

    Parameters
    ----------
    scores : ndarray, float32, shape (images,)
    positive : ndarray, bool, shape (images,)
    folds : ndarray, int64, shape (images,), optional
        Only pairs of images of the same fold are compared: the share of all such pairs that are in order.

    Returns
    -------
    float
        NaN where there is no pair of a positive and a negative image.
    """
    if folds is None:
        ordered, pairs = _ordered_pairs(scores, positive)
    else:
        parts = [_ordered_pairs(scores[folds == fold], positive[folds == fold]) for fold in np.unique(folds)]
        ordered, pairs = sum(part[0] for part in parts), sum(part[1] for part in parts)
    return ordered / pairs if pairs else float("nan")


def _ordered_pairs(scores: Float32Array, positive: BoolArray) -> tuple[float, int]:
    """How many pairs of a positive and a negative image have the positive one ahead (ties: half), and how many pairs there are."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if positives == 0 or negatives == 0:
        return 0.0, 0
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2.0
    return float(mean_rank[inverse][positive].sum() - positives * (positives + 1) / 2.0), positives * negatives


def _share(hits: BoolArray, among: BoolArray) -> float:
    return float(hits[among].mean()) if among.any() else float("nan")


METRICS: dict[str, Callable[[Scored, Int64Array], float]] = {
    "auc": lambda s, i: roc_auc(s.probabilities[i], s.positive[i], None if s.folds is None else s.folds[i]),
    "sensitivity": lambda s, i: _share(s.predicted[i], s.positive[i]),
    "specificity": lambda s, i: _share(~s.predicted[i], ~s.positive[i]),
    "accuracy": lambda s, i: float((s.predicted[i] == s.positive[i]).mean()),
    "balanced_accuracy": lambda s, i: (_share(s.predicted[i], s.positive[i]) + _share(~s.predicted[i], ~s.positive[i])) / 2.0,
}


def estimate_metrics(scored: Scored, seed: int) -> dict[str, Estimate]:
    """AUC, sensitivity, specificity, accuracy and balanced accuracy at one operating point, with 95 % intervals.

    Parameters
    ----------
    scored : Scored
        Scores, truth and predictions.
    seed : int
        Of the bootstrap.

    Returns
    -------
    dict of str to Estimate
        Percentile intervals over 1,000 draws of *patients* with replacement: images of one patient stay together.

    References
    ----------
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    draws = patient_draws(scored.patients, seed)
    return {name: estimate_figure(lambda i, metric=metric: metric(scored, i), draws) for name, metric in METRICS.items()}  # type: ignore[misc]


def confusion(positive: BoolArray, predicted: BoolArray) -> Confusion:
    """Count the four outcomes."""
    return Confusion(
        int((positive & predicted).sum()),
        int((positive & ~predicted).sum()),
        int((~positive & ~predicted).sum()),
        int((~positive & predicted).sum()),
    )


def predicted_labels(
    points: Sequence[OperatingPoint], labels: Sequence[str], probabilities: Float32Array, predicted: BoolArray
) -> Int64Array:
    """The class that the agent would say of each image, for tasks with exactly one class.

    Parameters
    ----------
    points : sequence of OperatingPoint
        One: its labels are the positive side.
    labels : sequence of str
        All classes.
    probabilities : ndarray, float32, shape (images, labels)
    predicted : ndarray, bool, shape (images, 1)
        Which images reach the operating point.

    Returns
    -------
    ndarray, int64, shape (images,)
        The most probable class of the side that won.
    """
    on_positive_side = np.array([label in points[0].labels for label in labels])
    allowed = on_positive_side[np.newaxis] == predicted[:, :1]
    return np.asarray(np.where(allowed, probabilities, -1.0).argmax(axis=1), dtype=np.int64)


def class_counts(truth: Int64Array, said: Int64Array, class_count: int) -> Int64Array:
    """Confusion matrix ``counts[truth, said]``, int64, shape (classes, classes)."""
    return np.asarray(np.bincount(truth * class_count + said, minlength=class_count**2).reshape(class_count, class_count), dtype=np.int64)


def label_aucs(probabilities: Float32Array, targets: BoolArray, folds: Int64Array | None = None) -> Float64Array:
    """AUC of each label against all others, shape (labels,); NaN where a label is absent."""
    return np.array([roc_auc(probabilities[:, i], targets[:, i], folds) for i in range(targets.shape[1])])


def point_scored(
    points: Sequence[OperatingPoint],
    labels: Sequence[str],
    probabilities: Float32Array,
    targets: BoolArray,
    patients: Sequence[str] | Int64Array,
    folds: Int64Array | None = None,
    predicted: BoolArray | None = None,
) -> list[Scored]:
    """Look at the same images through each operating point.

    Parameters
    ----------
    points, labels
        Of the decision rule and the manifest.
    probabilities : ndarray, float32, shape (images, labels)
    targets : ndarray, bool, shape (images, labels)
    patients, folds
        As in :class:`Scored`.
    predicted : ndarray, bool, shape (images, points), optional
        Where the points were chosen on other images; else each score is held against its point.

    Returns
    -------
    list of Scored
        One for each point; an image is positive where it has any of the point's labels.
    """
    scores = point_scores(points, labels, probabilities)
    found = []
    for index, point in enumerate(points):
        columns = [labels.index(label) for label in point.labels]
        reached = scores[:, index].astype(np.float64) >= point.threshold if predicted is None else predicted[:, index]
        found.append(Scored(scores[:, index], np.asarray(targets[:, columns].any(axis=1)), reached, patients, folds))
    return found
