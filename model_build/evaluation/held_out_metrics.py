"""From the outputs on held-out patients to a decision rule and to figures: calibration, operating points, novelty limit, metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from edge_agent.errors import ConfigError
from edge_agent.inference.decision import point_scores
from edge_agent.inference.head import Calibration, TemperatureCalibration
from edge_agent.inference.manifest import DecisionRule, OperatingPoint
from model_build.array_types import BoolArray, Float32Array, Int64Array
from model_build.config import BuildConfig
from model_build.data.split import patient_folds
from model_build.evaluation.calibration import ChosenCalibration, choose_calibration
from model_build.evaluation.judged_labels import judged_columns
from model_build.evaluation.operating_point import choose_operating_point, threshold_interval
from model_build.heads.fit import label_probabilities, scored_labels
from model_build.metrics.bootstrap import Estimate, estimate_figure, patient_draws
from model_build.metrics.classification import (
    Confusion,
    Scored,
    class_counts,
    confusion,
    estimate_metrics,
    label_aucs,
    point_scored,
    predicted_labels,
    roc_auc,
)

_CROSS_FIT_FOLDS = 5


class Counts(msgspec.Struct, frozen=True):
    """Images and patients of one side of the split, and images per label."""

    images: int
    patients: int
    per_label: dict[str, int]


class PointMeasured(msgspec.Struct, frozen=True, kw_only=True):
    """One operating point and what it gives on the held-out patients.

    ``metrics`` are at the point as it ships; ``metrics_cross_fitted`` has calibration and point chosen on other patients than those that
    are counted. ``float_int8_agreement`` is the share of images on the same side of the point. ``baseline_auc`` is what a logistic
    regression on raw pixels reaches on the same images.
    """

    name: str
    point: OperatingPoint
    threshold_interval: Estimate
    metrics: dict[str, Estimate]
    metrics_cross_fitted: dict[str, Estimate]
    confusion: Confusion
    positives: int
    float_auc: float
    int8_auc: float
    float_int8_agreement: float
    baseline_auc: Estimate


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured on held-out patients, with models that never saw them.

    ``fold_count`` is 0 for one held-out split. ``overall`` has figures over all labels: mean AUC and (cross-fitted) accuracy where an image
    has one of several classes, mean AUC where it may have several findings; empty for binary tasks. ``class_confusion`` is
    ``counts[truth, said]``, cross-fitted; empty in multilabel tasks. ``calibrations`` are in the order of the heads.
    """

    official_split: bool
    fold_count: int
    training: Counts
    held_out: Counts
    points: list[PointMeasured]
    overall: dict[str, Estimate]
    class_confusion: list[list[int]]
    calibrations: list[ChosenCalibration]
    decision: DecisionRule
    novel_share_held_out: float
    review_share_held_out: float
    epoch_losses: list[float]


@dataclass(frozen=True)
class HeldOutOutputs:
    """What the measured models give for images that they never saw, in one order.

    ``logits``, ``float_logits`` (the same heads on the float CNN's embedding) and ``baseline_logits`` (of raw pixels, not calibrated) are
    float32, shape (images, heads); ``distances`` float32, shape (images,), from the training images; ``targets`` bool, shape
    (images, labels); ``strata`` and ``indices`` (places in the image set) int64, shape (images,); ``folds`` int64: the model that gave the
    outputs.
    """

    logits: Float32Array
    float_logits: Float32Array
    baseline_logits: Float32Array
    distances: Float32Array
    targets: BoolArray
    strata: Int64Array
    patients: list[str]
    indices: Int64Array
    folds: Int64Array


@dataclass(frozen=True)
class DecisionOnHeldOut:
    """The decision rule with its calibrations, and the held-out images' probabilities, float32, shape (images, labels).

    ``cross_fitted`` are the probabilities, and ``cross_predicted`` (bool, shape (images, points)) the outcomes, with calibration and points
    chosen on the other folds' patients.
    """

    calibrations: list[ChosenCalibration]
    rule: DecisionRule
    probabilities: Float32Array
    cross_fitted: Float32Array
    cross_predicted: BoolArray


def _calibrate(outputs: HeldOutOutputs, chosen: BoolArray, config: BuildConfig) -> list[ChosenCalibration]:
    source = config.source
    patients = [patient for patient, taken in zip(outputs.patients, chosen.tolist(), strict=True) if taken]
    found = []
    for column, label in enumerate(scored_labels(source.labels, config.task, source.positive)):
        positive = outputs.targets[chosen, source.labels.index(label)]
        if positive.all() or not positive.any():
            raise ConfigError(
                f"too few held-out patients with and without {label!r} to choose an operating point; give more data, raise"
                " source.held_out_fraction or set source.folds"
            )
        found.append(choose_calibration(outputs.logits[chosen, column], positive, patients, config.head.calibration, config.seed))
    return found


def _probabilities(logits: Float32Array, calibrations: Sequence[ChosenCalibration], config: BuildConfig) -> Float32Array:
    chosen = [entry.calibration for entry in calibrations]
    return label_probabilities(config.task, config.source.labels, config.source.positive, logits, chosen)


def _choose_points(probabilities: Float32Array, targets: BoolArray, config: BuildConfig) -> list[OperatingPoint]:
    labels, positive = config.source.labels, config.source.positive
    groups = [[label] for label in labels] if config.task == "multilabel" else [list(positive)]
    decision = config.decision
    if decision.review_fraction:
        # The share is one of images. Bands that never overlap would add up to it; those that do send fewer images to a person.
        decision = msgspec.structs.replace(decision, review_fraction=decision.review_fraction / len(groups))
    points = []
    for group in groups:
        columns = [labels.index(label) for label in group]
        has_any: BoolArray = np.logical_or.reduce(targets[:, columns], axis=1)
        points.append(choose_operating_point(probabilities[:, columns].sum(axis=1), has_any, group, decision))
    return points


def _label_margins(probabilities: Float32Array, predicted: BoolArray, config: BuildConfig) -> Float32Array:
    """By how much the best class of the winning side leads the next one; 1 where that side has no other class."""
    on_positive_side = np.array([label in config.source.positive for label in config.source.labels])
    allowed = on_positive_side[np.newaxis] == predicted[:, :1]
    ordered = np.sort(np.where(allowed, probabilities, np.nan), axis=1)  # NaN last
    counts = allowed.sum(axis=1)
    rows = np.arange(len(ordered))
    gaps = ordered[rows, counts - 1] - ordered[rows, np.maximum(counts - 2, 0)]
    return np.asarray(np.where(counts > 1, gaps, 1.0), dtype=np.float32)


def calibrate_and_choose(outputs: HeldOutOutputs, config: BuildConfig) -> DecisionOnHeldOut:
    """Calibrate, and choose operating points, review bands and novelty limit on the held-out patients.

    Parameters
    ----------
    outputs : HeldOutOutputs
    config : BuildConfig

    Returns
    -------
    DecisionOnHeldOut

    Raises
    ------
    ConfigError
        If a label is too rare among the held-out patients.
    """
    source = config.source
    everything = np.ones(len(outputs.strata), np.bool_)
    calibrations = _calibrate(outputs, everything, config)
    probabilities = _probabilities(outputs.logits, calibrations, config)
    points = _choose_points(probabilities, outputs.targets, config)
    margin = 0.0
    if config.task == "multiclass" and config.decision.review_fraction:
        predicted = point_scores(points, source.labels, probabilities) >= points[0].threshold
        margin = float(np.quantile(_label_margins(probabilities, predicted, config), config.decision.review_fraction))
    rule = DecisionRule(
        points=points,
        label_margin=margin,
        novelty_limit=float(np.quantile(outputs.distances, config.decision.novelty_quantile)),
        novelty_quantile=config.decision.novelty_quantile,
    )
    folds = outputs.folds
    if len(np.unique(folds)) == 1:
        folds = patient_folds(outputs.strata, outputs.patients, _CROSS_FIT_FOLDS, config.seed)
    cross_fitted, cross_predicted = np.zeros_like(probabilities), np.zeros((len(folds), len(points)), np.bool_)
    for fold in np.unique(folds):
        rest, here = folds != fold, folds == fold
        others = _calibrate(outputs, rest, config)
        known = _probabilities(outputs.logits[rest], others, config)
        cross_fitted[here] = _probabilities(outputs.logits[here], others, config)
        chosen = _choose_points(known, outputs.targets[rest], config)
        cross_predicted[here] = point_scores(chosen, source.labels, cross_fitted[here]) >= [point.threshold for point in chosen]
    return DecisionOnHeldOut(calibrations, rule, probabilities, cross_fitted, cross_predicted)


def _measure_point(
    scored: Scored, crossed: Scored, float_scores: Float32Array, baseline_scores: Float32Array, point: OperatingPoint, config: BuildConfig
) -> PointMeasured:
    metrics_cross_fitted = estimate_metrics(crossed, config.seed)
    del metrics_cross_fitted["auc"]  # pooled over different calibrations: not one ranking
    return PointMeasured(
        name=" or ".join(point.labels),
        point=point,
        threshold_interval=threshold_interval(scored.probabilities, scored.positive, scored.patients, config.decision, config.seed),
        metrics=estimate_metrics(scored, config.seed),
        metrics_cross_fitted=metrics_cross_fitted,
        confusion=confusion(scored.positive, scored.predicted),
        positives=int(scored.positive.sum()),
        float_auc=roc_auc(float_scores, scored.positive, scored.folds),
        int8_auc=roc_auc(scored.probabilities, scored.positive, scored.folds),
        float_int8_agreement=float(((float_scores >= point.threshold) == scored.predicted).mean()),
        baseline_auc=estimate_metrics(replace(scored, probabilities=baseline_scores), config.seed)["auc"],
    )


def _overall(
    outputs: HeldOutOutputs, decided: DecisionOnHeldOut, baseline: Float32Array, folds: Int64Array | None, config: BuildConfig
) -> tuple[dict[str, Estimate], Int64Array]:
    """Figures over all labels, and the classes said, shape (images,), both cross-fitted; the classes are empty in multilabel tasks."""
    draws, targets = patient_draws(outputs.patients, config.seed), outputs.targets
    columns = judged_columns(targets.sum(axis=0))

    def mean_auc(probabilities: Float32Array, chosen: Int64Array) -> float:
        values = label_aucs(probabilities[chosen][:, columns], targets[chosen][:, columns], None if folds is None else folds[chosen])
        return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")

    overall = {
        "mean_auc": estimate_figure(lambda i: mean_auc(decided.probabilities, i), draws),
        "mean_auc_raw_pixels": estimate_figure(lambda i: mean_auc(baseline, i), draws),
    }
    if config.task == "multilabel":
        return overall, np.zeros(0, np.int64)
    said = predicted_labels(decided.rule.points, config.source.labels, decided.cross_fitted, decided.cross_predicted)
    truth, most_probable = targets.argmax(axis=1), decided.cross_fitted.argmax(axis=1)
    overall["accuracy"] = estimate_figure(lambda i: float((said[i] == truth[i]).mean()), draws)
    overall["accuracy_most_probable"] = estimate_figure(lambda i: float((most_probable[i] == truth[i]).mean()), draws)
    overall["mean_recall"] = estimate_figure(
        lambda i: float(np.mean([(said[i][truth[i] == label] == label).mean() for label in np.unique(truth[i])])), draws
    )
    return ({} if config.task == "binary" else overall), said


def review_mask(rule: DecisionRule, probabilities: Float32Array, config: BuildConfig) -> BoolArray:
    """Images whose score asks for eyes, bool, shape (images,), by their probabilities (images, labels); novelty and quality left out."""
    scores = point_scores(rule.points, config.source.labels, probabilities)
    in_band = np.stack([(scores[:, i] >= p.review_low) & (scores[:, i] <= p.review_high) for i, p in enumerate(rule.points)], axis=1)
    asked = in_band.any(axis=1)
    if rule.label_margin > 0:
        predicted = scores >= [point.threshold for point in rule.points]
        asked |= _label_margins(probabilities, predicted, config) < rule.label_margin
    return np.asarray(asked)


def measure(
    outputs: HeldOutOutputs,
    decided: DecisionOnHeldOut,
    config: BuildConfig,
    *,
    official_split: bool,
    training: Counts,
    held_out: Counts,
    epoch_losses: Sequence[float],
) -> Measured:
    """Count and estimate everything that the report says of the held-out patients.

    Parameters
    ----------
    outputs, decided : HeldOutOutputs, DecisionOnHeldOut
    config : BuildConfig
    official_split : bool
        Whether the split is the data set's own.
    training, held_out : Counts
        Who was trained on, and who was not.
    epoch_losses : sequence of float
        Mean training loss of each epoch, over the folds where there are several.
    """
    source, rule = config.source, decided.rule
    model_count = len(np.unique(outputs.folds))
    folds = outputs.folds if model_count > 1 else None
    common = (source.labels, decided.probabilities, outputs.targets, outputs.patients, folds)
    float_probabilities = _probabilities(outputs.float_logits, decided.calibrations, config)
    float_scores = point_scores(rule.points, source.labels, float_probabilities)
    uncalibrated: list[Calibration] = [TemperatureCalibration(temperature=1.0)] * outputs.logits.shape[1]
    baseline = label_probabilities(config.task, source.labels, source.positive, outputs.baseline_logits, uncalibrated)
    baseline_scores = point_scores(rule.points, source.labels, baseline)
    scored = point_scored(rule.points, *common)
    crossed = point_scored(
        rule.points,
        source.labels,
        decided.cross_fitted,
        outputs.targets,
        outputs.patients,
        folds,
        predicted=decided.cross_predicted,
    )
    overall, said = _overall(outputs, decided, baseline, folds, config)
    counts = class_counts(outputs.targets.argmax(axis=1), said, len(source.labels)).tolist() if len(said) else []
    return Measured(
        official_split=official_split,
        fold_count=model_count if model_count > 1 else 0,
        training=training,
        held_out=held_out,
        points=[
            _measure_point(scored[i], crossed[i], float_scores[:, i], baseline_scores[:, i], point, config)
            for i, point in enumerate(rule.points)
        ],
        overall=overall,
        class_confusion=counts,
        calibrations=decided.calibrations,
        decision=rule,
        novel_share_held_out=float((outputs.distances > rule.novelty_limit).mean()),
        review_share_held_out=float(review_mask(rule, decided.probabilities, config).mean()),
        epoch_losses=list(epoch_losses),
    )
