"""How well the model does for some of the patients: by view, sex and age, where the data set has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from model_build.array_types import BoolArray, Float64Array
from model_build.config import BuildConfig
from model_build.evaluation.held_out_metrics import Measured
from model_build.evaluation.held_out_outputs import UNKNOWN_AGE, HeldOut
from model_build.evaluation.judged_labels import judged_columns
from model_build.metrics.bootstrap import Estimate, estimate_columns
from model_build.metrics.classification import Scored
from model_build.metrics.curves import RankedScores

MIN_IMAGES = 20
_AGES = ((0, 17, "under 18"), (18, 39, "18 to 39"), (40, 59, "40 to 59"), (60, 79, "60 to 79"), (80, 200, "80 and over"))
_UNKNOWN = "not known"


@dataclass(frozen=True)
class Subgroup:
    """Some of the held-out images. The figures are None where there are too few images for them, for the reason that is given.

    ``positives`` are the images with a positive class, or with any finding; ``auc`` is for several findings the mean over them.
    """

    attribute: str
    name: str
    images: int
    patients: int
    positives: int
    auc: Estimate | None
    sensitivity: Estimate | None
    specificity: Estimate | None
    reason: str = ""


def _groups(kept: HeldOut) -> Iterator[tuple[str, str, BoolArray]]:
    """(attribute, group, images) for each attribute that the data set has."""
    for attribute, values in (("view", kept.views), ("sex", kept.sexes)):
        if (values != "").any():
            for name in sorted(set(values.tolist()) - {""}):
                yield attribute, name, values == name
            if (values == "").any():
                yield attribute, _UNKNOWN, values == ""
    ages = kept.ages_years
    if (ages != UNKNOWN_AGE).any():
        for low, high, name in _AGES:
            if ((ages >= low) & (ages <= high)).any():
                yield "age, years", name, (ages >= low) & (ages <= high)
        if (ages == UNKNOWN_AGE).any():
            yield "age, years", _UNKNOWN, ages == UNKNOWN_AGE


def measure_subgroups(kept: HeldOut, scored: list[Scored], measured: Measured, config: BuildConfig) -> list[Subgroup]:
    """AUC, sensitivity and specificity of each group, with 95 % intervals over its patients.

    Parameters
    ----------
    kept : HeldOut
    scored : list of Scored
        At each operating point; scores of different folds are not ranked against each other.
    measured : Measured
        Of the report: the figures of all images are taken from there.
    config : BuildConfig
        For multilabel the AUC is the mean over the findings with 20 held-out positives or more, of those that the group tells apart.

    Returns
    -------
    list of Subgroup
        First all images, then the groups. Sensitivity and specificity are those of "positive" and "negative", for several findings of any
        of them, at points that were chosen on other patients. Groups of fewer than 20 images, or with one side only, have a reason
        instead. Empty where the data set has none of these.
    """
    positive: BoolArray = np.logical_or.reduce([one.positive for one in scored])
    predicted: BoolArray = np.logical_or.reduce(kept.cross_predicted, axis=1)
    folds = scored[0].folds
    if config.task == "multilabel":
        columns = judged_columns(kept.targets.sum(axis=0))
        sides = [(kept.probabilities[:, column], kept.targets[:, column]) for column in columns]
    else:
        sides = [(scored[0].probabilities, scored[0].positive)]

    def figures(own: BoolArray) -> list[Estimate]:
        ranked = [RankedScores(scores[own], truth[own], None if folds is None else folds[own]) for scores, truth in sides]
        there, called = positive[own], predicted[own]

        def measure(weights: Float64Array) -> Float64Array:
            aucs = np.concatenate([one.auc(weights) for one in ranked], axis=-1)
            counts = np.maximum((~np.isnan(aucs)).sum(axis=-1), 1)
            mean = np.where(np.isnan(aucs).all(axis=-1), np.nan, np.nansum(aucs, axis=-1) / counts)
            with np.errstate(invalid="ignore"):
                rates = [weights @ (hit & side) / (weights @ side) for hit, side in ((called, there), (~called, ~there))]
            return np.stack([mean, *rates], axis=-1)

        return estimate_columns(kept.patients[own], measure, config.seed)

    groups = list(_groups(kept))
    if not groups:
        return []
    everybody = np.ones(len(positive), np.bool_)
    auc, sensitivity, specificity = figures(everybody)
    if config.task == "multilabel":
        auc = measured.overall["mean_auc"]
    else:
        point = measured.points[0]
        auc, crossed = point.metrics["auc"], point.metrics_cross_fitted
        sensitivity, specificity = crossed["sensitivity"], crossed["specificity"]
    counts = len(positive), len(np.unique(kept.patients)), int(positive.sum())
    rows = [Subgroup("all", "", *counts, auc, sensitivity, specificity)]
    for attribute, name, own in groups:
        counts = int(own.sum()), len(np.unique(kept.patients[own])), int(positive[own].sum())
        if reason := _too_few(*counts):
            rows.append(Subgroup(attribute, name, *counts, None, None, None, reason))
        else:
            auc, sensitivity, specificity = figures(own)
            rows.append(Subgroup(attribute, name, *counts, auc, sensitivity, specificity))
    return rows


def _too_few(images: int, patients: int, positives: int) -> str:
    """Why a group has no figures; empty where it has."""
    if images < MIN_IMAGES:
        return f"fewer than {MIN_IMAGES} images"
    if positives in (0, images):
        return f"{'no' if positives == 0 else 'every'} image is positive"
    return "one patient only" if patients == 1 else ""
