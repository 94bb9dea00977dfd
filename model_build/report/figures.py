"""Which figures the HTML report of a build shows, and the numbers that stand in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.inference.decision import point_scores
from model_build.array_types import BoolArray, Float32Array, Float64Array, Int64Array
from model_build.config import BuildConfig
from model_build.evaluation.held_out_metrics import Measured, review_mask
from model_build.evaluation.held_out_outputs import HeldOut
from model_build.metrics.bootstrap import Estimate, patient_quantiles
from model_build.metrics.classification import Scored, point_scored
from model_build.metrics.curves import RiskCoverage, expected_calibration_error
from model_build.plots import COLOURS
from model_build.report import curve_figures, score_figures
from model_build.report.page import Drawing
from model_build.report.result import Report
from model_build.report.tables import distance_from_points, wrong_share
from model_build.report.training_figure import draw_training
from model_build.training.epoch_log import Epoch

_WORDS = {
    "roc": "ROC curve",
    "precision_recall": "Precision-recall curve",
    "class_roc": "ROC curve of each class",
    "class_precision_recall": "Precision-recall curve of each class",
    "confusion": "Confusion matrix",
    "scores": "Histogram of scores",
    "reliability": "Reliability diagram",
    "risk_coverage": "Risk-coverage curve",
    "training": "Training curve",
}
_WORDS_OF_FINDINGS = {"roc": "ROC curves", "precision_recall": "Precision-recall curves"}


@dataclass(frozen=True)
class Evidence:
    """The held-out images as the report looks at them.

    ``scored`` has them at each operating point, ``folds`` None where one model scored all; ``reviewed``, bool, shape (images,), are those
    that the bundle sends to review for their score.
    """

    kept: HeldOut
    measured: Measured
    config: BuildConfig
    folds: Int64Array | None
    scored: list[Scored]
    reviewed: BoolArray

    @property
    def thresholds(self) -> list[float]:
        """Of the operating points."""
        return [entry.point.threshold for entry in self.measured.points]


def gather_evidence(kept: HeldOut, report: Report, config: BuildConfig) -> Evidence:
    """Look at the held-out images through the operating points of the report."""
    measured = report.measured
    folds = kept.folds if measured.fold_count else None
    points = [entry.point for entry in measured.points]
    scored = point_scored(points, config.source.labels, kept.probabilities, kept.targets, kept.patients, folds)
    return Evidence(kept, measured, config, folds, scored, review_mask(measured.decision, kept.probabilities, config))


@dataclass(frozen=True)
class CalibrationError:
    """The expected calibration error of one label, on probabilities that were calibrated on other patients."""

    name: str
    error: Estimate


def _calibrated(evidence: Evidence) -> list[tuple[str, Float32Array, BoolArray]]:
    """What the report shows as calibrated: the positive label, every class or every finding, with cross-fitted probabilities and truth."""
    kept, labels = evidence.kept, evidence.config.source.labels
    if evidence.config.task == "binary":
        point = evidence.measured.points[0].point
        return [(point.labels[0], point_scores([point], labels, kept.cross_fitted)[:, 0], evidence.scored[0].positive)]
    return [(label, kept.cross_fitted[:, i], kept.targets[:, i]) for i, label in enumerate(labels)]


def measure_calibration_errors(evidence: Evidence) -> list[CalibrationError]:
    """Expected calibration error of every calibrated label, with its interval over patients."""
    found = []
    for name, probabilities, positive in _calibrated(evidence):

        def error(weights: Float64Array, own: Float32Array = probabilities, truth: BoolArray = positive) -> Float64Array:
            return expected_calibration_error(own, truth, weights)

        value = float(error(np.ones(len(positive)))[0])
        quantiles = patient_quantiles(evidence.kept.patients, error, evidence.config.seed, (0.025, 0.5, 0.975))
        low, middle, high = (float(quantile[0]) for quantile in quantiles)
        # Resampling adds noise to every bin, so that draws lie above the value: the interval is moved down by as much.
        found.append(CalibrationError(name, Estimate(value, max(0.0, low - middle + value), high - middle + value)))
    return found


def _draw_threshold_curves(evidence: Evidence) -> dict[str, bytes]:
    kept, config, points = evidence.kept, evidence.config, evidence.measured.points
    curves = [
        curve_figures.measure_curves(entry.name, scored, kept.patients, config.seed, with_point=True)
        for entry, scored in zip(points, evidence.scored, strict=True)
    ]
    if config.task == "multilabel":
        return {kind: curve_figures.draw_curve_panels([curve[kind] for curve in curves]) for kind in curves[0]}
    drawn: dict[str, bytes] = {kind: curve_figures.draw_curves([curves[0][kind]]) for kind in curves[0]}
    if config.task == "multiclass":
        classes = curve_figures.against_the_rest(
            kept.probabilities, kept.targets, kept.patients, evidence.folds, config.source.labels, config.seed
        )
        draw = curve_figures.draw_curves if len(classes) <= len(COLOURS) else curve_figures.draw_curve_panels
        drawn |= {f"class_{kind}": draw([curve[kind] for curve in classes]) for kind in classes[0]}
    return drawn


def _draw_scores(evidence: Evidence) -> bytes:
    entry, scored = evidence.measured.points[0], evidence.scored[0]
    others = " or ".join(label for label in evidence.config.source.labels if label not in entry.point.labels)
    band = entry.point.review_low, entry.point.review_high
    return score_figures.draw_scores(scored.probabilities, scored.positive, (others, entry.name), entry.point.threshold, band)


def draw_figures(
    evidence: Evidence, counts: Int64Array, labels: Sequence[str], errors: Sequence[CalibrationError], epochs: Sequence[Epoch]
) -> dict[str, Drawing]:
    """Every figure that the task of the build has, by name.

    Parameters
    ----------
    evidence : Evidence
    counts : ndarray, int64, shape (classes, classes)
        The confusion matrix ``counts[truth, said]`` of ``labels``; empty where an image may have several.
    labels : sequence of str
    errors : sequence of CalibrationError
        From :func:`measure_calibration_errors`.
    epochs : sequence of Epoch
        Empty where nothing was trained.
    """
    drawn = _draw_threshold_curves(evidence)
    shown = [
        score_figures.Calibrated(name, probabilities, positive, known.error.value)
        for (name, probabilities, positive), known in zip(_calibrated(evidence), errors, strict=True)
    ]
    drawn["reliability"] = score_figures.draw_reliability(shown[0]) if len(shown) == 1 else score_figures.draw_reliability_panels(shown)
    risk = RiskCoverage(distance_from_points(evidence.scored, evidence.thresholds), wrong_share(evidence.scored))
    what = "wrong findings" if evidence.config.task == "multilabel" else "wrong labels"
    decided = 1.0 - evidence.measured.review_share_held_out
    drawn["risk_coverage"] = score_figures.draw_risk_coverage(risk, evidence.kept.patients, decided, what, evidence.config.seed)
    if len(counts):
        drawn["confusion"] = score_figures.draw_confusion(counts, labels)
    if evidence.config.task != "multilabel":
        drawn["scores"] = _draw_scores(evidence)
    if epochs:
        drawn["training"] = draw_training(epochs)
    words = _WORDS | (_WORDS_OF_FINDINGS if evidence.config.task == "multilabel" else {})
    if len(shown) > 1:
        words["reliability"] = "Reliability diagrams"
    return {name: Drawing(words[name], content) for name, content in drawn.items()}
