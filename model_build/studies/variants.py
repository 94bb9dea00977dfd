"""Put one question to several variants of a model: the same patients, heads fitted anew on each, figures that can be held side by side."""

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
    """What one variant says of the held-out images, calibrated and with operating points chosen in the way of the build.

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

    def sensitivity(self, chosen: Int64Array) -> float:
        """Mean over the operating points."""
        return mean_over_points(self.seen, "sensitivity")(chosen)

    def specificity(self, chosen: Int64Array) -> float:
        """Mean over the operating points."""
        return mean_over_points(self.seen, "specificity")(chosen)

    def balanced_accuracy(self, chosen: Int64Array) -> float:
        """Mean over the operating points."""
        return mean_over_points(self.seen, "balanced_accuracy")(chosen)

    def labels_said(self) -> Int64Array:
        """What a user reads, int64, shape (images, points): the class said, or for findings whether each is said to be there."""
        source = self.cohort.config.source
        if self.cohort.config.task == "multilabel":
            return self.decided.cross_predicted.astype(np.int64)
        said = predicted_labels(
            self.decided.rule.points,
            source.labels,
            self.decided.cross_fitted,
            self.decided.cross_predicted,
        )
        return said[:, np.newaxis]


def mean_over_points(seen: Sequence[Scored], metric: str) -> Figure:
    """One of :data:`~model_build.metrics.classification.METRICS`, as the mean over the operating points with enough positive images."""
    kept = [seen[index] for index in judged_columns(np.array([scored.positive.sum() for scored in seen]))]
    return lambda chosen: _mean(np.array([METRICS[metric](scored, chosen) for scored in kept]))


def _mean(values: Float64Array) -> float:
    """Mean of what is known; NaN where nothing is."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def fit_and_choose(fitted_on: Float32Array, held_out: Float32Array, cohort: Cohort) -> tuple[VariantResult, Float32Array]:
    """Fit the heads of the config, and judge the held-out images with them.

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
    return judge_logits(logits, cohort), logits


def judge_logits(logits: Float32Array, cohort: Cohort) -> VariantResult:
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
    return float((first.labels_said() == second.labels_said()).mean())


def estimate(cohort: Cohort, figure: Figure, draw_count: int = BOOTSTRAP_DRAWS) -> Estimate:
    """A figure of the held-out images, such as :meth:`VariantResult.auc`, with its 95 % interval over draws of patients."""
    return estimate_figure(figure, patient_draws(cohort.held_out_patients, cohort.config.seed, draw_count))


def difference(cohort: Cohort, first: Figure, second: Figure, draw_count: int = BOOTSTRAP_DRAWS) -> Estimate:
    """``first - second`` with its 95 % interval: the same patients in every draw, so that what is hard for both falls out."""
    return estimate(cohort, lambda chosen: first(chosen) - second(chosen), draw_count)
