"""The report's figures: each a function from arrays to the bytes of an SVG file, drawn by matplotlib without a screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from model_build.array_types import BoolArray, Float32Array, Int64Array
from model_build.metrics.bootstrap import patient_quantiles
from model_build.metrics.curves import RiskCoverage, log_odds, reliability
from model_build.plots import BAND_LABEL, BAND_OPACITY, BLUE, GREY, STYLE, VERMILLION, draw_axes, draw_grid, short_name, svg

_GRID_POINTS = 201
_PROBABILITY_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)


def draw_confusion(counts: Int64Array, labels: Sequence[str]) -> bytes:
    """Confusion matrix, ``counts[truth, said]``, shaded by the share of its row."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = max(3.0, 1.15 * len(labels))
    with mpl.rc_context({**STYLE, "axes.grid": False}):
        figure, axes = draw_axes(side + 1.2, side + 0.6)
        # As shapes: an image inside the drawing would not print as sharp, and no tracker is given a drawing with an image.
        axes.pcolormesh(shares, cmap="Blues", vmin=0.0, vmax=1.0, edgecolors="face")
        axes.set_aspect("equal")
        axes.invert_yaxis()
        for (truth, said), count in np.ndenumerate(counts):
            share = shares[truth, said]
            size, colour = 13 if len(labels) <= 3 else 10, "white" if share > 0.5 else "black"
            axes.text(said + 0.5, truth + 0.5, f"{count}\n{share:.1%}", ha="center", va="center", fontsize=size, color=colour)
        names = [label.replace(" ", "\n") for label in labels]
        middles = np.arange(len(labels)) + 0.5
        axes.set_xticks(middles, names)
        axes.set_yticks(middles, names, rotation=90, va="center", ma="center")
        axes.set(xlabel="label of the model", ylabel="truth")
        return svg(figure)


@dataclass(frozen=True)
class Calibrated:
    """What a reliability diagram shows: probabilities and truth of one label, and the expected calibration error."""

    name: str
    probabilities: Float32Array
    positive: BoolArray
    error: float


def _plot_reliability(axes: Axes, shown: Calibrated, *, with_counts: bool) -> None:
    bins = reliability(shown.probabilities, shown.positive)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="perfect calibration")
    spread = np.clip([bins.positive_share - bins.low, bins.high - bins.positive_share], 0.0, None)
    size = 6 if with_counts else 3.5
    axes.errorbar(
        bins.mean_probability,
        bins.positive_share,
        spread,
        fmt="o",
        color=BLUE,
        capsize=size / 2,
        markersize=size,
        label="held-out images, 95 % intervals",
    )
    for at, high, count in zip(bins.mean_probability, bins.high, bins.counts, strict=True) if with_counts else ():
        axes.annotate(str(count), (at, high), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=8, color=GREY)


def draw_reliability(shown: Calibrated) -> bytes:
    """Reliability diagram with Wilson intervals and the number of images in each bin."""
    with mpl.rc_context(STYLE):
        figure, axes = draw_axes()
        _plot_reliability(axes, shown, with_counts=True)
        axes.set(xlabel="calibrated probability", ylabel="share of positive images", xlim=(-0.04, 1.04), ylim=(-0.04, 1.1))
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), title=f"expected calibration error {shown.error:.4f}", alignment="left")
        return svg(figure)


def draw_reliability_panels(shown: Sequence[Calibrated]) -> bytes:
    """A small reliability diagram for each label."""

    def draw(axes: Axes, index: int) -> None:
        _plot_reliability(axes, shown[index], with_counts=False)
        axes.set_title(f"{short_name(shown[index].name)}\nECE {shown[index].error:.3f}", fontsize=9, loc="left")
        axes.set(xlim=(-0.06, 1.06), ylim=(-0.06, 1.06), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))

    return draw_grid(len(shown), draw, "calibrated probability", "share of positive images")


def draw_risk_coverage(kept: RiskCoverage, patients: Int64Array, decided_share: float, what: str, seed: int) -> bytes:
    """Mistakes against the share of images that the model decides alone, with its band.

    Parameters
    ----------
    kept : RiskCoverage
    patients : ndarray, int64, shape (images,)
    decided_share : float
        The share of images outside the bundle's review band.
    what : str
        Whose share the risk is: "wrong labels".
    seed : int
        Of the bootstrap.
    """
    coverages = np.linspace(0.3, 1.0, _GRID_POINTS)
    low, high = patient_quantiles(patients, lambda weights: kept.risk_at(coverages, weights), seed)
    risk = kept.risk_at(coverages, np.ones(len(patients)))
    with mpl.rc_context(STYLE):
        figure, axes = draw_axes()
        axes.fill_between(100 * coverages, 100 * low, 100 * high, color=BLUE, alpha=BAND_OPACITY, linewidth=0, label=BAND_LABEL)
        axes.plot(100 * coverages, 100 * risk, color=BLUE, label=what)
        at = 100 * decided_share
        axes.axvline(at, color=VERMILLION, linestyle="--", linewidth=1.2, label=f"review band: {at:.1f} % decided")
        axes.set(xlabel="images decided by the model, %", ylabel=f"{what} among them, %", xlim=(30, 101))
        axes.set_ylim(bottom=0.0)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), fontsize=9)
        return svg(figure)


def draw_scores(
    probabilities: Float32Array, positive: BoolArray, names: tuple[str, str], threshold: float, band: tuple[float, float]
) -> bytes:
    """Histogram of the scores of each class on a log-odds axis, with threshold and review band; ``names`` are (negative, positive)."""
    limit = log_odds(np.array(0.9995))
    odds = np.clip(log_odds(probabilities), -limit, limit)
    edges = np.linspace(-limit, limit, 41)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 4.4), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        low, high = np.clip(log_odds(np.array(band)), -limit, limit)
        for axes, name, chosen, colour in ((upper, names[1], positive, VERMILLION), (lower, names[0], ~positive, BLUE)):
            # On a linear axis the few mistakes would be invisible beside the many right ones.
            axes.hist(odds[chosen], edges, color=colour, log=True)
            axes.axvspan(low, high, color=GREY, alpha=BAND_OPACITY, linewidth=0, label="review band")
            axes.axvline(float(log_odds(np.array(threshold))), color="black", linewidth=1.2, label="operating point")
            axes.set_title(f"{name}: {int(chosen.sum())} images", loc="left", fontsize=10, color=colour)
            axes.set(ylabel="images", ylim=(0.7, None))
        upper.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
        lower.set_xticks(log_odds(np.array(_PROBABILITY_TICKS)), [f"{tick:g}" for tick in _PROBABILITY_TICKS])
        lower.set_xlabel("calibrated probability, on a log-odds axis; the outermost bars hold everything beyond")
        return svg(figure)
