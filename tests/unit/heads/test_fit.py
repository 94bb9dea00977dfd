"""Heads are fitted and joined as their docstrings say, and as the device does it."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.errors import ConfigError
from edge_agent.inference.head import PlattCalibration
from edge_agent.inference.scoring import LabelScorer, make_scorer
from edge_agent.records import Task
from model_build.config import HeadConfig
from model_build.heads.fit import calibrated, fit_head, fit_heads, head_logits, label_probabilities, scored_labels


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


@pytest.mark.parametrize(("task", "positive"), [("binary", ["b"]), ("multiclass", ["b", "c"]), ("multilabel", ["a", "b", "c"])])
def test_joined_probabilities_are_those_of_the_device(task: Task, positive: list[str]) -> None:
    values, sick = embeddings(300)
    labels = ["a", "b"] if task == "binary" else ["a", "b", "c"]
    targets = np.stack([~sick, sick, values[:, 0] > 1.0][: len(labels)], axis=1)
    heads = fit_heads(values, targets, labels, task, positive, HeadConfig())
    assert [head.positive for head in heads] == scored_labels(labels, task, positive)
    calibrations = [PlattCalibration(slope=0.5 + i, intercept=-0.1 * i) for i in range(len(heads))]
    joined = label_probabilities(task, labels, positive, head_logits(heads, values), calibrations)
    scorer = LabelScorer(task, labels, calibrated(heads, calibrations))
    np.testing.assert_allclose(joined, scorer.probabilities(values), atol=1e-6)
    assert joined.shape == (300, len(labels))
    if task != "multilabel":
        np.testing.assert_allclose(joined.sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("flag", [True, False])
def test_a_head_needs_images_with_and_without_its_label(flag: bool) -> None:
    values, _ = embeddings(20)
    with pytest.raises(ConfigError, match="a head needs both"):
        fit_head(values, np.full(20, flag), "SICK", HeadConfig())
