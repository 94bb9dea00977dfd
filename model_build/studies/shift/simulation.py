"""How the measured models of a run do on their held-out images under shift, at the decision rule of the build."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edge_agent.errors import ConfigError
from edge_agent.inference.head import Calibration
from edge_agent.inference.novelty import NoveltyScorer
from model_build.array_types import BoolArray, Float32Array, Float64Array
from model_build.config import BuildConfig
from model_build.data.images import ImageSet
from model_build.evaluation.held_out_metrics import review_mask
from model_build.evaluation.judged_labels import judged_columns
from model_build.evaluation.measured_run import MeasuredRun
from model_build.heads.embed import embed_images
from model_build.heads.fit import head_logits, label_probabilities
from model_build.metrics.bootstrap import Estimate, estimate_columns
from model_build.metrics.classification import Scored, point_scored
from model_build.metrics.curves import RankedScores
from model_build.studies.shift.result import ShiftFigures, ShiftSimulation
from model_build.studies.shift.transforms import AS_IT_IS, SHIFTS, ShiftedPixels

_FIGURES = ("auc", "sensitivity", "specificity", "balanced_accuracy")
_BALANCED = _FIGURES.index("balanced_accuracy")


@dataclass(frozen=True)
class ShiftOutputs:
    """What the measured models give for their held-out images: first as they are, then under each of ``SHIFTS``.

    ``logits`` is float32, shape (1 + shifts, images, heads), uncalibrated; ``distances``, float32, shape (1 + shifts, images).
    """

    logits: Float32Array
    distances: Float32Array


def embed_under_shift(run: MeasuredRun, images: ImageSet, on_shift: Callable[[int, str], None]) -> ShiftOutputs:
    """Embed the held-out images as they are and under every shift, each by the model that never saw it.

    Parameters
    ----------
    run : MeasuredRun
    images : ImageSet
        The images of the build, read in the same way.
    on_shift : callable
        Called with the number of shifts done, and the name of the last one.

    Raises
    ------
    ConfigError
        If these are other images than those of the build.
    """
    held_out = run.held_out
    known = held_out.indices < len(images.targets)
    if not known.all() or not np.array_equal(images.targets[held_out.indices], held_out.targets):
        raise ConfigError("these are not the images that the run was built from (other files or labels); give --data as it was then")
    shifts = (AS_IT_IS, *SHIFTS)
    logits = np.empty((len(shifts), len(held_out.indices), len(run.models[0].heads)), np.float32)
    distances = np.empty(logits.shape[:2], np.float32)
    for row, shift in enumerate(shifts):
        for number, fold in enumerate(run.models):
            here = np.flatnonzero(held_out.folds == number)
            embedded = embed_images(fold.model, ShiftedPixels(images.pixels, held_out.indices[here], shift))
            logits[row, here] = head_logits(fold.heads, embedded.embeddings)
            distances[row, here] = NoveltyScorer(fold.reference).distances(embedded.features)
        on_shift(row + 1, shift.name)
    return ShiftOutputs(logits, distances)


def measure_shifts(run: MeasuredRun, outputs: ShiftOutputs) -> ShiftSimulation:
    """Hold what the models gave under each shift against the run's own decision rule.

    Parameters
    ----------
    run : MeasuredRun
    outputs : ShiftOutputs
        From :func:`embed_under_shift`.

    Returns
    -------
    ShiftSimulation
        Intervals by bootstrap over patients, the same draws for every shift.
    """
    held_out, rule = run.held_out, run.measured.decision
    calibrations = [chosen.calibration for chosen in run.measured.calibrations]
    views = []
    for row in range(1 + len(SHIFTS)):
        probabilities = run_probabilities(run.config, outputs.logits[row], calibrations)
        novel = outputs.distances[row] > rule.novelty_limit
        views.append(_View(_points_seen(run, probabilities), review_mask(rule, probabilities, run.config), np.asarray(novel)))

    def every_figure(weights: Float64Array) -> Float64Array:
        figures = np.stack([view.figures(weights) for view in views], axis=1)
        mean_balanced = figures[:, 1:, _BALANCED].mean(axis=1, keepdims=True)
        return np.concatenate([figures.reshape(len(weights), -1), mean_balanced], axis=1)

    estimates = estimate_columns(held_out.patients, every_figure, run.config.seed)
    count = len(_FIGURES) + 1
    shifts = [
        ShiftFigures(
            name=shift.name,
            family=shift.family,
            **dict(zip(_FIGURES, estimates[row * count :], strict=False)),
            review_share=float(view.review.mean()),
            novel_share=float(view.novel.mean()),
            decided_balanced_accuracy=_known(estimates[(row + 1) * count - 1]),
        )
        for row, (shift, view) in enumerate(zip((AS_IT_IS, *SHIFTS), views, strict=True))
    ]
    return ShiftSimulation(
        images=len(held_out.indices),
        patients=len(np.unique(held_out.patients)),
        points=len(views[0].seen),
        as_they_are=shifts[0],
        shifts=shifts[1:],
        mean_balanced_accuracy=estimates[-1],
        worst=min(shifts[1:], key=lambda figures: figures.balanced_accuracy.value).name,
    )


def rates(predicted: BoolArray, positive: BoolArray, weights: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Sensitivity and specificity, each shape (draws, points), NaN where a side has no weight.

    Parameters
    ----------
    predicted, positive : ndarray, bool, shape (images, points)
    weights : ndarray, float64, shape (draws, images)
    """
    with np.errstate(invalid="ignore"):
        sensitivity = (weights @ (predicted & positive)) / (weights @ positive)
        specificity = (weights @ (~predicted & ~positive)) / (weights @ ~positive)
    return np.asarray(sensitivity), np.asarray(specificity)


def mean_of_known(values: Float64Array) -> Float64Array:
    """Mean over the last axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0.0).sum(axis=-1) / known.sum(axis=-1))


@dataclass(frozen=True)
class _View:
    """The images under one shift: through each operating point that counts, and which go to a person for their score or as novel."""

    seen: list[Scored]
    review: BoolArray
    novel: BoolArray

    def figures(self, weights: Float64Array) -> Float64Array:
        """Means over the points: those of ``_FIGURES``, then balanced accuracy of what is decided alone; shape (draws, figures)."""
        positive = np.stack([scored.positive for scored in self.seen], axis=1)
        predicted = np.stack([scored.predicted for scored in self.seen], axis=1)
        ranked = [RankedScores(scored.probabilities, scored.positive, scored.folds) for scored in self.seen]
        auc = mean_of_known(np.concatenate([one.auc(weights) for one in ranked], axis=1))
        sensitivity, specificity = rates(predicted, positive, weights)
        decided = np.stack(rates(predicted, positive, weights * (~self.review & ~self.novel))).mean(axis=0)
        columns = [sensitivity, specificity, (sensitivity + specificity) / 2.0, decided]
        return np.stack([auc, *(mean_of_known(column) for column in columns)], axis=1)


def run_probabilities(config: BuildConfig, logits: Float32Array, calibrations: Sequence[Calibration]) -> Float32Array:
    """What the device would make of the logits: float32, shape (images, labels)."""
    return label_probabilities(config.task, config.source.labels, config.source.positive, logits, calibrations)


def _points_seen(run: MeasuredRun, probabilities: Float32Array) -> list[Scored]:
    folds = run.held_out.folds if len(run.models) > 1 else None
    points, labels = run.measured.decision.points, run.config.source.labels
    seen = point_scored(points, labels, probabilities, run.held_out.targets, run.held_out.patients, folds)
    return [seen[index] for index in judged_columns(np.array([scored.positive.sum() for scored in seen]))]


def _known(estimate: Estimate) -> Estimate | None:
    return None if np.isnan([estimate.value, estimate.low, estimate.high]).any() else estimate
