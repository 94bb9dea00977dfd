"""Records as a table for people, on a terminal or in a file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from edge_agent.records import Record

_PLAIN_WIDTH = 120
"""Columns where the output is no terminal and nobody has set COLUMNS."""

_STYLES = {"positive": "bold red", "negative": "green", "review": "bold yellow", "rejected": "bold magenta"}


def print_records(records: Iterable[Record], stream: IO[str]) -> None:
    """Print one row per record: the image, the decision (or "rejected"), every score, the novelty and the reason in words.

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

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column("image", overflow="fold", max_width=40)
    table.add_column("decision", no_wrap=True)
    table.add_column("scores", no_wrap=True)
    table.add_column("novelty", justify="right", no_wrap=True)
    table.add_column("why")
    for record in records:
        outcome = record.decision or record.status
        table.add_row(
            Text(printable(record.path)),
            Text(outcome, style=_STYLES.get(outcome, "")),
            Text("\n".join(f"{label} {probability:.2f}" for label, probability in record.scores.items())),
            Text("" if record.novelty is None else f"{record.novelty:.1f}"),
            Text(printable(record.reason.message) if record.reason else ""),
        )
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PLAIN_WIDTH
    Console(file=stream, highlight=False, width=width).print(table)


def printable(text: str) -> str:
    r"""Give text with every character that could move the cursor, or is not for people, written out: a line feed as ``\n``."""
    return "".join(character if character.isprintable() else character.encode("unicode_escape").decode() for character in text)
