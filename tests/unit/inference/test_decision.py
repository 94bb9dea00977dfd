"""Thresholds: which side, which label, which findings, which reason, which comes first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.imaging.preprocess import InputContract
from edge_agent.imaging.quality import QUALITY_MESSAGES
from edge_agent.inference.decision import SCORE_DIGITS, Judgement, decide, point_scores
from edge_agent.inference.manifest import DecisionRule, Manifest, OperatingPoint
from edge_agent.records import NO_FINDING, Task


def a_point(*labels: str, threshold: float = 0.6, low: float = 0.5, high: float = 0.7) -> OperatingPoint:
    return OperatingPoint(labels=list(labels), threshold=threshold, target="", review_low=low, review_high=high)


def a_manifest(task: Task, labels: list[str], positive: list[str], *points: OperatingPoint, label_margin: float = 0.0) -> Manifest:
    return Manifest(
        format=2,
        name="a",
        version="1",
        serial=1,
        task=task,
        labels=labels,
        positive=positive,
        input=InputContract(rows=8, columns=8),
        decision=DecisionRule(points=list(points), label_margin=label_margin, novelty_limit=3.0, novelty_quantile=0.98),
        population="children",
        intended_use="triage",
        limitations=[],
        metrics={},
        training={},
        files={},
    )


BINARY = a_manifest("binary", ["NORMAL", "SICK"], ["SICK"], a_point("SICK"))
CLASSES = a_manifest(
    "multiclass",
    ["normal", "device", "bacterial", "viral"],
    ["bacterial", "viral"],
    a_point("bacterial", "viral", threshold=0.4, low=0.35, high=0.45),
    label_margin=0.1,
)
FINDINGS = a_manifest(
    "multilabel",
    ["Effusion", "Mass", "Hernia"],
    ["Effusion", "Mass", "Hernia"],
    a_point("Effusion", threshold=0.5, low=0.45, high=0.55),
    a_point("Mass", threshold=0.6, low=0.55, high=0.65),
    a_point("Hernia", threshold=0.02, low=0.018, high=0.03),
)


def sick(probability: float) -> dict[str, float]:
    return {"NORMAL": round(1.0 - probability, SCORE_DIGITS), "SICK": probability}


def classes(*scores: float) -> dict[str, float]:
    return dict(zip(CLASSES.labels, scores, strict=True))


def findings(*scores: float) -> dict[str, float]:
    return dict(zip(FINDINGS.labels, scores, strict=True))


def reason_of(judgement: Judgement) -> tuple[str, str]:
    assert judgement.decision == "review"
    assert judgement.reason is not None
    return judgement.reason.code, judgement.reason.message


@pytest.mark.parametrize(
    ("probability", "label", "decision"),
    [(0.0, "NORMAL", "negative"), (0.49, "NORMAL", "negative"), (0.71, "SICK", "positive"), (1.0, "SICK", "positive")],
)
def test_clear_scores_decide(probability: float, label: str, decision: str) -> None:
    assert decide(BINARY, sick(probability), 0.5, []) == (label, [], decision, None)


@pytest.mark.parametrize(("probability", "label"), [(0.5, "NORMAL"), (0.59, "NORMAL"), (0.6, "SICK"), (0.7, "SICK")])
def test_the_review_band_asks_for_eyes_and_keeps_the_label(probability: float, label: str) -> None:
    judgement = decide(BINARY, sick(probability), 0.5, [])
    assert judgement.label == label
    message = f"the score {probability:.2f} lies close to the limit 0.60; a trained person must read it"
    assert reason_of(judgement) == ("uncertain", message)


@pytest.mark.parametrize("novelty", [1.01, 50.0, math.inf, math.nan])
@pytest.mark.parametrize(("manifest", "scores"), [(BINARY, sick(1.0)), (CLASSES, classes(0, 0, 1, 0)), (FINDINGS, findings(1, 0, 0))])
def test_a_novel_image_is_never_decided(manifest: Manifest, scores: dict[str, float], novelty: float) -> None:
    code, message = reason_of(decide(manifest, scores, novelty, []))
    assert code == "novel"
    assert "children" in message


@pytest.mark.parametrize(
    ("manifest", "scores"), [(BINARY, sick(0.6)), (CLASSES, classes(0.1, 0.1, 0.4, 0.4)), (FINDINGS, findings(0.5, 0, 0))]
)
def test_novelty_comes_before_quality_and_silences_the_scores(manifest: Manifest, scores: dict[str, float]) -> None:
    assert reason_of(decide(manifest, scores, 0.9, []))[0] in {"uncertain", "ambiguous"}
    flag = next(iter(QUALITY_MESSAGES))
    code, message = reason_of(decide(manifest, scores, 2.0, [flag]))
    assert code == "novel"
    assert message.endswith(f"; {QUALITY_MESSAGES[flag]}")


@pytest.mark.parametrize("flag", sorted(QUALITY_MESSAGES))
def test_every_quality_flag_asks_for_eyes(flag: str) -> None:
    assert reason_of(decide(BINARY, sick(1.0), 0.1, [flag])) == (flag, QUALITY_MESSAGES[flag])


# multiclass


@pytest.mark.parametrize(
    ("scores", "label", "decision"),
    [
        ((0.9, 0.05, 0.03, 0.02), "normal", "negative"),
        ((0.2, 0.7, 0.05, 0.05), "device", "negative"),
        ((0.1, 0.0, 0.2, 0.7), "viral", "positive"),
        # The most probable class is normal, and yet all diseases together pass their limit: what the sum says, the label follows.
        ((0.48, 0.0, 0.4, 0.12), "bacterial", "positive"),
        # Neither disease passes the limit by itself.
        ((0.3, 0.1, 0.35, 0.25), "bacterial", "positive"),
    ],
)
def test_the_sum_of_the_positive_classes_decides_and_the_best_of_the_winning_side_is_said(
    scores: tuple[float, ...], label: str, decision: str
) -> None:
    assert decide(CLASSES, classes(*scores), 0.5, []) == (label, [], decision, None)


def test_two_classes_of_the_winning_side_that_are_hard_to_tell_apart_ask_for_eyes() -> None:
    judgement = decide(CLASSES, classes(0.1, 0.1, 0.38, 0.42), 0.5, [])
    assert judgement.label == "viral"
    assert reason_of(judgement) == ("ambiguous", "hard to tell viral (0.42) from bacterial (0.38); a trained person must read it")
    assert decide(CLASSES, classes(0.1, 0.1, 0.35, 0.45), 0.5, []).decision == "positive"  # just the margin
    # The losing side may be as close as it likes.
    assert decide(CLASSES, classes(0.05, 0.05, 0.3, 0.6), 0.5, []).decision == "positive"


def test_a_sum_close_to_its_limit_names_its_classes_and_both_doubts_are_told() -> None:
    code, message = reason_of(decide(CLASSES, classes(0.5, 0.11, 0.2, 0.19), 0.5, []))
    assert code == "uncertain"
    assert message == "the score 0.39 of bacterial or viral lies close to the limit 0.40; a trained person must read it"
    _, message = reason_of(decide(CLASSES, classes(0.3, 0.29, 0.21, 0.2), 0.5, []))
    assert message == (
        "the score 0.41 of bacterial or viral lies close to the limit 0.40, and hard to tell bacterial (0.21) from viral (0.20);"
        " a trained person must read it"
    )


# multilabel


def test_findings_are_those_above_their_own_limits_and_the_farthest_above_is_the_label() -> None:
    assert decide(FINDINGS, findings(0.9, 0.7, 0.01), 0.5, []) == ("Effusion", ["Effusion", "Mass"], "positive", None)
    # Rare findings have low limits: in odds, 0.2 lies farther above 0.02 than 0.9 above 0.5.
    assert decide(FINDINGS, findings(0.9, 0.1, 0.2), 0.5, []) == ("Hernia", ["Effusion", "Hernia"], "positive", None)


def test_without_a_finding_the_label_says_so() -> None:
    assert decide(FINDINGS, findings(0.3, 0.4, 0.0), 0.5, []) == (NO_FINDING, [], "negative", None)


def test_uncertain_findings_are_named_with_their_limits() -> None:
    judgement = decide(FINDINGS, findings(0.52, 0.1, 0.0199), 0.5, [])
    assert (judgement.label, judgement.findings) == ("Effusion", ["Effusion"])
    assert reason_of(judgement) == (
        "uncertain",
        "too close to tell: Effusion (0.52, limit 0.50), Hernia (0.020, limit 0.020); a trained person must read it",
    )


def test_a_certain_finding_of_probability_one_is_no_fault() -> None:
    sure = a_manifest("multilabel", ["A", "B"], ["A", "B"], a_point("A", threshold=1.0, high=1.0), a_point("B", threshold=0.0, low=0.0))
    assert decide(sure, {"A": 1.0, "B": 1.0}, 0.5, []).label == "B"


# What a record says never contradicts itself.

MILLIONTHS = 10**SCORE_DIGITS
shares = st.integers(0, MILLIONTHS)
labels_of_a_model = st.integers(3, 8).map(lambda count: [f"label {number}" for number in range(count)])


@st.composite
def bands(draw: st.DrawFn, labels: list[str]) -> OperatingPoint:
    low, threshold, high = sorted(draw(st.tuples(shares, shares, shares)))
    return a_point(*labels, threshold=threshold / MILLIONTHS, low=low / MILLIONTHS, high=high / MILLIONTHS)


def in_millionths(scores: Mapping[str, float], labels: list[str]) -> int:
    """The exact sum of scores as they stand in the record."""
    return sum(round(scores[label] * MILLIONTHS) for label in labels)


@given(st.data())
def test_a_binary_record_agrees_with_its_scores(data: st.DataObject) -> None:
    point = data.draw(bands(["SICK"]))
    score = data.draw(shares) / MILLIONTHS
    judgement = decide(a_manifest("binary", ["NORMAL", "SICK"], ["SICK"], point), sick(score), 0.5, [])
    is_positive, is_near = score >= point.threshold, point.review_low <= score <= point.review_high
    assert judgement.label == ("SICK" if is_positive else "NORMAL")
    assert judgement.decision == ("review" if is_near else "positive" if is_positive else "negative")
    assert (judgement.reason is not None) == is_near
    assert judgement.findings == []


@given(labels_of_a_model, st.data())
def test_a_multiclass_record_agrees_with_its_scores(labels: list[str], data: st.DataObject) -> None:
    positive = data.draw(st.lists(st.sampled_from(labels), min_size=1, max_size=len(labels) - 1, unique=True))
    point, margin = data.draw(bands(positive)), data.draw(shares)
    manifest = a_manifest("multiclass", labels, positive, point, label_margin=margin / MILLIONTHS)
    raw = data.draw(st.lists(st.floats(0.0, 1.0, width=32), min_size=len(labels), max_size=len(labels)).filter(any))
    scores = {label: round(value / sum(raw), SCORE_DIGITS) for label, value in zip(labels, raw, strict=True)}
    judgement = decide(manifest, scores, 0.5, [])
    total = min(in_millionths(scores, positive), MILLIONTHS)
    is_positive, is_near = total >= round(point.threshold * MILLIONTHS), point.review_low <= total / MILLIONTHS <= point.review_high
    side = sorted((scores[label] for label in labels if (label in positive) == is_positive), reverse=True)
    is_ambiguous = len(side) > 1 and round((side[0] - side[1]) * MILLIONTHS) < margin
    assert (judgement.label in positive) == is_positive
    assert scores[judgement.label] == side[0]
    assert judgement.decision == ("review" if is_near or is_ambiguous else "positive" if is_positive else "negative")
    assert (judgement.reason is not None) == (judgement.decision == "review")
    assert judgement.findings == []


@given(labels_of_a_model, st.data())
def test_a_multilabel_record_agrees_with_its_scores(labels: list[str], data: st.DataObject) -> None:
    points = [data.draw(bands([label])) for label in labels]
    scores = {label: data.draw(shares) / MILLIONTHS for label in labels}
    judgement = decide(a_manifest("multilabel", labels, labels, *points), scores, 0.5, [])
    limits: dict[str, Any] = dict(zip(labels, points, strict=True))
    near = [label for label in labels if limits[label].review_low <= scores[label] <= limits[label].review_high]
    assert judgement.findings == [label for label in labels if scores[label] >= limits[label].threshold]
    assert judgement.label in (judgement.findings or [NO_FINDING])
    assert judgement.decision == ("review" if near else "positive" if judgement.findings else "negative")
    assert all(f"{label} (" in reason_of(judgement)[1] for label in near)


@given(st.integers(0, 2**32 - 1), st.integers(2, 14))
def test_what_the_build_measures_is_what_the_device_compares(seed: int, count: int) -> None:
    """``point_scores`` of unrounded probabilities, as the build holds them, lie within a rounding of those in the record."""
    random = np.random.default_rng(seed)
    labels = [f"label {number}" for number in range(count)]
    points = [a_point(*labels[: count // 2]), a_point(labels[-1])]
    probabilities = random.dirichlet(np.ones(count), size=(3, 2)).astype(np.float32)
    given_scores = point_scores(points, labels, probabilities)
    assert given_scores.shape == (3, 2, 2)
    assert given_scores.dtype == np.float32
    np.testing.assert_allclose(given_scores[..., 0], probabilities[..., : count // 2].sum(axis=-1), atol=1e-6)
    np.testing.assert_array_equal(given_scores[..., 1], probabilities[..., -1])
    rounded = point_scores(points, labels, np.round(probabilities, SCORE_DIGITS))
    np.testing.assert_allclose(rounded, given_scores, atol=0.5e-6 * count + 1e-7)
