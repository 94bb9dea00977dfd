"""Records as a table for people, on a terminal or in a file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING

from edge_agent.records import NO_FINDING, probability_text

if TYPE_CHECKING:
    from edge_agent.records import Record

_PLAIN_WIDTH = 120
"""Columns where the output is no terminal and nobody has set COLUMNS."""

_SCORES_SHOWN = 4
"""Of a model with many labels; findings are shown whatever their number."""

_STYLES = {"positive": "bold red", "negative": "green", "review": "bold yellow", "rejected": "bold magenta"}


def print_records(records: Iterable[Record], stream: IO[str]) -> None:
    """Print one row per record: the image, the decision (or "rejected"), the scores, the novelty and the reason in words.

    Where a model has more than one question, a column says the label or the findings, and the scores come highest first.

    Parameters
    ----------
    records : iterable of Record
        Read to its end before anything is printed: the columns fit their content.
    stream : text stream
        Colours and the terminal's width are used where it is one.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = list(records)
    has_labels = any(record.findings or record.label == NO_FINDING or len(record.scores) > 2 for record in shown)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column("image", overflow="fold", max_width=40)
    table.add_column("decision", no_wrap=True)
    if has_labels:
        table.add_column("label", overflow="fold", max_width=30)
    table.add_column("scores", no_wrap=True)
    table.add_column("novelty", justify="right", no_wrap=True)
    table.add_column("why")
    for record in shown:
        outcome = record.decision or record.status
        table.add_row(
            Text(printable(record.path)),
            Text(outcome, style=_STYLES.get(outcome, "")),
            *([Text("\n".join(record.findings) or record.label or "")] if has_labels else []),
            Text("\n".join(_score_lines(record, highest_first=has_labels))),
            Text("" if record.novelty is None else f"{record.novelty:.1f}"),
            Text(printable(record.reason.message) if record.reason else ""),
        )
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PLAIN_WIDTH
    Console(file=stream, highlight=False, width=width).print(table)


def _score_lines(record: Record, *, highest_first: bool) -> list[str]:
    ranked = list(record.scores.items())
    if not highest_first:
        return [f"{label} {probability:.2f}" for label, probability in ranked]
    ranked.sort(key=lambda item: -item[1])
    named = [item for place, item in enumerate(ranked) if place < _SCORES_SHOWN or item[0] in record.findings]
    lines = [f"{label} {probability_text(probability)}" for label, probability in named]
    if rest := [probability for label, probability in ranked if (label, probability) not in named]:
        lines.append(f"{len(rest)} more, up to {probability_text(max(rest))}")
    return lines


def printable(text: str) -> str:
    r"""Give text with every character that could move the cursor, or is not for people, written out: a line feed as ``\n``."""
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode() for character in text)
