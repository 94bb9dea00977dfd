"""Put one question to several variants of a model: the same patients, heads fitted anew on each, figures that can be held side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_build.config import BuildConfig
from model_build.data.grouping import group_near_copies
from model_build.data.images import ImageSet, read_images
from model_build.data.split import cross_validation_folds, draw_labels, hold_out
from model_build.evaluation.held_out_metrics import MIN_POSITIVES, HeldOutOutputs, Judged, judge
from model_build.heads.fit import fit_heads, head_logits
from model_build.metrics.classification import (
    BOOTSTRAP_DRAWS,
    METRICS,
    Estimate,
    Scored,
    estimate_figure,
    label_aucs,
    patient_draws,
    point_scored,
    said_labels,
)

Floats = NDArray[np.float32]
Booleans = NDArray[np.bool_]
Integers = NDArray[np.int64]
Figure = Callable[[Integers], float]
"""From indices of held-out images to a figure of them."""


@dataclass(frozen=True)
class Cohort:
    """The images of a build, and which of them are trained on and held out.

    ``targets`` is bool, shape (images, labels), ``strata`` int64, shape (images,), ``patients`` names the patient of each image;
    ``training`` and ``held_out`` are ascending indices of images, int64, whose patients differ.
    """

    config: BuildConfig
    targets: Booleans
    strata: Integers
    patients: list[str]
    training: Integers
    held_out: Integers

    @property
    def held_out_patients(self) -> list[str]:
        """The patient of each held-out image."""
        return [self.patients[index] for index in self.held_out.tolist()]

    @property
    def is_held_out(self) -> Booleans:
        """Whether each image is held out, shape (images,)."""
        return np.isin(np.arange(len(self.patients)), self.held_out)


def read_cohort(data: Path, config: BuildConfig, on_file: Callable[[int, int], None], cache: Path | None = None) -> tuple[ImageSet, Cohort]:
    """Read and split the images as the build of the same config does; of a build with folds, the first.

    Parameters
    ----------
    data : Path
        The data folder.
    config : BuildConfig
    on_file : callable
        Called with the number of files read and their total.
    cache : Path, optional
        Folder for the pixels of a large set, as :func:`model_build.data.images.read_images` takes it.

    Raises
    ------
    ConfigError
        If the images can not be read, or a label is missing on one side or has fewer images than ``train.labels_per_class``.
    """
    images = read_images(data, config.source, config.input, on_file, task=config.task, cache=cache)
    if config.source.group_near_copies:
        images = group_near_copies(images)
    return images, split_cohort(images, config)


def split_cohort(images: ImageSet, config: BuildConfig) -> Cohort:
    """The second half of :func:`read_cohort`."""
    if config.source.folds:
        held_out = cross_validation_folds(images.files, config.source, config.seed) == 0
    else:
        held_out, _ = hold_out(images.files, config.source, config.seed)
    per_class = config.train.labels_per_class
    trained_on = draw_labels(images.strata, ~held_out, per_class, config.seed) if per_class else ~held_out
    patients = [entry.patient for entry in images.files]
    return Cohort(config, images.targets, images.strata, patients, np.flatnonzero(trained_on), np.flatnonzero(held_out))


def draw_representative(cohort: Cohort) -> Integers:
    """The training images that show the int8 conversion the range of every activation; ascending indices, the same as the build's."""
    count = min(cohort.config.quantize.representative_images, len(cohort.training))
    # The image set may be sorted by label: a random draw shows the converter every class.
    return np.sort(np.random.default_rng(cohort.config.seed).choice(cohort.training, count, replace=False))


@dataclass(frozen=True)
class Embeddings:
    """What one variant gives for the training and the held-out images of a cohort, float32, shape (images, D) each."""

    training: Floats
    held_out: Floats


@dataclass(frozen=True)
class Outcome:
    """What one variant says of the held-out images, calibrated and with operating points chosen in the way of the build.

    ``seen`` looks at them through each operating point, chosen on other patients than those that it is held against.
    """

    cohort: Cohort
    judged: Judged
    seen: list[Scored]

    @property
    def targets(self) -> Booleans:
        """Truth of the held-out images, shape (images, labels)."""
        return self.cohort.targets[self.cohort.held_out]

    def auc(self, chosen: Integers) -> float:
        """AUC over some held-out images: mean over the labels."""
        columns = frequent(self.targets)
        return _mean(label_aucs(self.judged.probabilities[chosen][:, columns], self.targets[chosen][:, columns]))

    def sensitivity(self, chosen: Integers) -> float:
        """Mean over the operating points."""
        return mean_over_points(self.seen, "sensitivity")(chosen)

    def specificity(self, chosen: Integers) -> float:
        """Mean over the operating points."""
        return mean_over_points(self.seen, "specificity")(chosen)

    def balanced_accuracy(self, chosen: Integers) -> float:
        """Mean over the operating points."""
        return mean_over_points(self.seen, "balanced_accuracy")(chosen)

    def labels_said(self) -> Integers:
        """What a user reads, int64, shape (images, points): the class said, or for findings whether each is said to be there."""
        source = self.cohort.config.source
        if self.cohort.config.task == "multilabel":
            return self.judged.cross_predicted.astype(np.int64)
        said = said_labels(self.judged.rule.points, source.labels, self.judged.cross_fitted, self.judged.cross_predicted)
        return said[:, np.newaxis]


def frequent(positives: Booleans) -> Integers:
    """The columns that means are taken over: those with 20 positive images or more; all where none has. Shape (images, columns)."""
    columns = np.flatnonzero(positives.sum(axis=0) >= MIN_POSITIVES)
    return columns if len(columns) else np.arange(positives.shape[1])


def mean_over_points(seen: Sequence[Scored], metric: str) -> Figure:
    """A metric, a name of :data:`model_build.metrics.classification.METRICS`, as the mean over the operating points with enough positive images."""
    kept = [seen[index] for index in frequent(np.stack([scored.positive for scored in seen], axis=1)).tolist()]
    return lambda chosen: _mean(np.array([METRICS[metric](scored, chosen) for scored in kept]))


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of what is known; NaN where nothing is."""
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def fit_and_judge(fitted_on: Floats, held_out: Floats, cohort: Cohort) -> tuple[Outcome, Floats]:
    """Fit the heads of the config, and judge the held-out images with them.

    Parameters
    ----------
    fitted_on : ndarray, float32, shape (training images, D)
    held_out : ndarray, float32, shape (held-out images, D)
    cohort : Cohort

    Returns
    -------
    Outcome
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


def judge_logits(logits: Floats, cohort: Cohort) -> Outcome:
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
    judged = judge(outputs, cohort.config)
    labels = cohort.config.source.labels
    seen = point_scored(
        judged.rule.points, labels, judged.cross_fitted, outputs.targets, outputs.patients, predicted=judged.cross_predicted
    )
    return Outcome(cohort, judged, seen)


def agreement(first: Outcome, second: Outcome) -> float:
    """Share of equal labels, in [0, 1]."""
    return float((first.labels_said() == second.labels_said()).mean())


def estimate(cohort: Cohort, figure: Figure, draw_count: int = BOOTSTRAP_DRAWS) -> Estimate:
    """A figure of the held-out images, such as :meth:`Outcome.auc`, with its 95 % interval over draws of patients."""
    return estimate_figure(figure, patient_draws(cohort.held_out_patients, cohort.config.seed, draw_count))


def difference(cohort: Cohort, first: Figure, second: Figure, draw_count: int = BOOTSTRAP_DRAWS) -> Estimate:
    """``first - second`` with its 95 % interval: the same patients in every draw, so that what is hard for both falls out."""
    return estimate(cohort, lambda chosen: first(chosen) - second(chosen), draw_count)
