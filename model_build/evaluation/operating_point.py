"""Choose, on held-out images, from which score on an image counts as positive, and which scores go to a person."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_agent.errors import ConfigError
from edge_agent.inference.manifest import OperatingPoint
from model_build.array_types import BoolArray, Float32Array, Float64Array, Int64Array
from model_build.config import DecisionConfig
from model_build.metrics.bootstrap import Estimate, estimate_figure, patient_draws
from model_build.metrics.curves import log_odds

MAX_REVIEW_SHARE = 0.5
"""A band that sends more than this share to a person leaves the model nothing to decide."""
_OUTER_MARGIN = 0.5
"""How far a threshold lies outside the lowest and the highest score, where it is midway between no two."""
_ROUNDING = 1e-9


def choose_operating_point(scores: Float32Array, positive: BoolArray, labels: Sequence[str], config: DecisionConfig) -> OperatingPoint:
    """Choose threshold and review band by the rule that the config names.

    Parameters
    ----------
    scores : ndarray, float32, shape (images,)
        Calibrated probabilities of held-out images: of one label, or the sum over ``labels``.
    positive : ndarray, bool, shape (images,)
        Whether the image has one of ``labels``.
    labels : sequence of str
        What the point is for.
    config : DecisionConfig

    Returns
    -------
    OperatingPoint
        The threshold stands midway between the two scores it separates, in log odds: no score given lies on it. The band is symmetric
        around it in log odds, and no score lies on its edges; equally far scores fall into it together, as the two next to the threshold
        always do. ``target`` says what was asked for, and what was not reached.

    Raises
    ------
    ConfigError
        If all images are positive, or none is; or if no threshold reaches a target specificity, since too many scores are exactly 1.
    """
    _refuse_one_side(positive, " or ".join(labels))
    threshold = _choose_threshold(scores, positive, config)
    centre = log_odds(np.array(threshold))
    # The two scores next to the threshold are equally far from it but for rounding.
    distance = np.abs(log_odds(scores) - centre).round(9)
    # In float64, as the device compares: rounded to float32, a threshold between two neighbours would be one of them.
    wrong = (scores.astype(np.float64) >= threshold) != positive
    half_width, missed_target = _band(distance, wrong, config)
    low, high = (float(1.0 / (1.0 + np.exp(-(centre + side * half_width)))) for side in (-1.0, 1.0))
    return OperatingPoint(
        labels=list(labels),
        threshold=threshold,
        target=_describe(config) + missed_target,
        # Rounding must not put the threshold outside its own band.
        review_low=min(low, threshold),
        review_high=max(high, threshold),
    )


def threshold_interval(
    scores: Float32Array, positive: BoolArray, patients: Sequence[str] | Int64Array, config: DecisionConfig, seed: int
) -> Estimate:
    """The threshold with the 95 % interval that the choice of held-out patients leaves it, on the probability scale.

    Parameters
    ----------
    scores, positive, config
        As for :func:`choose_operating_point`.
    patients : sequence of str or ndarray, int64, shape (images,)
        The patient of each image.
    seed : int
        Of the bootstrap over patients.

    Returns
    -------
    Estimate
        Percentiles over 1,000 draws of patients; a draw without one of the classes is passed over. The calibration stays as it is.

    Raises
    ------
    ConfigError
        As :func:`choose_operating_point`.
    """
    _refuse_one_side(positive, "positive")

    def threshold(drawn: Int64Array) -> float:
        return _choose_threshold(scores[drawn], positive[drawn], config) if 0 < positive[drawn].sum() < len(drawn) else float("nan")

    return estimate_figure(threshold, patient_draws(patients, seed))


def _refuse_one_side(positive: BoolArray, name: str) -> None:
    if positive.all() or not positive.any():
        raise ConfigError(
            f"{'no' if not positive.any() else 'every'} held-out image is {name}: an operating point needs both sides;"
            " give more images of what is missing, or raise source.held_out_fraction"
        )


def _choose_threshold(scores: Float32Array, positive: BoolArray, config: DecisionConfig) -> float:
    positives = int(positive.sum())
    levels, place = np.unique(scores.astype(np.float64), return_inverse=True)
    # Cut i calls positive what stands at level i or above; the last cut calls nothing positive.
    below_positive = np.append(0, np.cumsum(np.bincount(place, weights=positive)))
    below_negative = np.append(0, np.cumsum(np.bincount(place, weights=~positive)))
    sensitivity, specificity = 1.0 - below_positive / positives, below_negative / (len(positive) - positives)
    if levels[-1] >= 1.0:  # no threshold lies above it
        sensitivity, specificity = sensitivity[:-1], specificity[:-1]
    return _threshold_at(_choose_cut(sensitivity, specificity, positives / len(positive), config), levels)


def _choose_cut(sensitivity: Float64Array, specificity: Float64Array, positive_share: float, config: DecisionConfig) -> int:
    """The index of the cut that the rule asks for; sensitivity falls and specificity rises along the cuts."""
    if config.target_sensitivity is not None:
        return int(np.flatnonzero(sensitivity >= config.target_sensitivity - _ROUNDING)[-1])
    if config.target_specificity is not None:
        reached = np.flatnonzero(specificity >= config.target_specificity - _ROUNDING)
        if len(reached) == 0:
            raise ConfigError(
                f"no threshold reaches decision.target_specificity = {config.target_specificity:g}:"
                " too many negative images have the score 1; lower the target or choose another head"
            )
        return int(reached[0])
    if config.cost_missed is not None and config.cost_false_alarm is not None:
        prevalence = positive_share if config.prevalence is None else config.prevalence
        loss = config.cost_missed * prevalence * (1.0 - sensitivity) + config.cost_false_alarm * (1.0 - prevalence) * (1.0 - specificity)
    else:
        loss = 2.0 - sensitivity - specificity
    # Of several equally good cuts the lowest: it misses the fewest.
    return int(np.flatnonzero(loss <= loss.min() + _ROUNDING)[0])


def _threshold_at(cut: int, levels: Float64Array) -> float:
    """The probability midway, in log odds, between the levels on both sides of a cut."""
    odds = log_odds(levels)
    if cut == 0:
        return min(_probability(odds[0] - _OUTER_MARGIN), float(levels[0]) / 2.0)
    low = float(levels[cut - 1])
    high = float(levels[cut]) if cut < len(levels) else 1.0
    between = _probability((odds[cut - 1] + odds[cut]) / 2.0 if cut < len(levels) else odds[-1] + _OUTER_MARGIN)
    # log_odds holds what is next to 0 or 1 for equal; there the plain mean still separates the two.
    return between if low < between < high else (low + high) / 2.0


def _band(distance: Float64Array, wrong: BoolArray, config: DecisionConfig) -> tuple[float, str]:
    """Half the width of the review band in log odds, and the note on it where the target was not reached."""
    if config.review_target_error is None:
        return _half_width(distance, round((config.review_fraction or 0.0) * len(distance))), ""
    # A band ends behind all images of one distance: `inside` and `wrong_inside` count them, band by band, from the empty one on.
    _, place = np.unique(distance, return_inverse=True)
    inside = np.append(0, np.cumsum(np.bincount(place)))
    wrong_inside = np.append(0, np.cumsum(np.bincount(place, weights=wrong)))
    allowed = inside <= MAX_REVIEW_SHARE * len(distance)
    error = (wrong.sum() - wrong_inside[allowed]) / (len(distance) - inside[allowed])
    reached = np.flatnonzero(error <= config.review_target_error + _ROUNDING)
    best = int(reached[0]) if len(reached) else int(np.argmin(error))
    missed = "" if len(reached) else f" (not reached by sending half of the images to review: {error[best]:.3g})"
    return _half_width(distance, int(inside[best])), missed


def _half_width(distance: Float64Array, count: int) -> float:
    """Half the width of the narrowest band that holds ``count`` images and those as far as the last of them; 0 for none."""
    if count == 0:
        return 0.0
    last = np.sort(distance)[count - 1]
    farther = distance[distance > last]
    return float((last + farther.min()) / 2.0) if len(farther) else float(last + _OUTER_MARGIN)


def _describe(config: DecisionConfig) -> str:
    if config.target_sensitivity is not None:
        text = f"held-out sensitivity of {config.target_sensitivity:g}"
    elif config.target_specificity is not None:
        text = f"held-out specificity of {config.target_specificity:g}"
    elif config.cost_missed is not None and config.cost_false_alarm is not None:
        where = "as frequent as among the held-out images" if config.prevalence is None else f"prevalence {config.prevalence:g}"
        text = f"lowest held-out cost: {config.cost_missed:g} for a missed image, {config.cost_false_alarm:g} for a false alarm, {where}"
    else:
        text = "highest held-out sum of sensitivity and specificity"
    if config.review_target_error is not None:
        text += f"; at most {config.review_target_error:g} wrong among the images decided"
    return text


def _probability(odds: float) -> float:
    return float(1.0 / (1.0 + np.exp(-odds)))
