"""The report's numbers against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from model_build.metrics.bootstrap import patient_draws, patient_quantiles
from model_build.metrics.classification import roc_auc
from model_build.metrics.curves import RankedScores, RiskCoverage, expected_calibration_error, log_odds, reliability

SCORES = np.array([0.9, 0.8, 0.8, 0.3, 0.2], np.float32)
POSITIVE = np.array([True, True, False, True, False])
ONCE = np.ones(5)
RATES = np.linspace(0.0, 1.0, 2001)


def test_equal_scores_are_one_threshold() -> None:
    ranked = RankedScores(SCORES, POSITIVE)
    rates = np.array([0.0, 0.25, 0.5, 0.51, 1.0])
    # From (0, 1/3) the tie at 0.8 goes straight to (1/2, 2/3); then 0.3 is positive.
    assert ranked.sensitivity_at(rates, ONCE).tolist() == pytest.approx([1 / 3, 0.5, 1.0, 1.0, 1.0])
    assert ranked.auc(ONCE)[0] == pytest.approx(roc_auc(SCORES, POSITIVE))
    assert np.isnan(RankedScores(SCORES, np.ones(5, np.bool_)).sensitivity_at(rates, ONCE)).all()


def test_precision_recall() -> None:
    ranked = RankedScores(SCORES, POSITIVE)
    assert ranked.precision_at(np.array([0.1, 0.5, 1.0]), ONCE).tolist() == pytest.approx([1.0, 2 / 3, 3 / 4])
    assert ranked.average_precision(ONCE)[0] == pytest.approx((1.0 + 2 / 3 + 3 / 4) / 3)


def test_folds_are_ranked_apart_and_their_mean_curve_has_the_auc_within_folds() -> None:
    random = np.random.default_rng(0)
    folds = random.integers(0, 3, 400)
    positive = random.random(400) < 0.3
    positive[folds == 2] = False  # no pair to compare: the fold has no say
    # A model that gives higher scores throughout would spoil a ranking over all folds.
    scores = (positive + random.standard_normal(400) + 5.0 * folds).astype(np.float32).round(1)
    ranked, once = RankedScores(scores, positive, folds), np.ones(400)
    within = roc_auc(scores, positive, folds)
    assert within > roc_auc(scores, positive) + 0.05
    assert ranked.auc(once)[0] == pytest.approx(within)
    assert np.trapezoid(ranked.sensitivity_at(RATES, once), RATES) == pytest.approx(within, abs=2e-3)
    recalls = RATES[1:]
    assert ranked.precision_at(recalls, once).mean() == pytest.approx(ranked.average_precision(once)[0], abs=5e-3)


def test_weights_count_like_drawn_images() -> None:
    random = np.random.default_rng(1)
    folds, patients, positive = random.integers(0, 2, 200), random.integers(0, 60, 200), random.random(200) < 0.4
    scores = (positive + random.standard_normal(200)).astype(np.float32)
    drawn = patient_draws(patients, seed=3, count=4)
    weights = np.stack([np.bincount(indices, minlength=200) for indices in drawn]).astype(np.float64)
    ranked = RankedScores(scores, positive, folds)
    expected = [roc_auc(scores[i], positive[i], folds[i]) for i in drawn]
    assert ranked.auc(weights)[:, 0].tolist() == pytest.approx(expected)
    for row, indices in enumerate(drawn):
        redrawn, once = RankedScores(scores[indices], positive[indices], folds[indices]), np.ones(len(indices))
        for name in ("sensitivity_at", "precision_at"):
            assert getattr(ranked, name)(RATES[1:], weights)[row] == pytest.approx(getattr(redrawn, name)(RATES[1:], once))
    probabilities = 1.0 / (1.0 + np.exp(-scores))
    errors = [expected_calibration_error(probabilities[i], positive[i], np.ones(len(i)))[0] for i in drawn]
    assert expected_calibration_error(probabilities, positive, weights)[:, 0].tolist() == pytest.approx(errors)


def test_expected_calibration_error() -> None:
    # Bin 0.1 to 0.2: two images, mean 0.15, none positive. Bin 0.9 to 1 (1.0 itself too): mean 0.96, share 2 / 3.
    probabilities = np.array([0.12, 0.18, 0.92, 0.96, 1.0])
    positive = np.array([False, False, True, False, True])
    bins = reliability(probabilities, positive)
    assert bins.counts.tolist() == [2, 3]
    assert bins.mean_probability.tolist() == pytest.approx([0.15, 0.96])
    assert bins.positive_share.tolist() == pytest.approx([0.0, 2 / 3])
    # Wilson for 0 of 2: upper end z^2 / (2 + z^2).
    assert bins.low[0] == pytest.approx(0.0, abs=1e-12)
    assert bins.high[0] == pytest.approx(3.841459 / 5.841459, abs=1e-6)
    assert expected_calibration_error(probabilities, positive, ONCE)[0] == pytest.approx((2 * 0.15 + 3 * (0.96 - 2 / 3)) / 5)


def test_risk_coverage_keeps_the_most_certain_first() -> None:
    # Farthest from 0.5 in log odds: 0.99 (right), 0.05 (wrong), then 0.3 and 0.7 together (right, wrong).
    certainty = np.abs(log_odds(np.array([0.7, 0.99, 0.05, 0.3]))).round(9)
    kept = RiskCoverage(certainty, np.array([1.0, 0.0, 1.0, 0.0]))
    assert kept.risk_at(np.array([0.25, 0.3, 0.5, 0.6, 1.0]), np.ones(4)).tolist() == pytest.approx([0.0, 0.5, 0.5, 0.5, 0.5])
    # The certain, right image drawn twice, the last two not at all.
    assert kept.risk_at(np.array([0.6, 1.0]), np.array([[0.0, 2.0, 1.0, 0.0]])).tolist() == [pytest.approx([0.0, 1 / 3])]


def test_patient_quantiles_draw_whole_patients() -> None:
    # One patient's images are all 0, the other's all 1: by patients the mean is 0, 1 or between; by images it could never be.
    patients, values = np.array([7, 3] * 50), np.array([0.0, 1.0] * 50)
    low, high = patient_quantiles(patients, lambda weights: (weights @ values / weights.sum(axis=1))[:, np.newaxis], seed=1)
    assert (low[0], high[0]) == (0.0, 1.0)
    low, high = patient_quantiles(patients, lambda weights: np.full((len(weights), 1), np.nan), seed=1)
    assert np.isnan([low[0], high[0]]).all()
