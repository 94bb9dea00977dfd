"""The report's figures: each a function from arrays to the bytes of an SVG file, drawn by matplotlib without a screen."""

from __future__ import annotations

import io
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from model_build.curves import (
    Booleans,
    Floats,
    log_odds,
    patient_band,
    precision_at,
    precision_recall_curve,
    reliability,
    risk_at,
    risk_coverage,
    roc_curve,
    sensitivity_at,
)

# Okabe and Ito's palette: told apart by colour-blind readers, and in grey print by their lightness.
BLUE, VERMILLION, GREY = "#0072B2", "#D55E00", "#666666"
_BAND_OPACITY = 0.2
_BAND_LABEL = "95 %, bootstrap over patients"
_GRID_POINTS = 201
_STYLE: dict[Any, Any] = {
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


def _svg(figure: Figure) -> bytes:
    stream = io.BytesIO()
    # Without a date the same numbers give the same file.
    figure.savefig(stream, format="svg", bbox_inches="tight", metadata={"Date": None})
    return stream.getvalue()


def _axes(width: float = 4.6, height: float = 3.8) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height))
    return figure, figure.add_subplot()


def _draw_threshold_curve(
    axes: Axes, curve: tuple[Floats, Floats], band: tuple[Floats, Floats, Floats], point: tuple[float, float]
) -> None:
    """A curve over all thresholds, ``band`` as (at, low, high) and the operating point; the last lines of the legend."""
    axes.fill_between(*band, color=BLUE, alpha=_BAND_OPACITY, linewidth=0, label=_BAND_LABEL)
    axes.plot(*curve, color=BLUE, drawstyle="steps-post")
    axes.plot(*point, "o", color=VERMILLION, label="operating point")


def _finish_threshold_figure(axes: Axes, zoom_at: tuple[float, float], *drawn: Any) -> None:
    """Draw the corner that a good model's curve never leaves once more and larger, and put the legend above."""
    inset = axes.inset_axes((0.42, 0.2, 0.5, 0.5), xlim=(zoom_at[0], zoom_at[0] + 0.16), ylim=(zoom_at[1], zoom_at[1] + 0.16))
    _draw_threshold_curve(inset, *drawn)
    inset.tick_params(labelsize=8)
    axes.indicate_inset_zoom(inset, edgecolor=GREY)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), fontsize=9, ncols=2)


def draw_roc(
    probabilities: NDArray[np.float32], positive: Booleans, patients: NDArray[np.int64], threshold: float, auc: float, seed: int
) -> bytes:
    """ROC curve with its band and the operating point.

    Parameters
    ----------
    probabilities, positive, patients
        Of the held-out images: score of the positive label, truth, patient; shape (images,).
    threshold, auc : float
        The operating point, and the area to write into the legend.
    seed : int
        Of the bootstrap.

    Returns
    -------
    bytes
        An SVG file.
    """
    rates = np.linspace(0.0, 1.0, _GRID_POINTS)
    band = patient_band(patients, lambda drawn: sensitivity_at(probabilities[drawn], positive[drawn], rates), seed)
    predicted = probabilities >= threshold
    drawn = (
        roc_curve(probabilities, positive),
        (rates, *band),
        (float(predicted[~positive].mean()), float(predicted[positive].mean())),
    )
    with mpl.rc_context(_STYLE):
        figure, axes = _axes()
        axes.plot([], [], color=BLUE, label=f"AUC {auc:.4f}")
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="chance")
        _draw_threshold_curve(axes, *drawn)
        axes.set(xlabel="1 - specificity", ylabel="sensitivity")
        _finish_threshold_figure(axes, (-0.01, 0.85), *drawn)
        return _svg(figure)


def draw_precision_recall(
    probabilities: NDArray[np.float32], positive: Booleans, patients: NDArray[np.int64], threshold: float, average: float, seed: int
) -> bytes:
    """Precision-recall curve with its band and the operating point; parameters as :func:`draw_roc`, ``average`` the average precision."""
    recalls = np.linspace(0.0, 1.0, _GRID_POINTS)[1:]
    band = patient_band(patients, lambda drawn: precision_at(probabilities[drawn], positive[drawn], recalls), seed)
    predicted = probabilities >= threshold
    precision = float(positive[predicted].mean()) if predicted.any() else float("nan")
    drawn = (precision_recall_curve(probabilities, positive), (recalls, *band), (float(predicted[positive].mean()), precision))
    with mpl.rc_context(_STYLE):
        figure, axes = _axes()
        axes.plot([], [], color=BLUE, label=f"average precision {average:.4f}")
        axes.axhline(positive.mean(), color=GREY, linestyle=":", linewidth=1, label=f"positive share {positive.mean():.2f}")
        _draw_threshold_curve(axes, *drawn)
        axes.set(xlabel="recall (sensitivity)", ylabel="precision")
        _finish_threshold_figure(axes, (0.85, 0.85), *drawn)
        return _svg(figure)


def draw_confusion(counts: NDArray[np.int64], labels: list[str]) -> bytes:
    """Confusion matrix, ``counts[truth, predicted]``, shaded by the share of its row."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with mpl.rc_context({**_STYLE, "axes.grid": False}):
        figure, axes = _axes(4.2, 3.6)
        axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
        for (truth, predicted), count in np.ndenumerate(counts):
            share = shares[truth, predicted]
            text = f"{count}\n{share:.1%}"
            axes.text(predicted, truth, text, ha="center", va="center", fontsize=13, color="white" if share > 0.5 else "black")
        axes.set_xticks(range(len(labels)), labels)
        axes.set_yticks(range(len(labels)), labels, rotation=90, va="center")
        axes.set(xlabel="label of the model", ylabel="truth")
        return _svg(figure)


def draw_reliability(probabilities: NDArray[np.float32], positive: Booleans, error: float) -> bytes:
    """Reliability diagram with Wilson intervals and the number of images in each bin; ``error`` is the expected calibration error."""
    bins = reliability(probabilities, positive)
    with mpl.rc_context(_STYLE):
        figure, axes = _axes()
        axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1, label="perfect calibration")
        spread = np.clip([bins.positive_share - bins.low, bins.high - bins.positive_share], 0.0, None)
        axes.errorbar(
            bins.mean_probability, bins.positive_share, spread, fmt="o", color=BLUE, capsize=3, label="held-out images, 95 % intervals"
        )
        for at, high, count in zip(bins.mean_probability, bins.high, bins.counts, strict=True):
            axes.annotate(str(count), (at, high), xytext=(0, 4), textcoords="offset points", ha="center", fontsize=8, color=GREY)
        axes.set(xlabel="calibrated probability", ylabel="share of positive images", xlim=(-0.04, 1.04), ylim=(-0.04, 1.1))
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), title=f"expected calibration error {error:.4f}", alignment="left")
        return _svg(figure)


def draw_risk_coverage(
    probabilities: NDArray[np.float32], positive: Booleans, patients: NDArray[np.int64], threshold: float, band_share: float, seed: int
) -> bytes:
    """Share of wrong labels against the share of images that the model decides alone; ``band_share`` of them fall into the review band."""
    coverages = np.linspace(0.3, 1.0, _GRID_POINTS)
    band = patient_band(patients, lambda drawn: risk_at(probabilities[drawn], positive[drawn], threshold, coverages), seed)
    with mpl.rc_context(_STYLE):
        figure, axes = _axes()
        axes.fill_between(100 * coverages, 100 * band[0], 100 * band[1], color=BLUE, alpha=_BAND_OPACITY, linewidth=0, label=_BAND_LABEL)
        coverage, risk = risk_coverage(probabilities, positive, threshold)
        axes.plot(100 * coverage, 100 * risk, color=BLUE, drawstyle="steps-post", label="wrong labels")
        at = 1.0 - band_share
        axes.axvline(100 * at, color=VERMILLION, linestyle="--", linewidth=1.2, label=f"review band ({at:.1%} decided)")
        axes.set(xlabel="images decided by the model, %", ylabel="wrong labels among them, %", xlim=(30, 101))
        axes.set_ylim(bottom=0.0)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), fontsize=9, ncols=2)
        return _svg(figure)


def draw_scores(
    probabilities: NDArray[np.float32], positive: Booleans, names: tuple[str, str], threshold: float, band: tuple[float, float]
) -> bytes:
    """Histogram of the scores of each class on a log-odds axis, with threshold and review band; ``names`` are (negative, positive)."""
    limit = log_odds(np.array(0.9995))
    odds = np.clip(log_odds(probabilities), -limit, limit)
    edges = np.linspace(-limit, limit, 41)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9.4, 4.4), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        low, high = np.clip(log_odds(np.array(band)), -limit, limit)
        for axes, name, chosen, colour in ((upper, names[1], positive, VERMILLION), (lower, names[0], ~positive, BLUE)):
            # On a linear axis the few mistakes would be invisible beside the many right ones.
            axes.hist(odds[chosen], edges, color=colour, log=True)
            axes.axvspan(low, high, color=GREY, alpha=_BAND_OPACITY, linewidth=0, label="review band")
            axes.axvline(float(log_odds(np.array(threshold))), color="black", linewidth=1.2, label="operating point")
            axes.set_title(f"{name}: {int(chosen.sum())} images", loc="left", fontsize=10, color=colour)
            axes.set(ylabel="images", ylim=(0.7, None))
        upper.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
        lower.set_xticks(log_odds(np.array(_PROBABILITY_TICKS)), [f"{tick:g}" for tick in _PROBABILITY_TICKS])
        lower.set_xlabel("calibrated probability, on a log-odds axis; the outermost bars hold everything beyond")
        return _svg(figure)


def draw_losses(losses: list[float]) -> bytes:
    """Mean training loss of each epoch."""
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(4.6, 3.2)
        epochs = np.arange(1, len(losses) + 1)
        axes.plot(epochs, losses, "o-", color=BLUE)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="epoch", ylabel="training loss", ylim=(0.0, 1.1 * max(losses)))
        return _svg(figure)
