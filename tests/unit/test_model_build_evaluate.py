"""Figures are what they say: AUC against scikit-learn, intervals over patients, folds without a patient on two sides."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.errors import ConfigError
from model_build.data.split import draw_labels, hold_out_patients
from model_build.evaluate import Scored, confusion, estimate_metrics, patient_folds, roc_auc


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


def test_folds_and_hold_out_keep_patients_whole() -> None:
    patients = [f"p{i // 3}" for i in range(90)]
    labels = np.array([(i // 3) % 2 for i in range(90)])
    held_out = hold_out_patients(labels, patients, 0.2, 7)
    folds = patient_folds(patients, 5, 7)
    for patient in set(patients):
        rows = [i for i, name in enumerate(patients) if name == patient]
        assert len({bool(held_out[i]) for i in rows}) == 1
        assert len({int(folds[i]) for i in rows}) == 1
    assert held_out.sum() == 18
    assert set(folds.tolist()) == {0, 1, 2, 3, 4}


def test_the_split_does_not_depend_on_the_order_of_the_images() -> None:
    patients = [f"p{i // 2}" for i in range(40)]
    labels = np.array([(i // 2) % 2 for i in range(40)])
    first = {p for p, held in zip(patients, hold_out_patients(labels, patients, 0.25, 3), strict=True) if held}
    order = np.random.default_rng(0).permutation(40)
    shuffled = [patients[i] for i in order]
    again = {p for p, held in zip(shuffled, hold_out_patients(labels[order], shuffled, 0.25, 3), strict=True) if held}
    assert first == again


def test_one_patient_in_a_class_can_not_be_split() -> None:
    with pytest.raises(ConfigError, match="at least 2"):
        hold_out_patients(np.array([0, 0, 1]), ["a", "b", "c"], 0.2, 0)


def test_the_same_number_of_every_class_is_drawn_from_the_candidates() -> None:
    labels = np.arange(60) % 3
    candidates = np.arange(60) < 45
    drawn = draw_labels(labels, candidates, 4, seed=1)
    assert np.bincount(labels[drawn]).tolist() == [4, 4, 4]
    assert not (drawn & ~candidates).any()
    assert (drawn == draw_labels(labels, candidates, 4, seed=1)).all()
    assert (drawn != draw_labels(labels, candidates, 4, seed=2)).any()


def test_more_labels_than_there_are_can_not_be_drawn() -> None:
    with pytest.raises(ConfigError, match=r"asks for 5 images; class 1 has 3"):
        draw_labels(np.array([0] * 9 + [1] * 3), np.ones(12, dtype=np.bool_), 5, seed=0)
