"""Put one question to several variants of a model: the same patients, heads fitted anew on each, figures that can be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from model_build.array_types import BoolArray, Float32Array, Float64Array, Int64Array
from model_build.data.cohort import Cohort
from model_build.evaluation.held_out_metrics import DecisionOnHeldOut, HeldOutOutputs, calibrate_and_choose
from model_build.evaluation.judged_labels import judged_columns
from model_build.heads.fit import fit_heads, head_logits
from model_build.metrics.bootstrap import BOOTSTRAP_DRAWS, Estimate, estimate_figure, patient_draws
from model_build.metrics.classification import METRICS, Scored, label_aucs, point_scored, predicted_labels

Figure = Callable[[Int64Array], float]
"""From indices of held-out images to a figure of them."""


@dataclass(frozen=True)
class Embeddings:
    """What one variant gives for the training and the held-out images of a cohort, float32, shape (images, D) each."""

    training: Float32Array
    held_out: Float32Array


@dataclass(frozen=True)
class VariantResult:
    """The output of one variant on the held-out images, calibrated and with operating points chosen as a build does.

    ``seen`` looks at them through each operating point, chosen on other patients than those that it is held against.
    """

    cohort: Cohort
    decided: DecisionOnHeldOut
    seen: list[Scored]

    @property
    def targets(self) -> BoolArray:
        """Truth of the held-out images, shape (images, labels)."""
        return self.cohort.targets[self.cohort.held_out]

    def auc(self, chosen: Int64Array) -> float:
        """AUC over some held-out images: mean over the labels."""
        columns = judged_columns(self.targets.sum(axis=0))
        return _mean(label_aucs(self.decided.probabilities[chosen][:, columns], self.targets[chosen][:, columns]))

    def figure(self, name: str) -> Figure:
        """``"auc"``, or one of :data:`~model_build.metrics.classification.METRICS` as the mean over the operating points."""
        return self.auc if name == "auc" else mean_over_points(self.seen, name)

    def output_labels(self) -> Int64Array:
        """What a user reads, int64, shape (images, points): the predicted class, or for findings whether each is predicted."""
        source = self.cohort.config.source
        if self.cohort.config.task == "multilabel":
            return self.decided.cross_predicted.astype(np.int64)
        decided = self.decided
        return predicted_labels(decided.rule.points, source.labels, decided.cross_fitted, decided.cross_predicted)[:, np.newaxis]


def mean_over_points(seen: Sequence[Scored], metric: str) -> Figure:
    """One of :data:`~model_build.metrics.classification.METRICS`, as the mean over the operating points with enough positive images."""
    kept = [seen[index] for index in judged_columns(np.array([scored.positive.sum() for scored in seen]))]
    return lambda chosen: _mean(np.array([METRICS[metric](scored, chosen) for scored in kept]))


def _mean(values: Float64Array) -> float:
    """Mean of what is known; NaN where nothing is."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def fit_and_choose(fitted_on: Float32Array, held_out: Float32Array, cohort: Cohort) -> tuple[VariantResult, Float32Array]:
    """Fit the heads of the config, and choose calibration and operating points on the held-out images.

    Parameters
    ----------
    fitted_on : ndarray, float32, shape (training images, D)
    held_out : ndarray, float32, shape (held-out images, D)
    cohort : Cohort

    Returns
    -------
    VariantResult
    ndarray, float32, shape (held-out images, heads)
        The uncalibrated logits.

    Raises
    ------
    ConfigError
        If a label is too rare on one side.
    """
    source, config = cohort.config.source, cohort.config
    heads = fit_heads(fitted_on, cohort.targets[cohort.training], source.labels, config.task, source.positive, config.head)
    logits = head_logits(heads, held_out)
    return choose_on_logits(logits, cohort), logits


def choose_on_logits(logits: Float32Array, cohort: Cohort) -> VariantResult:
    """Calibrate, and choose the operating points, as the build does; logits of the held-out images, float32, shape (images, heads)."""
    chosen = cohort.held_out
    outputs = HeldOutOutputs(
        logits=logits,
        float_logits=logits,
        baseline_logits=logits,
        distances=np.ones(len(chosen), np.float32),  # novelty has no say in what is compared here
        targets=cohort.targets[chosen],
        strata=cohort.strata[chosen],
        patients=cohort.held_out_patients,
        indices=chosen,
        folds=np.zeros(len(chosen), np.int64),
    )
    decided = calibrate_and_choose(outputs, cohort.config)
    labels = cohort.config.source.labels
    seen = point_scored(
        decided.rule.points,
        labels,
        decided.cross_fitted,
        outputs.targets,
        outputs.patients,
        predicted=decided.cross_predicted,
    )
    return VariantResult(cohort, decided, seen)


def agreement(first: VariantResult, second: VariantResult) -> float:
    """Share of equal labels, in [0, 1]."""
    return float((first.output_labels() == second.output_labels()).mean())


def estimate(cohort: Cohort, figure: Figure, draw_count: int = BOOTSTRAP_DRAWS) -> Estimate:
    """A figure of the held-out images, such as :meth:`VariantResult.auc`, with its 95 % interval over draws of patients."""
    return estimate_figure(figure, patient_draws(cohort.held_out_patients, cohort.config.seed, draw_count))


def difference(cohort: Cohort, first: Figure, second: Figure, draw_count: int = BOOTSTRAP_DRAWS) -> Estimate:
    """``first - second`` with its 95 % interval: the same patients in every draw, so that what is hard for both cancels out."""
    return estimate(cohort, lambda chosen: first(chosen) - second(chosen), draw_count)
