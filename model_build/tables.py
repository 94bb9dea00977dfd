"""Figures as text, and Markdown tables of them."""

from __future__ import annotations

from collections.abc import Sequence

from model_build.metrics.bootstrap import Estimate


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
