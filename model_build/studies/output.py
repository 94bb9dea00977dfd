"""What both ablations write: a table in Markdown, the numbers in JSON, a figure, and a sentence that follows from the numbers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from model_build.metrics.classification import Estimate
from model_build.run_folder import write_json, write_whole

AUC_MARGIN = 0.005
"""A loss of AUC, or of balanced accuracy, below this is taken for none: about five images in a thousand."""

Verdict = Literal["no worse", "worse", "unclear"]


def judge_difference(difference: Estimate, margin: float = AUC_MARGIN) -> Verdict:
    """What a difference with its 95 % interval allows to say.

    Returns
    -------
    str
        "no worse" where the whole interval lies above ``-margin``; "worse" where it lies below 0 (and reaches below the margin); "unclear"
        where it allows both.

    References
    ----------
    Piaggio et al., Reporting of Noninferiority and Equivalence Randomized Trials, JAMA 308 (2012) 2594-2604.
    """
    if difference.low > -margin:
        return "no worse"
    return "worse" if difference.high < 0.0 else "unclear"


def signed(difference: Estimate, digits: int = 4) -> str:
    """A difference with its interval and explicit signs: ``-0.0012 (-0.0031 to +0.0006)``."""
    value, low, high = (f"{number:+.{digits}f}" for number in (difference.value, difference.low, difference.high))
    return f"{value} ({low} to {high})"


def figure_text(figure: Estimate, digits: int = 3) -> str:
    """A figure with its interval, shorter than in a report: ``0.994 (0.989 to 0.998)``."""
    return f"{figure.value:.{digits}f} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"


def percent(share: float, digits: int = 0) -> str:
    """A share as ``25 %``."""
    return f"{100.0 * share:.{digits}f} %"


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    lines = ["| " + " | ".join(columns) + " |", "|---|" + "---:|" * (len(columns) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


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


def draw_panels(names: Sequence[str], panels: Sequence[Panel]) -> bytes:
    """One row for each variant, one panel for each question; the marks of a panel differ in colour and in shape.

    Returns
    -------
    bytes
        A PNG file.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.8 + 3.0 * len(panels), 1.5 + 0.36 * len(names)), layout="constrained")
    every_axes = np.atleast_1d(figure.subplots(1, len(panels), sharey=True))
    for axes, panel in zip(every_axes, panels, strict=True):
        _draw_panel(axes, panel, len(names))
    every_axes[0].set_yticks(range(len(names)), names)
    every_axes[0].set_ylim(len(names) - 0.5, -0.5)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()


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


def write_ablation(out: Path, name: str, text: str, numbers: msgspec.Struct, figure: bytes) -> None:
    """Write ``NAME.md``, ``NAME.json`` and ``NAME.png`` into a folder, which is made; errors as for ``run_folder.write_whole``."""
    write_whole(out / f"{name}.md", text.encode())
    write_json(out / f"{name}.json", numbers)
    write_whole(out / f"{name}.png", figure)
