"""Fit the classical head on the int8 embedding, calibrate it, and choose how scores become decisions."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from edge_agent.inference.head import Head, PlattCalibration
from edge_agent.inference.scoring import make_scorer
from model_build.config import DecisionConfig, HeadConfig
from model_build.estimators import FITTERS

Floats = NDArray[np.float32]


def fit_head(embeddings: Floats, positive: NDArray[np.bool_], label: str, config: HeadConfig) -> Head:
    """Fit the kind of head that the config names, with balanced classes.

    Parameters
    ----------
    embeddings : ndarray, float32, shape (images, D)
        What the int8 model gives, dequantised: the same numbers that the device will see.
    positive : ndarray, bool, shape (images,)
    label : str
        Name of the positive label.
    config : HeadConfig

    Returns
    -------
    Head
        Not calibrated yet (slope 1, intercept 0).
    """
    return FITTERS[config.kind](embeddings, positive, label, config.regularization)


def fit_platt(logits: Floats, positive: NDArray[np.bool_]) -> PlattCalibration:
    """Fit slope and intercept on held-out logits, with Platt's smoothed targets so that a separable set stays finite.

    References
    ----------
    Platt, Probabilistic Outputs for Support Vector Machines, 1999, section 2.2.
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    high, low = (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0)
    column = np.concatenate([logits, logits])[:, np.newaxis]
    targets = np.concatenate([np.ones(len(logits)), np.zeros(len(logits))])
    share = np.where(positive, high, low)
    model = LogisticRegression(C=1e6, max_iter=2000).fit(column, targets, sample_weight=np.concatenate([share, 1.0 - share]))
    return PlattCalibration(float(model.coef_[0, 0]), float(model.intercept_[0]))


def calibrated(head: Head, calibration: PlattCalibration) -> Head:
    """The same head with another calibration."""
    return msgspec.structs.replace(head, calibration=calibration)


@dataclass(frozen=True)
class OperatingPoint:
    """Threshold and review band on the calibrated probability."""

    threshold: float
    review_low: float
    review_high: float


def choose_operating_point(probabilities: Floats, positive: NDArray[np.bool_], config: DecisionConfig) -> OperatingPoint:
    """Choose the highest threshold that keeps the target sensitivity, and the review band around it.

    Parameters
    ----------
    probabilities : ndarray, float32, shape (images,)
        Calibrated, of held-out images.
    positive : ndarray, bool, shape (images,)
    config : DecisionConfig
        Target sensitivity and the share of images in the review band.

    Returns
    -------
    OperatingPoint
        The threshold stands midway between the two scores it separates, in log odds: no held-out score lies on it. The band is symmetric in
        log odds.
    """
    odds = np.sort(_log_odds(probabilities[positive]))
    missed = int(np.floor((1.0 - config.target_sensitivity) * len(odds) + 1e-9))
    every = np.sort(_log_odds(probabilities))
    below = every[every < odds[missed]]
    centre = float((odds[missed] + below[-1]) / 2.0) if len(below) else float(odds[missed] - 0.5)
    half_width = float(np.quantile(np.abs(every - centre), config.review_fraction)) if config.review_fraction > 0 else 0.0
    return OperatingPoint(_probability(centre), _probability(centre - half_width), _probability(centre + half_width))


def _log_odds(probabilities: Floats) -> NDArray[np.float64]:
    clipped = np.clip(probabilities.astype(np.float64), 1e-7, 1.0 - 1e-7)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _probability(log_odds: float) -> float:
    return float(1.0 / (1.0 + np.exp(-log_odds)))


def head_logits(head: Head, embeddings: Floats) -> Floats:
    """Uncalibrated logits, computed by the very code that runs on the device."""
    return make_scorer(head).logits(embeddings)


def head_probabilities(head: Head, embeddings: Floats) -> Floats:
    """Calibrated probabilities, computed by the very code that runs on the device."""
    return make_scorer(head).probabilities(embeddings)
