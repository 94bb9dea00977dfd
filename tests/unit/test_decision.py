"""Thresholds: which side, which reason, which comes first."""

from __future__ import annotations

import math

import pytest

from edge_agent.imaging.preprocess import InputContract
from edge_agent.imaging.quality import QUALITY_MESSAGES
from edge_agent.inference.bundle import DecisionRule, Manifest
from edge_agent.inference.decision import decide

MANIFEST = Manifest(
    format=1,
    name="a",
    version="1",
    serial=1,
    task="binary",
    labels=["NORMAL", "SICK"],
    positive=["SICK"],
    input=InputContract(rows=8, columns=8),
    decision=DecisionRule(threshold=0.6, target="", review_low=0.5, review_high=0.7, novelty_limit=3.0, novelty_quantile=0.98),
    population="children",
    intended_use="triage",
    limitations=[],
    metrics={},
    training={},
    files={},
)


@pytest.mark.parametrize(
    ("probability", "label", "decision"),
    [(0.0, "NORMAL", "negative"), (0.49, "NORMAL", "negative"), (0.71, "SICK", "positive"), (1.0, "SICK", "positive")],
)
def test_clear_scores_decide(probability: float, label: str, decision: str) -> None:
    assert decide(MANIFEST, probability, 0.5, []) == (label, decision, None)


@pytest.mark.parametrize(("probability", "label"), [(0.5, "NORMAL"), (0.59, "NORMAL"), (0.6, "SICK"), (0.7, "SICK")])
def test_the_review_band_asks_for_eyes_and_keeps_the_label(probability: float, label: str) -> None:
    got_label, decision, reason = decide(MANIFEST, probability, 0.5, [])
    assert (got_label, decision) == (label, "review")
    assert reason is not None
    assert reason.code == "uncertain"


@pytest.mark.parametrize("novelty", [1.01, 50.0, math.inf, math.nan])
def test_a_novel_image_is_never_decided(novelty: float) -> None:
    _, decision, reason = decide(MANIFEST, 1.0, novelty, [])
    assert decision == "review"
    assert reason is not None
    assert reason.code == "novel"
    assert "children" in reason.message


def test_novelty_comes_before_quality_and_silences_the_score() -> None:
    flag = next(iter(QUALITY_MESSAGES))
    _, decision, reason = decide(MANIFEST, 0.6, 2.0, [flag])
    assert decision == "review"
    assert reason is not None
    assert reason.code == "novel"
    assert QUALITY_MESSAGES[flag] in reason.message
    assert "0.60" not in reason.message


@pytest.mark.parametrize("flag", sorted(QUALITY_MESSAGES))
def test_every_quality_flag_asks_for_eyes(flag: str) -> None:
    _, decision, reason = decide(MANIFEST, 1.0, 0.1, [flag])
    assert decision == "review"
    assert reason is not None
    assert (reason.code, reason.message) == (flag, QUALITY_MESSAGES[flag])
