"""What every figure shares: the palette, line patterns, and panels drawn by matplotlib without a screen."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
"""Okabe and Ito's palette: told apart by colour-blind readers, and in grey print by the line's pattern, which goes with the colour."""
COLOURS = (BLUE, VERMILLION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 3)), (0, (2, 2)))
BAND_OPACITY = 0.2
BAND_LABEL = "95 %, bootstrap over patients"
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
}
_PANEL_COLUMNS = 5
_TITLE_LENGTH = 22


@dataclass(frozen=True)
class Series:
    """One kind of mark in a panel: a value for each row, with its interval where ``low`` and ``high`` are given."""

    label: str
    colour: str
    mark: str
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Panel:
    """One axis of the figure."""

    title: str
    series: Sequence[Series]
    from_zero: bool = False


def draw_panels(names: Sequence[str], panels: Sequence[Panel]) -> Figure:
    """One row for each variant, one panel for each question; the marks of a panel differ in colour and in shape."""
    figure = Figure(figsize=(1.8 + 3.0 * len(panels), 1.5 + 0.36 * len(names)), layout="constrained")
    every_axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    for axes, panel in zip(every_axes, panels, strict=True):
        _draw_panel(axes, panel, len(names))
    every_axes[0].set_yticks(range(len(names)), names)
    every_axes[0].set_ylim(len(names) - 0.5, -0.5)
    return figure


def _draw_panel(axes: Any, panel: Panel, row_count: int) -> None:
    for index, series in enumerate(panel.series):
        # Side by side within the row, so that intervals do not lie on each other.
        at = np.arange(row_count) + 0.22 * (index - (len(panel.series) - 1) / 2.0)
        spread = None
        if series.low is not None and series.high is not None:
            spread = np.maximum([np.subtract(series.values, series.low), np.subtract(series.high, series.values)], 0.0)
        axes.errorbar(series.values, at, xerr=spread, fmt=series.mark, color=series.colour, markersize=6, capsize=2.5, label=series.label)
    axes.set_xlabel(panel.title)
    axes.grid(visible=True, axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    if panel.from_zero:
        axes.set_xlim(left=0.0)
    if len(panel.series) > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), frameon=False, fontsize=9, ncols=1)


def svg(figure: Figure) -> bytes:
    """The figure as an SVG file; the same numbers give the same file."""
    with mpl.rc_context({"svg.hashsalt": "edge-agent"}):
        return _saved(figure, "svg", metadata={"Date": None})


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    return _saved(figure, "png", dpi=130)


def _saved(figure: Figure, kind: Literal["svg", "png"], **options: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, **options)
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
