"""Head, calibration and operating point are chosen as their docstrings say."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.inference.scoring import make_scorer
from model_build.config import DecisionConfig, HeadConfig
from model_build.head import calibrated, choose_operating_point, fit_head, fit_platt, head_probabilities


def embeddings(count: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    positive = random.random(count) < 0.7
    values = random.normal(size=(count, 6)) * [1, 2, 3, 1, 1, 50] + positive[:, np.newaxis] * [1.0, -1.0, 0, 0, 0, 0]
    return values.astype(np.float32), positive


def test_the_folded_head_separates_and_ignores_the_scale_of_a_channel() -> None:
    values, positive = embeddings()
    head = fit_head(values, positive, "SICK", HeadConfig())
    logits = make_scorer(head).logits(values)
    assert logits[positive].mean() > 0.5
    assert logits[~positive].mean() < -0.5
    rescaled = fit_head(values * np.float32(8.0), positive, "SICK", HeadConfig())
    np.testing.assert_allclose(make_scorer(rescaled).logits(values * np.float32(8.0)), logits, atol=1e-3)


def test_platt_makes_probabilities_of_the_frequency_seen() -> None:
    values, positive = embeddings(4000)
    head = fit_head(values, positive, "SICK", HeadConfig())
    calibration = fit_platt(make_scorer(head).logits(values), positive)
    probabilities = head_probabilities(calibrated(head, calibration), values)
    assert probabilities.mean() == pytest.approx(positive.mean(), abs=0.01)
    sure = probabilities > 0.9
    assert positive[sure].mean() == pytest.approx(probabilities[sure].mean(), abs=0.03)


def test_platt_stays_finite_on_separable_scores() -> None:
    logits = np.array([-5, -4, -3, 3, 4, 5], np.float32)
    calibration = fit_platt(logits, logits > 0)
    assert 0 < calibration.slope < 100


@pytest.mark.parametrize("target", [0.9, 0.95, 0.99])
def test_the_point_reaches_the_target_and_not_much_more(target: float) -> None:
    values, positive = embeddings(2000)
    probabilities = head_probabilities(fit_head(values, positive, "SICK", HeadConfig()), values)
    point = choose_operating_point(probabilities, positive, DecisionConfig(target_sensitivity=target, review_fraction=0.1))
    sensitivity = float((probabilities[positive] >= point.threshold).mean())
    assert target <= sensitivity <= target + 2.0 / positive.sum()
    in_band = (probabilities >= point.review_low) & (probabilities <= point.review_high)
    assert in_band.mean() == pytest.approx(0.1, abs=0.01)
    assert point.review_low < point.threshold < point.review_high


def test_no_review_band_where_none_is_asked_for() -> None:
    values, positive = embeddings()
    probabilities = head_probabilities(fit_head(values, positive, "SICK", HeadConfig()), values)
    point = choose_operating_point(probabilities, positive, DecisionConfig(review_fraction=0.0))
    in_band = (probabilities >= point.review_low) & (probabilities <= point.review_high)
    assert not in_band.any()
