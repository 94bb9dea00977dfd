"""Turn the logits of a head into probabilities: three ways to fit it on held-out images, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from edge_agent.errors import ConfigError
from edge_agent.inference.head import Calibration, IsotonicCalibration, PlattCalibration, TemperatureCalibration
from edge_agent.inference.scoring import calibrate
from model_build.array_types import BoolArray, Float32Array, Float64Array, Int64Array
from model_build.config import CalibrationMethod
from model_build.data.split import patient_folds

FOLD_COUNT = 5
UNCALIBRATED = "uncalibrated"
_LEAST_SLOPE = 1e-3
"""A head whose held-out logits rank the wrong way round gets next to no slope, never a negative one: a calibration rescales an order and
does not reverse it. A temperature is the inverse of such a slope."""
_TILT = 0.05
"""Half of what the log odds rise along a step of the isotonic curve."""
_ROUNDING = 1e-9
"""The most that two means of the same targets differ by rounding."""


class ChosenCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """A calibration, and how it did against the others.

    ``log_losses`` holds the mean log loss in nats of each method, and of the logits as they are (``uncalibrated``), on held-out images
    whose patients the method was not fitted on.
    """

    calibration: Calibration
    method: str
    log_losses: dict[str, float]


def smoothed_targets(positive: BoolArray) -> Float64Array:
    """Platt's targets: a little above 0 and below 1, as if each class had one more image on the wrong side, shape (images,).

    References
    ----------
    Platt, Probabilistic Outputs for Support Vector Machines, 1999, section 2.2.
    """
    positives, negatives = int(positive.sum()), int((~positive).sum())
    return np.where(positive, (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0))


def fit_platt(logits: Float32Array, positive: BoolArray) -> PlattCalibration:
    """Fit slope and intercept by the log loss against smoothed targets, so that a separable set stays finite.

    Parameters
    ----------
    logits : ndarray, float32, shape (images,)
        Of held-out images.
    positive : ndarray, bool, shape (images,)

    Returns
    -------
    PlattCalibration
        The slope is positive; next to 0 where the logits rank the wrong way round.

    References
    ----------
    Platt, Probabilistic Outputs for Support Vector Machines, 1999, section 2.2.
    """
    slope, intercept = _fit_logistic(logits, positive, with_intercept=True)
    if slope < _LEAST_SLOPE:
        share = float(smoothed_targets(positive).mean())
        slope, intercept = _LEAST_SLOPE, float(np.log(share) - np.log1p(-share) - _LEAST_SLOPE * logits.mean(dtype=np.float64))
    return PlattCalibration(slope=slope, intercept=intercept)


def fit_temperature(logits: Float32Array, positive: BoolArray) -> TemperatureCalibration:
    """Fit the one number that the logits are divided by, against smoothed targets.

    Parameters
    ----------
    logits : ndarray, float32, shape (images,)
        Of held-out images.
    positive : ndarray, bool, shape (images,)

    Returns
    -------
    TemperatureCalibration
        Logit 0 stays probability 0.5: how frequent the classes are among the held-out images has no say.

    Notes
    -----
    Not scikit-learn's ``CalibratedClassifierCV(method="temperature")``: it has no smoothed targets, and the slope on a binary decision
    function is twice its ``beta_``.

    References
    ----------
    Guo et al., On Calibration of Modern Neural Networks, ICML 2017, section 4.2.
    """
    slope, _ = _fit_logistic(logits, positive, with_intercept=False)
    return TemperatureCalibration(temperature=1.0 / max(slope, _LEAST_SLOPE))


def fit_isotonic(logits: Float32Array, positive: BoolArray) -> IsotonicCalibration:
    """Fit the rising steps nearest to the smoothed targets, each tilted a little.

    Parameters
    ----------
    logits : ndarray, float32, shape (images,)
        Of held-out images.
    positive : ndarray, bool, shape (images,)

    Returns
    -------
    IsotonicCalibration
        The two ends of each step. Along a step the odds rise by 10 % at most, so that its images keep their order and an operating point
        can stand between them. Probabilities lie strictly inside (0, 1), as the targets do.

    References
    ----------
    Zadrozny and Elkan, Transforming Classifier Scores into Accurate Multiclass Probability Estimates, KDD 2002.
    """
    from sklearn.isotonic import isotonic_regression

    at, place, counts = np.unique(logits.astype(np.float64), return_inverse=True, return_counts=True)
    mean_target = np.bincount(place, weights=smoothed_targets(positive)) / counts
    fitted: Float64Array = isotonic_regression(mean_target, sample_weight=counts)
    starts = np.flatnonzero(np.append(True, np.diff(fitted) > _ROUNDING))
    ends = np.append(starts[1:], len(at)) - 1
    odds = np.log(fitted[starts]) - np.log1p(-fitted[starts])
    # Less where the next step is near: no step may reach into it. None where all its images have one logit.
    gaps = np.concatenate([[np.inf], np.diff(odds), [np.inf]])
    tilt = np.where(starts < ends, np.minimum(_TILT, np.minimum(gaps[:-1], gaps[1:]) / 3.0), 0.0)
    points = np.stack([at[starts], odds - tilt, at[ends], odds + tilt], axis=1).reshape(-1, 2)
    if len(at) == 1:  # a line needs two points
        points[1, 0] += 1.0
    points = points[np.append(True, np.diff(points[:, 0]) > 0.0)]
    return IsotonicCalibration(logits=points[:, 0].tolist(), probabilities=(1.0 / (1.0 + np.exp(-points[:, 1]))).tolist())


FITTERS: dict[str, Callable[[Float32Array, BoolArray], Calibration]] = {
    "temperature": fit_temperature,
    "platt": fit_platt,
    "isotonic": fit_isotonic,
}


def choose_calibration(
    logits: Float32Array, positive: BoolArray, patients: Sequence[str], method: CalibrationMethod, seed: int
) -> ChosenCalibration:
    """Fit the calibration that the config names, or the one that its log loss on other patients speaks for.

    Parameters
    ----------
    logits : ndarray, float32, shape (images,)
        Of held-out images, uncalibrated.
    positive : ndarray, bool, shape (images,)
    patients : sequence of str
        The patient of each image: all images of one fall into the same fold.
    method : {"simplest", "best", "temperature", "platt", "isotonic"}
        "best" and "simplest" compare by five folds over patients. "simplest" takes the first of temperature, Platt and isotonic whose loss
        exceeds the lowest one by no more than that one's standard error.
    seed : int
        Of the folds.

    Returns
    -------
    ChosenCalibration
        Fitted on all the images given; the log losses are cross-fitted.

    Raises
    ------
    ConfigError
        If all images are of one patient.

    References
    ----------
    Breiman, Friedman, Olshen and Stone, Classification and Regression Trees, 1984, section 3.4.3 (the rule of one standard error).
    """
    fold_count = min(FOLD_COUNT, len(set(patients)))
    if fold_count < 2:
        raise ConfigError("calibration needs held-out images of 2 patients or more; give more patients or raise source.held_out_fraction")
    folds = patient_folds(positive.astype(np.int64), patients, fold_count, seed)
    # Fits of two numbers: on several threads BLAS waits for itself, and each takes many times as long.
    with threadpool_limits(limits=1, user_api="blas"):
        scores = {name: _cross_fitted(fit, logits, positive, folds) for name, fit in FITTERS.items()}
    scores[UNCALIBRATED] = calibrate(TemperatureCalibration(temperature=1.0), logits)
    losses = {name: log_loss(probabilities, positive) for name, probabilities in scores.items()}
    best = min(FITTERS, key=lambda name: losses[name])
    if method == "simplest":
        most = losses[best] + _standard_error(image_log_losses(scores[best], positive), patients)
        chosen = next(name for name in FITTERS if losses[name] <= most)
    else:
        chosen = best if method == "best" else method
    return ChosenCalibration(calibration=FITTERS[chosen](logits, positive), method=chosen, log_losses=losses)


def log_loss(probabilities: NDArray[np.floating], positive: BoolArray) -> float:
    """Mean of ``-log`` of the probability given to the truth, in nats; probabilities are held within 1e-6 of 0 and 1."""
    return float(image_log_losses(probabilities, positive).mean())


def image_log_losses(probabilities: NDArray[np.floating], positive: BoolArray) -> Float64Array:
    """As :func:`log_loss`, of each probability by itself, in any shape."""
    clipped = np.clip(np.asarray(probabilities, np.float64), 1e-6, 1.0 - 1e-6)
    return np.asarray(-np.log(np.where(positive, clipped, 1.0 - clipped)))


def _standard_error(values: Float64Array, patients: Sequence[str]) -> float:
    """Of a mean over images, where the images of a patient are not independent."""
    _, codes = np.unique(np.asarray(patients), return_inverse=True)
    of_patient = np.bincount(codes, weights=values - values.mean())
    return float(np.sqrt((of_patient**2).sum()) / len(values))


def _cross_fitted(
    fit: Callable[[Float32Array, BoolArray], Calibration], logits: Float32Array, positive: BoolArray, folds: Int64Array
) -> Float32Array:
    """The probability of each image by the calibration fitted on the other folds, shape (images,)."""
    probabilities = np.empty(len(logits), np.float32)
    for fold in np.unique(folds):
        here = folds == fold
        probabilities[here] = calibrate(fit(logits[~here], positive[~here]), logits[here])
    return probabilities


def _fit_logistic(logits: Float32Array, positive: BoolArray, *, with_intercept: bool) -> tuple[float, float]:
    """Slope and intercept of a logistic regression on smoothed targets: each image counts for both classes, by its share of each."""
    from sklearn.linear_model import LogisticRegression

    share = smoothed_targets(positive)
    column = np.concatenate([logits, logits]).astype(np.float64)[:, np.newaxis]
    classes = np.repeat([1, 0], len(logits))
    model = LogisticRegression(C=1e6, max_iter=2000, fit_intercept=with_intercept)
    model.fit(column, classes, sample_weight=np.concatenate([share, 1.0 - share]))
    return float(model.coef_[0, 0]), float(model.intercept_[0]) if with_intercept else 0.0
