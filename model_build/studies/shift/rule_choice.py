"""Which rule for the operating point and which calibration loses least at the next hospital: each is held against a shift it never saw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from edge_agent.inference.decision import point_scores
from edge_agent.inference.head import Calibration
from edge_agent.inference.scoring import calibrate
from model_build.array_types import BoolArray, Float32Array, Float64Array, Int64Array
from model_build.config import DecisionConfig
from model_build.data.split import patient_folds
from model_build.evaluation.calibration import FITTERS, image_log_losses
from model_build.evaluation.judged_labels import judged_columns
from model_build.evaluation.measured_run import MeasuredRun
from model_build.evaluation.operating_point import choose_operating_point
from model_build.heads.fit import scored_labels
from model_build.metrics.bootstrap import estimate_columns
from model_build.metrics.curves import expected_calibration_error
from model_build.studies.shift.result import CalibrationChoice, ChosenOn, PointChoice, ShiftChoices
from model_build.studies.shift.simulation import ShiftOutputs, mean_of_known, rates, run_probabilities
from model_build.studies.shift.transforms import AS_IT_IS, SHIFTS

Choice = tuple[str, ChosenOn]

RULES: dict[str, DecisionConfig] = {
    "sensitivity 0.95": DecisionConfig(target_sensitivity=0.95),
    "sensitivity 0.97": DecisionConfig(target_sensitivity=0.97),
    "specificity 0.95": DecisionConfig(rule="target_specificity", target_specificity=0.95),
    "specificity 0.97": DecisionConfig(rule="target_specificity", target_specificity=0.97),
    "Youden": DecisionConfig(rule="youden"),
    "cost 2 : 1": DecisionConfig(rule="cost", cost_missed=2.0, cost_false_alarm=1.0, prevalence=0.5),
}
CHOSEN_ON: tuple[ChosenOn, ...] = ("as they are", "and other shifts")
_FOLD_COUNT = 5
_CALIBRATION_OF_POINTS = "temperature"
"""A calibration keeps the order of the scores, so that it does not move the point of a binary task: one will do for all rules."""


@dataclass(frozen=True)
class ShiftFold:
    """One fit of the comparison: on the rows (of ``ShiftOutputs``) and images that it may see, for those it is counted on."""

    seen_rows: Int64Array
    seen_images: Int64Array
    counted_rows: Int64Array
    counted_images: Int64Array


def compare_choices(run: MeasuredRun, outputs: ShiftOutputs, on_step: Callable[[int, str], None]) -> ShiftChoices:
    """Choose every point and fit every calibration with one family of shifts left out, and count on that family, on other patients.

    Parameters
    ----------
    run : MeasuredRun
    outputs : ShiftOutputs
        From :func:`~model_build.studies.shift.simulation.embed_under_shift`.
    on_step : callable
        Called with how many of the ``len(CHOSEN_ON)`` steps are done, and the name of the last one.

    Returns
    -------
    ShiftChoices
        Patients are split into five folds, or are those of the run where it has several models.

    Raises
    ------
    ConfigError
        If a label is so rare that a fold leaves no image with it.
    """
    held_out, source = run.held_out, run.config.source
    folds = held_out.folds
    if len(run.models) == 1:
        folds = patient_folds(_strata(held_out.targets), [str(code) for code in held_out.patients.tolist()], _FOLD_COUNT, run.config.seed)
    groups = [point.labels for point in run.measured.decision.points]
    truth = np.stack([held_out.targets[:, [source.labels.index(label) for label in group]].any(axis=1) for group in groups], axis=1)
    kept = judged_columns(truth.sum(axis=0))
    heads = [source.labels.index(label) for label in scored_labels(source.labels, run.config.task, source.positive)]
    head_truth = held_out.targets[:, heads]
    predicted: dict[Choice, BoolArray] = {}
    calibrated: dict[Choice, Float32Array] = {}
    for step, chosen_on in enumerate(CHOSEN_ON):
        for rule in RULES:
            predicted[rule, chosen_on] = np.empty((len(outputs.logits), *truth.shape), np.bool_)
        for method in FITTERS:
            calibrated[method, chosen_on] = np.empty(outputs.logits.shape, np.float32)
        for fold in shift_folds(folds, chosen_on):
            fits = _fit_all(outputs, head_truth, fold)
            for method, fitted in fits.items():
                _put(calibrated[method, chosen_on], fold, _calibrate(outputs, fold, fitted))
            for rule, outcome in _choose_all(run, outputs, truth, fold, fits[_CALIBRATION_OF_POINTS]).items():
                _put(predicted[rule, chosen_on], fold, outcome)
        on_step(step + 1, f"points chosen on images {chosen_on}")
    outcomes = {choice: outcome[:, :, kept] for choice, outcome in predicted.items()}
    return ShiftChoices(
        points=_point_figures(outcomes, truth[:, kept], held_out.patients, run.config.seed),
        calibrations=_calibration_figures(calibrated, head_truth, held_out.patients, run.config.seed),
    )


def _strata(targets: BoolArray) -> Int64Array:
    """Of each image: the combination of its labels."""
    return np.asarray(np.unique(targets, axis=0, return_inverse=True)[1].reshape(-1), np.int64)


def shift_folds(folds: Int64Array, chosen_on: ChosenOn) -> Iterator[ShiftFold]:
    """Split images and shifts so that every image is counted once under every shift, by fits that saw neither.

    Parameters
    ----------
    folds : ndarray, int64, shape (images,)
        Images of one patient in one fold.
    chosen_on : str
        Whether a fit sees the images as they are only, or under the shifts of the other families too.
    """
    families = np.array([AS_IT_IS.family, *(shift.family for shift in SHIFTS)])
    rows = np.arange(len(families))
    for number in np.unique(folds):
        here, rest = np.flatnonzero(folds == number), np.flatnonzero(folds != number)
        if chosen_on == "as they are":
            yield ShiftFold(rows[:1], rest, rows, here)
            continue
        for family in np.unique(families):
            # Images as they are may always be seen: a build has them.
            yield ShiftFold(rows[(families != family) | (rows == 0)], rest, rows[families == family], here)


def _put(into: NDArray[np.generic], fold: ShiftFold, values: NDArray[np.generic]) -> None:
    into[np.ix_(fold.counted_rows, fold.counted_images)] = values


def _fit_all(outputs: ShiftOutputs, head_truth: BoolArray, fold: ShiftFold) -> dict[str, list[Calibration]]:
    """Every kind of calibration, one for each head."""
    logits = outputs.logits[np.ix_(fold.seen_rows, fold.seen_images)].reshape(-1, head_truth.shape[1])
    positive = np.tile(head_truth[fold.seen_images], (len(fold.seen_rows), 1))
    with threadpool_limits(limits=1, user_api="blas"):
        return {name: [fit(logits[:, i], positive[:, i]) for i in range(positive.shape[1])] for name, fit in FITTERS.items()}


def _calibrate(outputs: ShiftOutputs, fold: ShiftFold, fitted: Sequence[Calibration]) -> Float32Array:
    logits = outputs.logits[np.ix_(fold.counted_rows, fold.counted_images)]
    return np.stack([calibrate(one, logits[:, :, i]) for i, one in enumerate(fitted)], axis=2)


def _choose_all(
    run: MeasuredRun, outputs: ShiftOutputs, truth: BoolArray, fold: ShiftFold, fitted: Sequence[Calibration]
) -> dict[str, BoolArray]:
    """What each rule predicts of the images counted, shape (rows, images, points)."""
    points, labels = run.measured.decision.points, run.config.source.labels

    def scores(rows: Int64Array, images: Int64Array) -> Float32Array:
        return np.stack(
            [point_scores(points, labels, run_probabilities(run.config, outputs.logits[row, images], fitted)) for row in rows.tolist()]
        )

    seen, counted = scores(fold.seen_rows, fold.seen_images), scores(fold.counted_rows, fold.counted_images)
    positive = np.tile(truth[fold.seen_images], (len(fold.seen_rows), 1))
    outcomes = {}
    for name, rule in RULES.items():
        thresholds = [
            choose_operating_point(seen[:, :, i].reshape(-1), positive[:, i], point.labels, rule).threshold
            for i, point in enumerate(points)
        ]
        outcomes[name] = np.asarray(counted >= thresholds)
    return outcomes


def _mean_under_shift(predicted: BoolArray, truth: BoolArray, weights: Float64Array) -> Float64Array:
    """Balanced accuracy, mean over points and shifts, shape (draws,); predicted is (1 + shifts, images, points)."""
    each = np.stack([mean_of_known(np.stack(rates(row, truth, weights))) for row in predicted[1:]])
    return np.asarray(each.mean(axis=(0, 1)))


def _point_figures(predicted: dict[Choice, BoolArray], truth: BoolArray, patients: Int64Array, seed: int) -> list[PointChoice]:
    once = np.ones((1, len(truth)))
    best = max(predicted, key=lambda choice: float(_mean_under_shift(predicted[choice], truth, once)[0]))

    def every_mean(weights: Float64Array) -> Float64Array:
        means = np.stack([_mean_under_shift(outcome, truth, weights) for outcome in predicted.values()], axis=1)
        return np.concatenate([means, means[:, [list(predicted).index(best)]] - means], axis=1)

    estimates = estimate_columns(patients, every_mean, seed)
    found = []
    for index, ((rule, chosen_on), outcome) in enumerate(predicted.items()):
        both = [[float(mean_of_known(side)[0]) for side in rates(row, truth, once)] for row in outcome]
        balanced, (sensitivity, specificity) = np.mean(both, axis=1), np.array(both[1:]).T
        worst = int(balanced[1:].argmin())
        found.append(
            PointChoice(
                rule=rule,
                chosen_on=chosen_on,
                as_they_are=float(balanced[0]),
                mean=estimates[index],
                behind_best=estimates[len(predicted) + index],
                worst=float(balanced[1 + worst]),
                worst_shift=SHIFTS[worst].name,
                mean_sensitivity=float(sensitivity.mean()),
                lowest_sensitivity=float(sensitivity.min()),
                mean_specificity=float(specificity.mean()),
                lowest_specificity=float(specificity.min()),
            )
        )
    return found


def _calibration_figures(
    calibrated: dict[Choice, Float32Array], head_truth: BoolArray, patients: Int64Array, seed: int
) -> list[CalibrationChoice]:
    once = np.ones(len(head_truth))
    # Of each image, mean over its heads: (images, 1 + shifts).
    losses = {
        choice: np.stack([image_log_losses(row, head_truth).mean(axis=1) for row in probabilities], axis=1)
        for choice, probabilities in calibrated.items()
    }
    best = min(losses, key=lambda choice: float(losses[choice][:, 1:].mean()))
    of_image = np.stack([loss[:, 1:].mean(axis=1) for loss in losses.values()], axis=1)
    compared = np.concatenate([of_image, of_image - of_image[:, [list(losses).index(best)]]], axis=1)
    estimates = estimate_columns(patients, lambda weights: weights @ compared / weights.sum(axis=1, keepdims=True), seed)
    found = []
    for index, ((method, chosen_on), probabilities) in enumerate(calibrated.items()):
        loss = losses[method, chosen_on].mean(axis=0)
        worst = int(loss[1:].argmax())
        errors = [
            float(expected_calibration_error(row[:, i], head_truth[:, i], once)[0])
            for row in probabilities[1:]
            for i in range(head_truth.shape[1])
        ]
        found.append(
            CalibrationChoice(
                method=method,
                chosen_on=chosen_on,
                as_they_are=float(loss[0]),
                mean=estimates[index],
                behind_best=estimates[len(losses) + index],
                worst=float(loss[1 + worst]),
                worst_shift=SHIFTS[worst].name,
                mean_error=float(np.mean(errors)),
            )
        )
    return found
