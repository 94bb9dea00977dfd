"""The report's figures: each a function from arrays to the bytes of an SVG file, drawn by matplotlib without a screen."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from model_build.metrics.curves import Booleans, RiskCoverage, log_odds, patient_quantiles, reliability

# Okabe and Ito's palette: told apart by colour-blind readers, and in grey print by the line's pattern, which goes with the colour.
BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
COLOURS = (BLUE, VERMILLION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (2, 2)))
BAND_OPACITY = 0.2
BAND_LABEL = "95 %, bootstrap over patients"
_GRID_POINTS = 201
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "edge-agent",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
}
_PROBABILITY_TICKS = (0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
_PANEL_COLUMNS = 5
_TITLE_LENGTH = 22


def svg(figure: Figure) -> bytes:
    """The figure as an SVG file; the same numbers give the same file."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    return stream.getvalue()


def short_name(label: str) -> str:
    """A label as the title of a small panel."""
    name = label.replace("_", " ")
    return name if len(name) <= _TITLE_LENGTH else f"{name[: _TITLE_LENGTH - 1]}\N{HORIZONTAL ELLIPSIS}"


def draw_axes(width: float = 4.8, height: float = 4.4) -> tuple[Figure, Axes]:
    """A figure with one plot, in inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def draw_grid(count: int, draw: Callable[[Axes, int], None], xlabel: str, ylabel: str) -> bytes:
    """Small panels of one size on shared axes; an SVG file. ``draw`` is given each panel and its number."""
    columns = min(count, _PANEL_COLUMNS if count > 4 else 4)
    rows = -(-count // columns)
    with mpl.rc_context({**STYLE, "font.size": 9}):
        figure = Figure(figsize=(0.4 + 1.85 * columns, 0.3 + 2.0 * rows), layout="constrained")
        every = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        for index, axes in enumerate(every):
            if index >= count:
                axes.set_visible(False)
                continue
            draw(axes, index)
            # The last panel of a column may stand above an empty place.
            axes.tick_params(labelbottom=index + columns >= count)
        figure.supxlabel(xlabel, fontsize=10)
        figure.supylabel(ylabel, fontsize=10)
        return svg(figure)


def draw_confusion(counts: NDArray[np.int64], labels: Sequence[str]) -> bytes:
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
    probabilities: NDArray[np.float32]
    positive: Booleans
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


def draw_risk_coverage(kept: RiskCoverage, patients: NDArray[np.int64], decided_share: float, what: str, seed: int) -> bytes:
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
    probabilities: NDArray[np.float32], positive: Booleans, names: tuple[str, str], threshold: float, band: tuple[float, float]
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
