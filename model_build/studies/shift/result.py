"""The shift simulation as text and figure: one table for the run as it is, one for the choices that could have been made, one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from matplotlib.figure import Figure

from model_build.metrics.bootstrap import Estimate
from model_build.plots import BLUE, GREEN, VERMILLION, Panel, Series, draw_panels
from model_build.studies.output import Study, estimate_series
from model_build.tables import Block, Table, figure_text


class ShiftFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The held-out images under one shift, at the decision rule that was chosen on them as they are.

    With several operating points the figures are means over them (those with 20 held-out positives, where there are any). ``review_share``
    is that of images whose score lies in a review band, ``novel_share`` of those past the novelty limit. ``decided_balanced_accuracy`` is
    of the images that are neither; None where too few are left.
    """

    name: str
    family: str
    auc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    balanced_accuracy: Estimate
    review_share: float
    novel_share: float
    decided_balanced_accuracy: Estimate | None


class ShiftSimulation(msgspec.Struct, frozen=True, kw_only=True):
    """The whole table: ``as_they_are`` is without a shift, ``mean_balanced_accuracy`` over all shifts; ``worst`` names the lowest one."""

    images: int
    patients: int
    points: int
    as_they_are: ShiftFigures
    shifts: list[ShiftFigures]
    mean_balanced_accuracy: Estimate
    worst: str


ChosenOn = Literal["as they are", "and other shifts"]


class PointChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A rule for the operating point, under shifts of which none of the same family was there when the point was chosen.

    ``chosen_on`` are the images it was chosen on: held-out ones as they are, or those and their versions under the other families' shifts;
    never of the patients that are counted. ``as_they_are``, ``mean`` (over the shifts) and ``worst`` (of ``worst_shift``) are balanced
    accuracies, ``behind_best`` is by how much the mean is below that of the best choice, on the same patients. The lowest rates are over
    the shifts.
    """

    rule: str
    chosen_on: ChosenOn
    as_they_are: float
    mean: Estimate
    behind_best: Estimate
    worst: float
    worst_shift: str
    mean_sensitivity: float
    lowest_sensitivity: float
    mean_specificity: float
    lowest_specificity: float


class CalibrationChoice(msgspec.Struct, frozen=True, kw_only=True):
    """A calibration under shifts that it was not fitted on, as :class:`PointChoice`; log losses, means over the heads.

    ``mean_error`` is the expected calibration error, mean over heads and shifts.
    """

    method: str
    chosen_on: ChosenOn
    as_they_are: float
    mean: Estimate
    behind_best: Estimate
    worst: float
    worst_shift: str
    mean_error: float


class ShiftChoices(msgspec.Struct, frozen=True, kw_only=True):
    """All rules and all calibrations, in the order of the tables."""

    points: list[PointChoice]
    calibrations: list[CalibrationChoice]


class ShiftResult(msgspec.Struct, frozen=True, kw_only=True):
    """What ``shift.json`` holds; ``choices`` is None where only the run's own decision rule was asked about."""

    simulation: ShiftSimulation
    choices: ShiftChoices | None = None


def _row(figures: ShiftFigures) -> list[str]:
    decided = figures.decided_balanced_accuracy
    return [
        figures.name,
        *(figure_text(figure) for figure in (figures.auc, figures.sensitivity, figures.specificity, figures.balanced_accuracy)),
        f"{figures.review_share:.1%}",
        f"{figures.novel_share:.1%}",
        "-" if decided is None else figure_text(decided),
    ]


def describe_shift(result: ShiftResult) -> list[Block]:
    """The run as it is, then the choices where they were compared."""
    return [*_describe_simulation(result.simulation), *(_describe_choices(result.choices) if result.choices is not None else [])]


def _describe_simulation(simulation: ShiftSimulation) -> list[Block]:
    columns = ["held-out images", "AUC", "sensitivity", "specificity", "balanced accuracy", "to review", "novel", "of those decided alone"]
    worst = next(figures for figures in simulation.shifts if figures.name == simulation.worst)
    over = f", means over {simulation.points} operating points" if simulation.points > 1 else ""
    return [
        Table(columns, [_row(figures) for figures in (simulation.as_they_are, *simulation.shifts)]),
        f"Balanced accuracy over the {len(simulation.shifts)} shifts: mean {figure_text(simulation.mean_balanced_accuracy)}, worst"
        f" {figure_text(worst.balanced_accuracy)} ({worst.name}); as they are {figure_text(simulation.as_they_are.balanced_accuracy)}."
        f" {simulation.images} held-out images of {simulation.patients} patients{over}; 95 % intervals, bootstrap over patients. The"
        " last column is balanced accuracy without the images that the review band or the novelty limit sends to a person.",
    ]


def _describe_choices(choices: ShiftChoices) -> list[Block]:
    """The tables of rules and calibrations, and the answer."""
    points = [
        (
            choice.rule,
            choice.chosen_on,
            f"{choice.as_they_are:.3f}",
            figure_text(choice.mean),
            figure_text(choice.behind_best),
            f"{choice.worst:.3f} ({choice.worst_shift})",
            f"{choice.mean_sensitivity:.3f}, lowest {choice.lowest_sensitivity:.3f}",
            f"{choice.mean_specificity:.3f}, lowest {choice.lowest_specificity:.3f}",
        )
        for choice in choices.points
    ]
    calibrations = [
        (
            choice.method,
            choice.chosen_on,
            f"{choice.as_they_are:.4f}",
            figure_text(choice.mean, 4),
            figure_text(choice.behind_best, 4),
            f"{choice.worst:.3f} ({choice.worst_shift})",
            f"{choice.mean_error:.3f}",
        )
        for choice in choices.calibrations
    ]
    under_shift = ("as they are", "mean over shifts", "behind the best", "worst")
    return [
        "Balanced accuracy, each family of shifts counted with a point chosen without it, on other patients:",
        Table(("operating point", "chosen on images", *under_shift, "sensitivity", "specificity"), points),
        "Log loss, in the same way (a calibration does not move the point of a binary model, but the probability that people read):",
        Table(("calibration", "fitted on images", *under_shift, "calibration error"), calibrations),
        answer_shift(choices),
    ]


def answer_shift(choices: ShiftChoices) -> str:
    """Which choices lose least, and which others these patients cannot distinguish from them: sentences that follow from the numbers."""
    point = max(choices.points, key=lambda choice: choice.mean.value)
    calibration = min(choices.calibrations, key=lambda choice: choice.mean.value)
    return (
        f"The operating point that loses least under a shift it has not seen is {_choice_name(point)}: balanced accuracy"
        f" {point.mean.value:.3f} on average, {point.worst:.3f} at worst.{_equals(point, choices.points)} Of the calibrations it is"
        f" {_choice_name(calibration)}: log loss {calibration.mean.value:.3f} on average, {calibration.worst:.3f} at worst."
        f"{_equals(calibration, choices.calibrations)}"
    )


def _choice_name(choice: PointChoice | CalibrationChoice) -> str:
    name = choice.rule if isinstance(choice, PointChoice) else choice.method
    return f"{name} on images {'as they are' if choice.chosen_on == 'as they are' else 'as they are and under other shifts'}"


def _equals(best: PointChoice | CalibrationChoice, choices: Sequence[PointChoice] | Sequence[CalibrationChoice]) -> str:
    near = [_choice_name(choice) for choice in choices if choice is not best and choice.behind_best.low <= 0.0]
    return f" These patients do not tell it from {', '.join(near)}." if near else ""


def draw_shift(result: ShiftResult) -> Figure:
    """Sensitivity and specificity, AUC, and what goes to a person, under each shift."""
    rows = [result.simulation.as_they_are, *result.simulation.shifts]
    return draw_panels(
        [figures.name for figures in rows],
        [
            Panel(
                "sensitivity and specificity",
                [
                    estimate_series("sensitivity", VERMILLION, "o", [figures.sensitivity for figures in rows]),
                    estimate_series("specificity", BLUE, "s", [figures.specificity for figures in rows]),
                ],
            ),
            Panel("AUC", [estimate_series("AUC", BLUE, "o", [figures.auc for figures in rows])]),
            Panel(
                "share of images sent to a person",
                [
                    Series("review band", BLUE, "s", [figures.review_share for figures in rows]),
                    Series("novel", GREEN, "^", [figures.novel_share for figures in rows]),
                ],
                from_zero=True,
            ),
        ],
    )


def compare_runs(results: dict[str, ShiftResult]) -> Table:
    """Several runs (of different augmentation, say) beside each other, best mean first."""
    ordered = sorted(results.items(), key=lambda item: -item[1].simulation.mean_balanced_accuracy.value)
    rows = []
    for name, result in ordered:
        simulation = result.simulation
        worst = next(figures for figures in simulation.shifts if figures.name == simulation.worst)
        rows.append(
            [
                name,
                figure_text(simulation.as_they_are.balanced_accuracy),
                figure_text(simulation.mean_balanced_accuracy),
                f"{figure_text(worst.balanced_accuracy)} ({worst.name})",
            ]
        )
    return Table(["run", "as they are", "mean over shifts", "worst"], rows)


SHIFT = Study(
    "shift",
    "At another hospital: simulated shift",
    "model-build simulate-shift RUN_FOLDER --data DIR",
    ShiftResult,
    describe_shift,
    draw_shift,
)
