"""The augmentation ablation in words: table, figure, and the sentence that answers what the random changes are worth."""

from __future__ import annotations

import msgspec
from matplotlib.figure import Figure

from model_build.metrics.bootstrap import Estimate
from model_build.plots import BLUE, GREY, VERMILLION, Panel, draw_panels
from model_build.studies.output import Study, estimate_series
from model_build.tables import Block, Table, figure_text, signed
from model_build.training.augmentation_presets import PresetName

BASELINE: PresetName = "none"


class AugmentationGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The model that was trained with one kind of random changes.

    ``balanced_accuracy`` is on the held-out images as they are; ``shift_mean`` its mean over the shifts, at the decision rule chosen on the
    images as they are, and ``shift_worst`` its value under the shift ``worst``. The differences are against the training without random
    changes, on the same patients.
    """

    name: PresetName
    auc: Estimate
    balanced_accuracy: Estimate
    shift_mean: Estimate
    worst: str
    shift_worst: Estimate
    balanced_accuracy_difference: Estimate
    shift_mean_difference: Estimate


class AugmentationAblation(msgspec.Struct, frozen=True, kw_only=True):
    """All groups, in the order of the table."""

    held_out_images: int
    held_out_patients: int
    epochs: int
    shift_count: int
    groups: list[AugmentationGroup]


_COLUMNS = (
    "random changes",
    "AUC",
    "balanced accuracy",
    "against none",
    "mean over shifts",
    "against none",
    "worst shift",
)


def _table(found: AugmentationAblation) -> Table:
    rows = [
        (
            g.name,
            figure_text(g.auc, 4),
            figure_text(g.balanced_accuracy),
            "" if g.name == BASELINE else signed(g.balanced_accuracy_difference, 3),
            figure_text(g.shift_mean),
            "" if g.name == BASELINE else signed(g.shift_mean_difference, 3),
            f"{figure_text(g.shift_worst)}, {g.worst}",
        )
        for g in found.groups
    ]
    return Table(_COLUMNS, rows)


def answer_augmentation(found: AugmentationAblation) -> str:
    """What the random changes are worth: one sentence, from the numbers."""
    groups = {g.name: g for g in found.groups}
    none, best = groups[BASELINE], max(found.groups, key=lambda g: g.shift_mean.value)
    over_shifts = f"on average over {found.shift_count} shifts"
    if best is none:
        head = (
            f"No random changes hold better under shift than none: balanced accuracy {figure_text(none.shift_mean)} {over_shifts},"
            f" {figure_text(none.balanced_accuracy)} on the images as they are"
        )
    else:
        what = "All random changes together hold" if best.name == "all" else f"The {best.name} changes alone hold"
        head = (
            f"{what} best under shift: balanced accuracy {figure_text(best.shift_mean)} {over_shifts} against"
            f" {figure_text(none.shift_mean)} without any, {_measured(best.shift_mean_difference)}; under the worst shift"
            f" {best.shift_worst.value:.3f} ({best.worst}) against {none.shift_worst.value:.3f} ({none.worst}); on the images as they"
            f" are the difference is {_measured(best.balanced_accuracy_difference)}"
        )
    others = [g for g in found.groups if g.name != BASELINE and g is not best]
    rest = "; ".join(f"{_name(g)} under shift: {_measured(g.shift_mean_difference)}" for g in others)
    return f"{head}; {rest} ({found.held_out_images} images of {found.held_out_patients} held-out patients, {found.epochs} epochs)."


def _name(group: AugmentationGroup) -> str:
    return "all together" if group.name == "all" else f"{group.name} alone"


def _measured(difference: Estimate) -> str:
    """A difference, and whether these patients show it."""
    text = signed(difference, 3)
    return text if difference.low > 0.0 or difference.high < 0.0 else f"{text}, nothing that can be measured on these patients"


def draw_augmentation(found: AugmentationAblation) -> Figure:
    """Balanced accuracy of every group as they are, over the shifts and under the worst one."""
    groups = found.groups
    auc = estimate_series("AUC", BLUE, "o", [g.auc for g in groups])
    accuracy = (
        estimate_series("images as they are", BLUE, "o", [g.balanced_accuracy for g in groups]),
        estimate_series(f"mean over {found.shift_count} shifts", VERMILLION, "D", [g.shift_mean for g in groups]),
        estimate_series("worst shift", GREY, "s", [g.shift_worst for g in groups]),
    )
    panels = (Panel("AUC on held-out patients,\n95 % intervals", [auc]), Panel("balanced accuracy,\n95 % intervals", accuracy))
    return draw_panels([g.name for g in groups], panels)


def describe_augmentation(found: AugmentationAblation) -> list[Block]:
    """The whole answer: sentence, table, how it was measured."""
    note = (
        f"One training of {found.epochs} epochs for each row, with the same seed on the same patients. Int8 models; heads fitted,"
        " calibrated and operating points chosen anew for each. Images as they are: points chosen on other held-out patients than those"
        " counted. Under shift: at the calibration and the points chosen on the held-out images as they are. 95 % intervals over patients;"
        " what another seed would change is not in them."
    )
    return [answer_augmentation(found), _table(found), note]


AUGMENTATION = Study(
    "augmentation",
    "What augmentation buys",
    "model-build ablate augmentation RUN_FOLDER/config.toml --data DIR --out RUN_FOLDER/augmentation",
    AugmentationAblation,
    describe_augmentation,
    draw_augmentation,
)
