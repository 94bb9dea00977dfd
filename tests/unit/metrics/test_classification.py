"""Figures are what they say: AUC against scikit-learn, intervals over patients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_build.metrics.classification import Scored, confusion, estimate_metrics, roc_auc


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=60))
def test_auc_equals_scikit_learn_with_ties(pairs: list[tuple[int, bool]]) -> None:
    from sklearn.metrics import roc_auc_score

    scores = np.array([score for score, _ in pairs], np.float32)
    positive = np.array([truth for _, truth in pairs])
    if positive.all() or not positive.any():
        assert np.isnan(roc_auc(scores, positive))
    else:
        assert roc_auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))


def scored(patients: list[str], seed: int = 0) -> Scored:
    random = np.random.default_rng(seed)
    positive = np.arange(len(patients)) % 2 == 0
    probabilities = np.clip(0.5 + 0.2 * np.where(positive, 1, -1) + random.normal(0, 0.2, len(patients)), 0, 1).astype(np.float32)
    return Scored(probabilities, positive, probabilities >= 0.5, patients)


def test_interval_holds_the_value_and_widens_when_images_share_patients() -> None:
    alone = estimate_metrics(scored([f"p{i}" for i in range(200)]), 1)
    for name, estimate in alone.items():
        assert estimate.low <= estimate.value <= estimate.high, name
    copies = scored([f"p{i}" for i in range(40)])
    repeated = Scored(*(np.tile(part, 5) for part in (copies.probabilities, copies.positive, copies.predicted)), list(copies.patients) * 5)  # type: ignore[arg-type]
    grouped = estimate_metrics(repeated, 1)["accuracy"]
    by_image = estimate_metrics(Scored(repeated.probabilities, repeated.positive, repeated.predicted, [str(i) for i in range(200)]), 1)[
        "accuracy"
    ]
    assert grouped.high - grouped.low > 1.5 * (by_image.high - by_image.low)


def test_confusion_counts() -> None:
    matrix = confusion(np.array([True, True, True, False, False]), np.array([True, True, False, True, False]))
    assert (matrix.true_positive, matrix.false_negative, matrix.true_negative, matrix.false_positive) == (2, 1, 1, 1)


def test_folds_are_never_ranked_against_each_other() -> None:
    positive = np.array([True, False, True, False])
    scores = np.array([0.2, 0.1, 0.9, 0.8], np.float32)
    assert roc_auc(scores, positive) == 0.75
    # In order within each fold; across folds the second one's negative is ahead of the first one's positive.
    assert roc_auc(scores, positive, np.array([0, 0, 1, 1])) == 1.0
    assert np.isnan(roc_auc(scores, positive, np.array([0, 1, 2, 3])))


def test_a_figure_that_could_not_be_computed_is_read_back_as_such() -> None:
    import json
    from pathlib import Path

    from model_build.report.result import Report
    from model_build.run_folder import read_json

    report = json.loads((Path(__file__).parents[3] / "docs" / "reports" / "cxr-pneumonia.json").read_text())
    report["measured"]["points"][0]["metrics"]["auc"]["low"] = None
    again = read_json(json.dumps(report).encode(), Report)
    assert np.isnan(again.measured.points[0].metrics["auc"].low)
    assert again.measured.points[0].metrics["auc"].value > 0.99
