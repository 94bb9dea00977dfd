"""The numbers behind the report's figures: curves over all thresholds, calibration error, risk against coverage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

BOOTSTRAP_DRAWS = 1000
_Z = 1.959964  # of a two-sided 95 % interval


def log_odds(probabilities: NDArray[np.floating]) -> Floats:
    """Log odds of probabilities, shape kept; clipped at 1e-6, so that 0 and 1 stay finite."""
    clipped = np.clip(np.asarray(probabilities, np.float64), 1e-6, 1.0 - 1e-6)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), np.float64)


def _counts_above(scores: NDArray[np.floating], positive: Booleans) -> tuple[Floats, Floats]:
    """True and false positives at every distinct threshold, highest first; equal scores fall together."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last_of_tie = np.append(ordered[1:] != ordered[:-1], True)
    hits = np.cumsum(positive[order])[last_of_tie]
    return hits.astype(np.float64), (np.flatnonzero(last_of_tie) + 1.0) - hits


def roc_curve(scores: NDArray[np.floating], positive: Booleans) -> tuple[Floats, Floats]:
    """False positive rate and sensitivity at every threshold, from (0, 0) to (1, 1); NaN where a class is absent."""
    hits, alarms = _counts_above(scores, positive)
    with np.errstate(invalid="ignore"):
        return np.append(0.0, alarms / (~positive).sum()), np.append(0.0, hits / positive.sum())


def precision_recall_curve(scores: NDArray[np.floating], positive: Booleans) -> tuple[Floats, Floats]:
    """Recall and precision at every threshold, highest threshold first; NaN recall where no image is positive."""
    hits, alarms = _counts_above(scores, positive)
    with np.errstate(invalid="ignore"):
        return hits / positive.sum(), hits / (hits + alarms)


def average_precision(scores: NDArray[np.floating], positive: Booleans) -> float:
    """Mean precision over recall, without interpolation."""
    recall, precision = precision_recall_curve(scores, positive)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def sensitivity_at(scores: NDArray[np.floating], positive: Booleans, rates: Floats) -> Floats:
    """The best sensitivity whose false positive rate is at most each of ``rates``."""
    if positive.all() or not positive.any():
        return np.full(len(rates), np.nan)
    false_positive_rate, sensitivity = roc_curve(scores, positive)
    return sensitivity[np.searchsorted(false_positive_rate, rates, side="right") - 1]


def precision_at(scores: NDArray[np.floating], positive: Booleans, recalls: Floats) -> Floats:
    """The precision at the highest threshold whose recall is at least each of ``recalls``."""
    if not positive.any():
        return np.full(len(recalls), np.nan)
    recall, precision = precision_recall_curve(scores, positive)
    return precision[np.searchsorted(recall, recalls, side="left")]


@dataclass(frozen=True)
class Reliability:
    """Per occupied bin of predicted probability: images, mean probability, share of positive images and its 95 % interval (Wilson)."""

    counts: NDArray[np.int64]
    mean_probability: Floats
    positive_share: Floats
    low: Floats
    high: Floats


def reliability(probabilities: NDArray[np.floating], positive: Booleans, bin_count: int = 10) -> Reliability:
    """Bin images by predicted probability, in bins of equal width.

    References
    ----------
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017; Wilson, JASA 1927.
    """
    bins = np.minimum((np.asarray(probabilities, np.float64) * bin_count).astype(np.int64), bin_count - 1)
    counts = np.bincount(bins, minlength=bin_count)
    kept = counts > 0
    n = counts[kept].astype(np.float64)
    share = np.bincount(bins, weights=positive, minlength=bin_count)[kept] / n
    mean = np.bincount(bins, weights=probabilities, minlength=bin_count)[kept] / n
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return Reliability(counts[kept], mean, share, centre - half, centre + half)


def expected_calibration_error(probabilities: NDArray[np.floating], positive: Booleans, bin_count: int = 10) -> float:
    """Mean distance between predicted probability and share of positive images over the bins, each weighted by its images."""
    bins = reliability(probabilities, positive, bin_count)
    return float(np.sum(bins.counts * np.abs(bins.mean_probability - bins.positive_share)) / bins.counts.sum())


def risk_coverage(probabilities: NDArray[np.floating], positive: Booleans, threshold: float) -> tuple[Floats, Floats]:
    """Share of wrong labels among the images kept, as more and more are kept.

    Parameters
    ----------
    probabilities : ndarray, float, shape (images,)
        Calibrated, of the positive label.
    positive : ndarray, bool, shape (images,)
        Truth.
    threshold : float
        The operating point; images far from it, in log odds, are kept first, those at it go to a person first.

    Returns
    -------
    coverage : ndarray, float64
        Rising to 1; images equally far are kept together.
    risk : ndarray, float64
        Share of the kept images whose label is wrong.

    References
    ----------
    El-Yaniv and Wiener, On the Foundations of Noise-free Selective Classification, JMLR 2010.
    """
    distance = np.abs(log_odds(probabilities) - log_odds(np.array(threshold)))
    wrong, right = _counts_above(distance, (probabilities >= threshold) != positive)
    kept = wrong + right
    return kept / kept[-1], wrong / kept


def risk_at(probabilities: NDArray[np.floating], positive: Booleans, threshold: float, coverages: Floats) -> Floats:
    """The risk of :func:`risk_coverage` where at least each of ``coverages`` is kept."""
    coverage, risk = risk_coverage(probabilities, positive, threshold)
    return risk[np.searchsorted(coverage, coverages - 1e-12, side="left")]


def patient_band(patients: NDArray[np.int64], curve: Callable[[NDArray[np.int64]], Floats], seed: int) -> tuple[Floats, Floats]:
    """A 95 % band around a curve, by bootstrap over patients.

    Parameters
    ----------
    patients : ndarray, int64, shape (images,)
        The patient of each image.
    curve : callable
        From indices of images, drawn with replacement by whole patients, to the curve's values, shape (points,); NaN where it has none.
    seed : int
        Of the draws.

    Returns
    -------
    low, high : ndarray, float64, shape (points,)
        The 2.5 and 97.5 percentiles, point by point, over 1,000 draws.
    """
    order = np.argsort(patients, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(patients[order])) + 1)
    random = np.random.default_rng(seed)
    draws = [curve(np.concatenate([groups[i] for i in random.integers(0, len(groups), len(groups))])) for _ in range(BOOTSTRAP_DRAWS)]
    low, high = np.nanquantile(np.stack(draws), [0.025, 0.975], axis=0)
    return low, high
