"""The decision rule: the only place where scores are compared with thresholds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from edge_agent.array_types import Float32Array
from edge_agent.imaging.quality import QUALITY_MESSAGES
from edge_agent.inference.manifest import Manifest, OperatingPoint
from edge_agent.records import NO_FINDING, Decision, Reason, probability_text

SCORE_DIGITS = 6
"""Decimals of a probability in a record. Scores are rounded before they are compared, so that a record and its decision always agree."""


class Judgement(NamedTuple):
    """What the decision rule makes of one image's scores; see :class:`edge_agent.records.Record` for ``label`` and ``findings``.

    ``label`` and ``findings`` follow the operating points also where the decision is "review". ``reason`` says why a person must look; None
    where nobody must.
    """

    label: str
    findings: list[str]
    decision: Decision
    reason: Reason | None


def point_scores(points: Sequence[OperatingPoint], labels: Sequence[str], probabilities: Float32Array) -> Float32Array:
    """Give the scores that are compared with the thresholds of operating points.

    Parameters
    ----------
    points : sequence of OperatingPoint
    labels : sequence of str
        The model's, in its order.
    probabilities : ndarray, float32, shape (..., labels)
        From :meth:`edge_agent.inference.scoring.LabelScorer.probabilities`.

    Returns
    -------
    ndarray, float32, shape (..., points)
        Sums of each point's labels, at most 1.
    """
    belongs = np.array([[label in point.labels for point in points] for label in labels], dtype=np.float64)
    # In float64, so that a sum of rounded scores is that sum and not a neighbour of it.
    return np.asarray(np.minimum(probabilities.astype(np.float64) @ belongs, 1.0), dtype=np.float32)


def decide(manifest: Manifest, scores: Mapping[str, float], novelty: float, quality: Sequence[str]) -> Judgement:
    """Turn scores into label, findings and decision.

    Parameters
    ----------
    manifest : Manifest
        Labels and decision rule.
    scores : mapping of str to float
        Calibrated probability of each label, in label order, rounded to ``SCORE_DIGITS`` decimals.
    novelty : float
        Distance from the training images in units of the limit: above 1 is unlike them.
    quality : sequence of str
        Flags of :func:`edge_agent.imaging.quality.assess_quality`.

    Returns
    -------
    Judgement
        Where the image is novel, the reason says so first and leaves out its scores, which mean nothing then.
    """
    rule = manifest.decision
    reached = point_scores(rule.points, manifest.labels, np.array([scores[label] for label in manifest.labels], dtype=np.float32))
    answers = [_Answer(point, round(float(score), SCORE_DIGITS)) for point, score in zip(rule.points, reached, strict=True)]
    positive = [answer for answer in answers if answer.is_positive]
    if manifest.task == "multilabel":
        findings = [answer.point.labels[0] for answer in positive]
        label = max(positive, key=_Answer.lead).point.labels[0] if positive else NO_FINDING
        doubts = _doubts_of_findings(answers)
    else:
        findings = []
        side = [name for name in manifest.labels if (name in manifest.positive) == bool(positive)]
        ranked = sorted(side, key=lambda name: -scores[name])
        label = ranked[0]
        doubts = _doubts_of_classes(manifest, answers[0], ranked, scores)
    causes: list[Reason] = []
    # "not <=" so that a novelty that is not a number leads to review too.
    if not novelty <= 1.0:
        causes.append(
            Reason(
                "novel",
                f"unlike the images this model was made from ({manifest.population}): novelty {novelty:.1f}, limit 1."
                " Do not use the score; a trained person must read this image",
            )
        )
    causes += [Reason(flag, QUALITY_MESSAGES[flag]) for flag in quality]
    if novelty <= 1.0 and doubts:
        text = ", and ".join(doubt.message for doubt in doubts)
        causes.append(Reason(doubts[0].code, f"{text}; a trained person must read it"))
    if causes:
        return Judgement(label, findings, "review", Reason(causes[0].code, "; ".join(cause.message for cause in causes)))
    return Judgement(label, findings, "positive" if positive else "negative", None)


class _Answer(NamedTuple):
    """One operating point and the score that is compared with its threshold."""

    point: OperatingPoint
    score: float

    @property
    def is_positive(self) -> bool:
        return self.score >= self.point.threshold

    @property
    def is_uncertain(self) -> bool:
        return self.point.review_low <= self.score <= self.point.review_high

    def lead(self) -> float:
        """How far the score lies above the threshold, in log odds: the scale on which rare and common findings compare."""
        return _log_odds(self.score) - _log_odds(self.point.threshold)


def _doubts_of_findings(answers: list[_Answer]) -> list[Reason]:
    uncertain = [answer for answer in answers if answer.is_uncertain]
    if not uncertain:
        return []
    named = [
        f"{answer.point.labels[0]} ({probability_text(answer.score)}, limit {probability_text(answer.point.threshold)})"
        for answer in uncertain
    ]
    return [Reason("uncertain", f"too close to tell: {', '.join(named)}")]


def _doubts_of_classes(manifest: Manifest, answer: _Answer, ranked: list[str], scores: Mapping[str, float]) -> list[Reason]:
    doubts = []
    if answer.is_uncertain:
        of_labels = "" if manifest.task == "binary" else f" of {' or '.join(answer.point.labels)}"
        doubts.append(Reason("uncertain", f"the score {answer.score:.2f}{of_labels} lies close to the limit {answer.point.threshold:.2f}"))
    if len(ranked) > 1:
        first, second = ranked[:2]
        if round(scores[first] - scores[second], SCORE_DIGITS) < manifest.decision.label_margin:
            doubts.append(Reason("ambiguous", f"hard to tell {first} ({scores[first]:.2f}) from {second} ({scores[second]:.2f})"))
    return doubts


def _log_odds(probability: float) -> float:
    clipped = min(max(probability, 1e-7), 1.0 - 1e-7)
    return math.log(clipped) - math.log1p(-clipped)
