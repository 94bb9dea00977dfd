"""Figures as text, and tables of them: the blocks that Markdown and the HTML report are written from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from model_build.metrics.bootstrap import Estimate


@dataclass(frozen=True)
class Table:
    """The first column names the row, the others are numbers; a cell is shown as ``str`` gives it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


Block = str | Table
"""A paragraph or a table."""


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


def confusion_table(counts: Iterable[Iterable[int]], labels: Sequence[str]) -> Table:
    """The confusion matrix ``counts[truth, said]``, a row for each true class."""
    return Table(["truth", *(f"said {label}" for label in labels)], [[name, *row] for name, row in zip(labels, counts, strict=True)])


def render_markdown(blocks: Sequence[Block]) -> str:
    """Paragraphs and tables as Markdown."""
    return "\n\n".join(block if isinstance(block, str) else _markdown_table(block) for block in blocks)


def _markdown_table(table: Table) -> str:
    lines = ["| " + " | ".join(table.columns) + " |", "|---|" + "---:|" * (len(table.columns) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(map(str, row)) + " |" for row in table.rows)])
