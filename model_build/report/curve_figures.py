"""ROC and precision-recall curves with bootstrap bands: one by itself, several classes in one figure, or a panel for each finding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes

from model_build.array_types import BoolArray, Float32Array, Float64Array, Int64Array
from model_build.metrics.bootstrap import patient_quantiles
from model_build.metrics.classification import Scored
from model_build.metrics.curves import RankedScores
from model_build.plots import BAND_LABEL, BAND_OPACITY, BLUE, COLOURS, GREY, LINES, STYLE, VERMILLION, draw_axes, draw_grid, short_name, svg

CurveKind = Literal["roc", "precision_recall"]
_AXES = {"roc": ("1 - specificity", "sensitivity"), "precision_recall": ("recall (sensitivity)", "precision")}
_CORNERS = {"roc": (-0.01, 0.85), "precision_recall": (0.85, 0.85)}
"""The corner that a good model's curve never leaves, and from which area on it is drawn once more and larger."""
_GOOD_AREA = 0.95
_GRID_POINTS = 501


@dataclass(frozen=True)
class Curve:
    """A curve over all thresholds, with its 95 % band over patients, ``at`` the false positive rates or recalls.

    ``chance`` is where a model that guesses lies: nothing for the ROC curve, whose diagonal it is; else the share of positive images.
    ``point`` is the operating point, where the curve has one; ``positives`` counts the positive images.
    """

    kind: CurveKind
    name: str
    at: Float64Array
    values: Float64Array
    low: Float64Array
    high: Float64Array
    area: float
    positives: int
    chance: float
    point: tuple[float, float] | None


def measure_curves(name: str, scored: Scored, patients: Int64Array, seed: int, *, with_point: bool) -> dict[CurveKind, Curve]:
    """ROC and precision-recall curve of held-out images.

    Parameters
    ----------
    name : str
        What is called positive.
    scored : Scored
        Scores, truth and outcomes; images of different folds are never ranked against each other.
    patients : ndarray, int64, shape (images,)
    seed : int
        Of the bootstrap.
    with_point : bool
        Whether ``scored.predicted`` is an operating point's.

    Returns
    -------
    dict of str to Curve
        ``area`` is the AUC and the average precision. The point counts all folds together.
    """
    positive, predicted = scored.positive, scored.predicted
    ranked, once = RankedScores(scored.probabilities, positive, scored.folds), np.ones(len(positive))
    rates = np.linspace(0.0, 1.0, _GRID_POINTS)
    recalls = rates[1:]
    band = patient_quantiles(
        patients, lambda w: np.concatenate([ranked.sensitivity_at(rates, w), ranked.precision_at(recalls, w)], axis=1), seed
    )
    (low, recall_low), (high, recall_high) = (np.split(side, [_GRID_POINTS]) for side in band)
    sensitivity = float(predicted[positive].mean()) if positive.any() else float("nan")
    alarms = float(predicted[~positive].mean()) if not positive.all() else float("nan")
    precision = float(positive[predicted].mean()) if predicted.any() else float("nan")
    points = {"roc": (alarms, sensitivity), "precision_recall": (sensitivity, precision)} if with_point else {}
    shared = int(positive.sum()), float(positive.mean())
    sensitivities, precisions = ranked.sensitivity_at(rates, once), ranked.precision_at(recalls, once)
    auc, average = float(ranked.auc(once)[0]), float(ranked.average_precision(once)[0])
    return {
        "roc": Curve("roc", name, rates, sensitivities, low, high, auc, *shared, points.get("roc")),
        "precision_recall": Curve(
            "precision_recall", name, recalls, precisions, recall_low, recall_high, average, *shared, points.get("precision_recall")
        ),
    }


def _area_name(kind: CurveKind) -> str:
    return "AUC" if kind == "roc" else "average precision"


def _plot(axes: Axes, curve: Curve, colour: str, line: Any, label: str | None, opacity: float = BAND_OPACITY) -> None:
    axes.fill_between(curve.at, curve.low, curve.high, color=colour, alpha=opacity, linewidth=0)
    axes.plot(curve.at, curve.values, color=colour, linestyle=line, linewidth=1.5, label=label)
    if curve.point is not None:
        axes.plot(
            *curve.point, "o", color=VERMILLION, markeredgecolor="black", markersize=6, label=None if label is None else "operating point"
        )


def _plot_chance(axes: Axes, curve: Curve) -> None:
    if curve.kind == "roc":
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
    else:
        axes.axhline(curve.chance, color=GREY, linestyle=":", linewidth=1)


def draw_curves(curves: Sequence[Curve]) -> bytes:
    """One curve, or those of several classes, in one figure; an SVG file.

    A dotted line shows what guessing gives. Where every curve is good, their corner is drawn once more and larger.
    """
    kind = curves[0].kind
    opacity = BAND_OPACITY if len(curves) == 1 else BAND_OPACITY / 2  # bands lie on one another
    with mpl.rc_context(STYLE):
        figure, axes = draw_axes()
        for curve, colour, line in zip(curves, COLOURS, LINES, strict=False):
            name = _area_name(kind) if len(curves) == 1 else f"{curve.name}: {_area_name(kind)}"
            _plot(axes, curve, colour, line, f"{name} {curve.area:.4f}", opacity)
        _plot_chance(axes, curves[0])
        if min(curve.area for curve in curves) >= _GOOD_AREA:
            left, bottom = _CORNERS[kind]
            inset = axes.inset_axes((0.42, 0.2, 0.5, 0.5), xlim=(left, left + 0.16), ylim=(bottom, bottom + 0.16))
            for curve, colour, line in zip(curves, COLOURS, LINES, strict=False):
                _plot(inset, curve, colour, line, None, opacity)
            inset.tick_params(labelsize=8)
            axes.indicate_inset_zoom(inset, edgecolor=GREY)
        xlabel, ylabel = _AXES[kind]
        axes.fill_between([], [], [], color=BLUE if len(curves) == 1 else GREY, alpha=BAND_OPACITY, linewidth=0, label=BAND_LABEL)
        axes.set(xlabel=xlabel, ylabel=ylabel, xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), fontsize=9)
        return svg(figure)


def draw_curve_panels(curves: Sequence[Curve]) -> bytes:
    """A small panel for each curve, all on the same axes; an SVG file. The title counts the positive images."""
    kind = curves[0].kind
    xlabel, ylabel = _AXES[kind]

    def draw(axes: Axes, index: int) -> None:
        curve = curves[index]
        _plot(axes, curve, BLUE, "-", None)
        _plot_chance(axes, curve)
        area = "AUC" if kind == "roc" else "AP"
        axes.set_title(f"{short_name(curve.name)}\n{area} {curve.area:.3f}, n = {curve.positives}", fontsize=9, loc="left")
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))

    return draw_grid(len(curves), draw, xlabel, ylabel)


def against_the_rest(
    probabilities: Float32Array, targets: BoolArray, patients: Int64Array, folds: Int64Array | None, labels: Sequence[str], seed: int
) -> list[dict[CurveKind, Curve]]:
    """The curves of each class against all others, from probabilities and truth of shape (images, labels)."""
    return [
        measure_curves(name, Scored(probabilities[:, i], targets[:, i], targets[:, i], patients, folds), patients, seed, with_point=False)
        for i, name in enumerate(labels)
    ]
