"""Balanced weights, smoothed targets, and the losses against their formulas."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from model_build.training.losses import (  # noqa: E402
    FINDING_WEIGHT_LIMIT,
    balanced_class_weights,
    balanced_finding_weights,
    make_loss,
    smooth,
)

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 3.0, -2.0]], np.float32)
TARGETS = np.array([[1, 0, 0], [0, 0, 1]], np.float32)


def test_balanced_weights_give_classes_the_same_total() -> None:
    labels = np.array([0, 0, 0, 1], np.int64)
    weights = balanced_class_weights(labels, 2)[labels]
    assert weights[:3].sum() == pytest.approx(weights[3:].sum())
    assert weights.mean() == pytest.approx(1.0)


def test_balanced_weights_give_a_finding_and_its_absence_the_same_total() -> None:
    targets = np.zeros((40, 2), np.bool_)
    targets[:4, 0] = targets[:30, 1] = True
    weights = balanced_finding_weights(targets)
    for label in range(2):
        assert weights[targets[:, label], label].sum() == pytest.approx(weights[~targets[:, label], label].sum())
    np.testing.assert_allclose(weights.mean(axis=0), 1.0, rtol=1e-6)


def test_a_rare_finding_is_capped_and_one_that_nobody_or_everybody_has_stays_finite() -> None:
    targets = np.zeros((1000, 3), np.bool_)
    targets[:2, 0] = targets[:, 2] = True
    weights = balanced_finding_weights(targets)
    assert (weights[:2, 0] == FINDING_WEIGHT_LIMIT).all()
    assert np.isfinite(weights).all()
    assert weights.max() == FINDING_WEIGHT_LIMIT


def test_smoothed_targets_of_classes_sum_to_one_and_of_findings_move_towards_a_half() -> None:
    targets = np.array([[True, False, False, False]])
    np.testing.assert_allclose(smooth(targets, 0.2, multilabel=False), [[0.85, 0.05, 0.05, 0.05]], rtol=1e-6)
    np.testing.assert_allclose(smooth(targets, 0.2, multilabel=True), [[0.9, 0.1, 0.1, 0.1]], rtol=1e-6)


def test_softmax_losses_follow_their_formulas() -> None:
    p = np.exp(LOGITS.astype(np.float64)) / np.exp(LOGITS.astype(np.float64)).sum(axis=1, keepdims=True)
    own = (p * TARGETS).sum(axis=1)
    np.testing.assert_allclose(make_loss("cross_entropy", multilabel=False)(TARGETS, LOGITS), -np.log(own), rtol=1e-5)
    np.testing.assert_allclose(make_loss("focal", multilabel=False)(TARGETS, LOGITS), -((1 - own) ** 2) * np.log(own), rtol=1e-5)


def test_sigmoid_losses_follow_their_formulas() -> None:
    p = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    own = np.where(TARGETS == 1, p, 1 - p)
    np.testing.assert_allclose(make_loss("cross_entropy", multilabel=True)(TARGETS, LOGITS), -np.log(own), rtol=1e-5)
    np.testing.assert_allclose(make_loss("focal", multilabel=True)(TARGETS, LOGITS), -((1 - own) ** 2) * np.log(own), rtol=1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "focal"])
@pytest.mark.parametrize("multilabel", [False, True])
def test_losses_and_their_gradients_stay_finite_at_extreme_logits(name: str, multilabel: bool) -> None:
    logits = tf.constant([[-200.0, 200.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = tf.reduce_sum(make_loss(name, multilabel=multilabel)(tf.constant([[1.0, 0.0, 0.0]]), logits))  # type: ignore[arg-type]
    assert np.isfinite(float(loss))
    assert np.isfinite(tape.gradient(loss, logits).numpy()).all()
