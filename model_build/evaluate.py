"""Measure a classifier honestly: intervals by bootstrap over patients, and a cross-fitted operating point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

BOOTSTRAP_DRAWS = 1000


class Estimate(msgspec.Struct, frozen=True):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


class Confusion(msgspec.Struct, frozen=True):
    """Counts at the operating point."""

    true_positive: int
    false_negative: int
    true_negative: int
    false_positive: int


@dataclass(frozen=True)
class Scored:
    """Held-out images with their scores: three arrays of shape (images,) and the patient of each image."""

    probabilities: NDArray[np.float32]
    positive: NDArray[np.bool_]
    predicted: NDArray[np.bool_]
    patients: Sequence[str]


def roc_auc(scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> float:
    """Area under the ROC curve, ties counted half (the Mann-Whitney statistic); NaN where a class is absent."""
    positives = int(positive.sum())
    negatives = len(positive) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2.0
    return float((mean_rank[inverse][positive].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def _share(hits: NDArray[np.bool_], among: NDArray[np.bool_]) -> float:
    return float(hits[among].mean()) if among.any() else float("nan")


METRICS: dict[str, Callable[[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]], float]] = {
    "auc": lambda score, positive, _: roc_auc(score, positive),
    "sensitivity": lambda _, positive, predicted: _share(predicted, positive),
    "specificity": lambda _, positive, predicted: _share(~predicted, ~positive),
    "accuracy": lambda _, positive, predicted: float((predicted == positive).mean()),
    "balanced_accuracy": lambda _, positive, predicted: (_share(predicted, positive) + _share(~predicted, ~positive)) / 2.0,
}


def estimate_metrics(scored: Scored, seed: int) -> dict[str, Estimate]:
    """AUC, sensitivity, specificity, accuracy and balanced accuracy with 95 % intervals.

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
    by_patient: dict[str, list[int]] = {}
    for index, patient in enumerate(scored.patients):
        by_patient.setdefault(patient, []).append(index)
    groups = [np.array(indices) for indices in by_patient.values()]
    random = np.random.default_rng(seed)
    draws: dict[str, list[float]] = {name: [] for name in METRICS}
    for _ in range(BOOTSTRAP_DRAWS):
        chosen = np.concatenate([groups[i] for i in random.integers(0, len(groups), len(groups))])
        for name, metric in METRICS.items():
            draws[name].append(metric(scored.probabilities[chosen], scored.positive[chosen], scored.predicted[chosen]))
    estimates: dict[str, Estimate] = {}
    for name, metric in METRICS.items():
        value = metric(scored.probabilities, scored.positive, scored.predicted)
        low, high = np.nanquantile(draws[name], [0.025, 0.975])
        estimates[name] = Estimate(value, float(low), float(high))
    return estimates


def confusion(positive: NDArray[np.bool_], predicted: NDArray[np.bool_]) -> Confusion:
    """Count the four outcomes."""
    return Confusion(
        int((positive & predicted).sum()),
        int((positive & ~predicted).sum()),
        int((~positive & ~predicted).sum()),
        int((~positive & predicted).sum()),
    )


def patient_folds(patients: Sequence[str], fold_count: int, seed: int) -> NDArray[np.int64]:
    """Assign each image a fold, shape (images,), all images of a patient the same one."""
    names = sorted(set(patients))
    order = np.random.default_rng(seed).permutation(len(names))
    fold = {names[index]: position % fold_count for position, index in enumerate(order)}
    return np.array([fold[patient] for patient in patients], dtype=np.int64)
