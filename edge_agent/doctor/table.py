"""Findings as a table for people."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import IO

from edge_agent.doctor.finding import Finding
from edge_agent.files.names import printable_path

_PLAIN_WIDTH = 120
"""Columns where the output is no terminal and nobody has set COLUMNS."""

_STYLES = {"ok": "green", "warning": "bold yellow", "problem": "bold red"}


def print_findings(findings: Sequence[Finding], stream: IO[str]) -> None:
    """Print one row per finding, area after area, and a line that counts what is wrong.

    Parameters
    ----------
    findings : sequence of Finding
        From :func:`edge_agent.doctor.examine.examine`.
    stream : text stream
        Colours and the terminal's width are used where it is one. Without rich, which may be the very package that is missing, it gets
        plain lines.
    """
    try:
        _print_table(findings, stream)
    except ImportError:
        for finding in findings:
            stream.write(printable_path("\t".join((finding.verdict, finding.check, finding.saw, finding.advice)).rstrip() + "\n"))
    counts = [(sum(finding.verdict == verdict for finding in findings), verdict) for verdict in ("problem", "warning")]
    said = ", ".join(f"{count} {verdict}{'' if count == 1 else 's'}" for count, verdict in counts if count)
    stream.write(f"\n{said or 'all is well'}\n")


def _print_table(findings: Sequence[Finding], stream: IO[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    for name in ("what", "", "seen", "what to do"):
        table.add_column(name, overflow="fold", no_wrap=name in ("what", ""))
    for finding in findings:
        verdict = Text(finding.verdict, style=_STYLES[finding.verdict])
        table.add_row(finding.check, verdict, *(Text(printable_path(text)) for text in (finding.saw, finding.advice)))
    width = None if stream.isatty() or "COLUMNS" in os.environ else _PLAIN_WIDTH
    Console(file=stream, highlight=False, width=width).print(table)
