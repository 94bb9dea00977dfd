"""The numbers behind the report's figures: curves over all thresholds, calibration error, risk against coverage, bands over patients.

Everything takes weights, the number of times that each image counts, of shape (..., images): ones for the held-out images themselves, and
one row for each draw of the bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_build.array_types import BoolArray, Float64Array, Int64Array

BIN_COUNT = 10
_Z = 1.959964  # of a two-sided 95 % interval


def log_odds(probabilities: NDArray[np.floating]) -> Float64Array:
    """Log odds of probabilities, shape kept; clipped at 1e-6, so that 0 and 1 stay finite."""
    clipped = np.clip(np.asarray(probabilities, np.float64), 1e-6, 1.0 - 1e-6)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), np.float64)


def _divide(numerator: Float64Array, denominator: Float64Array) -> Float64Array:
    """Quotient, NaN where the denominator is 0."""
    unknown = np.full(np.broadcast(numerator, denominator).shape, np.nan)
    return np.asarray(np.divide(numerator, denominator, out=unknown, where=denominator > 0), np.float64)


def _each_row(values: Callable[[int], Float64Array], leading: tuple[int, ...], count: int) -> Float64Array:
    """One row of ``count`` values for each row of weights, in their leading shape."""
    found = np.empty((int(np.prod(leading, dtype=np.int64)), count))
    for row in range(len(found)):
        found[row] = values(row)
    return found.reshape(*leading, count)


@dataclass(frozen=True)
class _Ranking:
    """Images of one fold: where they stand, highest score first, whether each is positive, and where each group of equal scores ends."""

    order: Int64Array
    positive: BoolArray
    ends: Int64Array

    def counts(self, weights: Float64Array) -> tuple[Float64Array, Float64Array]:
        """True and false positives at every threshold from none called positive to all, shape (..., thresholds + 1)."""
        ordered = weights[..., self.order]
        return tuple(  # type: ignore[return-value]
            np.concatenate([np.zeros((*weights.shape[:-1], 1)), np.cumsum(ordered * side, axis=-1)[..., self.ends]], axis=-1)
            for side in (self.positive, ~self.positive)
        )


class RankedScores:
    """Images ranked by score, for the curves over all thresholds.

    Parameters
    ----------
    scores : ndarray, float, shape (images,)
    positive : ndarray, bool, shape (images,)
    folds : ndarray, int64, shape (images,), optional
        Which model gave the score. Scores of two models are never ranked against each other: each fold has a curve of its own, and what is
        drawn is their mean, the ROC curve weighted by the fold's pairs of a positive and a negative image, so that its area is
        :func:`model_build.metrics.classification.roc_auc`, and the precision-recall curve by its positive images.
    """

    def __init__(self, scores: NDArray[np.floating], positive: BoolArray, folds: Int64Array | None = None) -> None:
        self._folds = []
        for fold in (None,) if folds is None else np.unique(folds):
            members = np.arange(len(scores)) if folds is None else np.flatnonzero(folds == fold)
            order = members[np.argsort(-scores[members], kind="stable")]
            ends = np.flatnonzero(np.append(scores[order][1:] != scores[order][:-1], True))
            self._folds.append(_Ranking(order, positive[order], ends))

    def _mean(self, part: Callable[[Float64Array, Float64Array], tuple[Float64Array, Float64Array]], weights: Float64Array) -> Float64Array:
        """Weighted mean over the folds of what ``part`` makes of their hits and alarms: values, (..., points), and weight, (..., 1)."""
        total, summed = np.zeros((*weights.shape[:-1], 1)), np.zeros(1)
        for ranking in self._folds:
            values, weight = part(*ranking.counts(weights))
            total = total + weight
            summed = summed + np.where(weight > 0, values, 0.0) * weight
        return _divide(summed, total)

    def sensitivity_at(self, rates: Float64Array, weights: Float64Array) -> Float64Array:
        """Sensitivity at each false positive rate, straight lines between thresholds; shape (..., rates), NaN where a class is absent."""

        def part(hits: Float64Array, alarms: Float64Array) -> tuple[Float64Array, Float64Array]:
            positives, negatives = hits[..., -1:], alarms[..., -1:]
            x = _divide(alarms, negatives).reshape(-1, hits.shape[-1])
            y = _divide(hits, positives).reshape(-1, hits.shape[-1])
            return _each_row(lambda row: np.interp(rates, x[row], y[row]), hits.shape[:-1], len(rates)), positives * negatives

        return self._mean(part, weights)

    def precision_at(self, recalls: Float64Array, weights: Float64Array) -> Float64Array:
        """Precision at the highest threshold whose recall is at least each of ``recalls`` (above 0); shape (..., recalls)."""

        def part(hits: Float64Array, alarms: Float64Array) -> tuple[Float64Array, Float64Array]:
            positives = hits[..., -1:]
            recall = _divide(hits, positives).reshape(-1, hits.shape[-1])
            precision = _divide(hits, hits + alarms).reshape(-1, hits.shape[-1])
            last = hits.shape[-1] - 1

            def row_values(row: int) -> Float64Array:
                return np.asarray(precision[row][np.minimum(np.searchsorted(recall[row], recalls - 1e-12, side="left"), last)])

            return _each_row(row_values, hits.shape[:-1], len(recalls)), positives

        return self._mean(part, weights)

    def auc(self, weights: Float64Array) -> Float64Array:
        """Area under the ROC curve, ties counted half; shape (..., 1)."""

        def part(hits: Float64Array, alarms: Float64Array) -> tuple[Float64Array, Float64Array]:
            pairs = hits[..., -1:] * alarms[..., -1:]
            ordered = (np.diff(alarms, axis=-1) * (hits[..., 1:] + hits[..., :-1]) / 2.0).sum(axis=-1, keepdims=True)
            return _divide(ordered, pairs), pairs

        return self._mean(part, weights)

    def average_precision(self, weights: Float64Array) -> Float64Array:
        """Mean precision over recall, without interpolation; shape (..., 1)."""

        def part(hits: Float64Array, alarms: Float64Array) -> tuple[Float64Array, Float64Array]:
            positives = hits[..., -1:]
            precision = np.nan_to_num(_divide(hits, hits + alarms)[..., 1:])
            return _divide((np.diff(hits, axis=-1) * precision).sum(axis=-1, keepdims=True), positives), positives

        return self._mean(part, weights)


@dataclass(frozen=True)
class Reliability:
    """Per occupied bin of predicted probability: images, mean probability, share of positive images and its 95 % interval (Wilson)."""

    counts: Int64Array
    mean_probability: Float64Array
    positive_share: Float64Array
    low: Float64Array
    high: Float64Array


def _bins(probabilities: NDArray[np.floating]) -> Int64Array:
    return np.minimum((np.asarray(probabilities, np.float64) * BIN_COUNT).astype(np.int64), BIN_COUNT - 1)


def reliability(probabilities: NDArray[np.floating], positive: BoolArray) -> Reliability:
    """Bin images by predicted probability, in ten bins of equal width.

    References
    ----------
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017; Wilson, JASA 1927.
    """
    bins = _bins(probabilities)
    counts = np.bincount(bins, minlength=BIN_COUNT)
    kept = counts > 0
    n = counts[kept].astype(np.float64)
    share = np.bincount(bins, weights=positive, minlength=BIN_COUNT)[kept] / n
    mean = np.bincount(bins, weights=probabilities, minlength=BIN_COUNT)[kept] / n
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    return Reliability(counts[kept], mean, share, centre - half, centre + half)


def expected_calibration_error(probabilities: NDArray[np.floating], positive: BoolArray, weights: Float64Array) -> Float64Array:
    """Mean distance between predicted probability and share of positive images over ten bins, weighted by their images; shape (..., 1)."""
    gap = np.asarray(probabilities, np.float64) - positive
    in_bin = _bins(probabilities)[:, np.newaxis] == np.arange(BIN_COUNT)
    distances = np.abs(weights @ (gap[:, np.newaxis] * in_bin)).sum(axis=-1, keepdims=True)
    return np.asarray(distances / weights.sum(axis=-1, keepdims=True), np.float64)


class RiskCoverage:
    """Mistakes among the images that the model decides alone, as the least certain ones go to a person first.

    Parameters
    ----------
    certainty : ndarray, float, shape (images,)
        How far each image's score is from the operating point; equally certain images are handed over together.
    wrong : ndarray, float, shape (images,)
        The share of the image's outcomes that are wrong: 0 or 1 where there is one operating point.

    References
    ----------
    El-Yaniv and Wiener, On the Foundations of Noise-free Selective Classification, JMLR 2010.
    """

    def __init__(self, certainty: NDArray[np.floating], wrong: NDArray[np.floating]) -> None:
        self._order = np.argsort(-certainty, kind="stable")
        ordered = certainty[self._order]
        self._ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
        self._wrong = np.asarray(wrong, np.float64)[self._order]

    def risk_at(self, coverages: Float64Array, weights: Float64Array) -> Float64Array:
        """Mean of ``wrong`` over the images kept where at least each of ``coverages`` is kept; shape (..., coverages)."""
        ordered = weights[..., self._order]
        kept = np.cumsum(ordered, axis=-1)[..., self._ends]
        risk = _divide(np.cumsum(ordered * self._wrong, axis=-1)[..., self._ends], kept).reshape(-1, len(self._ends))
        coverage = (kept / kept[..., -1:]).reshape(-1, len(self._ends))

        def row_values(row: int) -> Float64Array:
            return np.asarray(risk[row][np.searchsorted(coverage[row], coverages - 1e-12, side="left")])

        return _each_row(row_values, weights.shape[:-1], len(coverages))
