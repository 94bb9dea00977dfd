"""Where thresholds are compared: the only place."""

from __future__ import annotations

from edge_agent.imaging.quality import QUALITY_MESSAGES
from edge_agent.inference.bundle import Manifest
from edge_agent.records import Decision, Reason


def decide(manifest: Manifest, probability: float, novelty: float, quality: list[str]) -> tuple[str, Decision, Reason | None]:
    """Turn a score into a label and a decision.

    Parameters
    ----------
    manifest : Manifest
        Labels and decision rule.
    probability : float
        Calibrated, of the positive label.
    novelty : float
        Distance from the training images in units of the limit: above 1 is unlike them.
    quality : list of str
        Flags of :func:`edge_agent.imaging.quality.assess_quality`.

    Returns
    -------
    label : str
        The class at the operating point, also where the decision is "review".
    decision : {"positive", "negative", "review"}
    reason : Reason or None
        Why eyes are asked for; None where they are not. A novel image comes first, and no more is said of its score: it means nothing.
    """
    rule = manifest.decision
    positive = probability >= rule.threshold
    label = next(name for name in manifest.labels if (name in manifest.positive) == positive)
    causes: list[Reason] = []
    # "not <=" so that a novelty that is not a number asks for eyes too.
    if not novelty <= 1.0:
        causes.append(
            Reason(
                "novel",
                f"unlike the images this model was made from ({manifest.population}): novelty {novelty:.1f}, limit 1."
                " Do not use the score; a trained person must read this image",
            )
        )
    causes += [Reason(flag, QUALITY_MESSAGES[flag]) for flag in quality]
    if novelty <= 1.0 and rule.review_low <= probability <= rule.review_high:
        causes.append(
            Reason("uncertain", f"the score {probability:.2f} lies close to the limit {rule.threshold:.2f}; a trained person must read it")
        )
    if causes:
        return label, "review", Reason(causes[0].code, "; ".join(cause.message for cause in causes))
    return label, "positive" if positive else "negative", None
