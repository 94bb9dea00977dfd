"""The report's numbers against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from model_build.curves import (
    average_precision,
    expected_calibration_error,
    patient_band,
    precision_at,
    precision_recall_curve,
    reliability,
    risk_at,
    risk_coverage,
    roc_curve,
    sensitivity_at,
)
from model_build.evaluate import roc_auc

SCORES = np.array([0.9, 0.8, 0.8, 0.3, 0.2], np.float32)
POSITIVE = np.array([True, True, False, True, False])


def test_roc_curve_takes_equal_scores_together() -> None:
    false_positive_rate, sensitivity = roc_curve(SCORES, POSITIVE)
    assert false_positive_rate.tolist() == pytest.approx([0.0, 0.0, 0.5, 0.5, 1.0])
    assert sensitivity.tolist() == pytest.approx([0.0, 1 / 3, 2 / 3, 1.0, 1.0])
    assert np.trapezoid(sensitivity, false_positive_rate) == pytest.approx(roc_auc(SCORES, POSITIVE))


def test_sensitivity_at_takes_the_best_within_the_rate() -> None:
    assert sensitivity_at(SCORES, POSITIVE, np.array([0.0, 0.49, 0.5, 1.0])).tolist() == pytest.approx([1 / 3, 1 / 3, 1.0, 1.0])
    assert np.isnan(sensitivity_at(SCORES, np.ones(5, np.bool_), np.array([0.5]))).all()


def test_precision_recall() -> None:
    recall, precision = precision_recall_curve(SCORES, POSITIVE)
    assert recall.tolist() == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0])
    assert precision.tolist() == pytest.approx([1.0, 2 / 3, 3 / 4, 3 / 5])
    assert average_precision(SCORES, POSITIVE) == pytest.approx((1.0 + 2 / 3 + 3 / 4) / 3)
    assert precision_at(SCORES, POSITIVE, np.array([0.1, 0.5, 1.0])).tolist() == pytest.approx([1.0, 2 / 3, 3 / 4])


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
    assert expected_calibration_error(probabilities, positive) == pytest.approx((2 * 0.15 + 3 * (0.96 - 2 / 3)) / 5)


def test_risk_coverage_keeps_the_farthest_from_the_threshold_first() -> None:
    # Farthest from 0.5 in log odds: 0.99 (right), 0.05 (wrong), then 0.3 and 0.7 together (right, wrong).
    probabilities = np.array([0.7, 0.99, 0.05, 0.3])
    positive = np.array([False, True, True, False])
    coverage, risk = risk_coverage(probabilities, positive, 0.5)
    assert coverage.tolist()[:2] == pytest.approx([0.25, 0.5])
    assert coverage[-1] == 1.0
    assert risk.tolist()[:2] == pytest.approx([0.0, 0.5])
    assert risk[-1] == pytest.approx(0.5)
    assert risk_at(probabilities, positive, 0.5, np.array([0.25, 0.3, 1.0])).tolist() == pytest.approx([0.0, 0.5, 0.5])


def test_patient_band_draws_whole_patients() -> None:
    # One patient's images are all 0, the other's all 1: by patients the mean is 0, 1 or between; by images it could never be.
    patients, values = np.array([7, 3] * 50), np.array([0.0, 1.0] * 50)
    low, high = patient_band(patients, lambda drawn: np.array([values[drawn].mean()]), seed=1)
    assert (low[0], high[0]) == (0.0, 1.0)
    again = patient_band(patients, lambda drawn: np.array([values[drawn].mean()]), seed=1)
    assert (again[0][0], again[1][0]) == (low[0], high[0])
