"""Many builds in one table: what differs between them, what each reached, and whether the data can tell them apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edge_agent.records import Task
from model_build.run_folder import Figure, FinishedRun, MeasuredFigures, write_json, write_whole
from model_build.tables import Block, Table, render_markdown

COLUMNS = (
    "auc",
    "sensitivity",
    "specificity",
    "accuracy",
    "balanced_accuracy",
    "mean_auc",
    "mean_recall",
    "accuracy_most_probable",
)
"""The figures that a build computes; the last three where there are more than two classes or several findings."""

DEFAULT_COLUMNS: dict[Task, tuple[str, ...]] = {
    "binary": ("auc", "sensitivity", "specificity", "balanced_accuracy"),
    "multiclass": ("accuracy", "mean_recall", "mean_auc"),
    "multilabel": ("mean_auc",),
}

_WIDEST_SETTING = 40
_MOST_SETTINGS = 6
"""Columns of settings; more would be wider than any screen, so the others stand below the table."""


class ComparisonRow(msgspec.Struct, frozen=True, kw_only=True):
    """One build. ``settings`` are those that are not the same in all builds; ``failure`` is None where it finished."""

    name: str
    folder: str
    settings: dict[str, Any] = {}
    figures: dict[str, Figure] = {}
    model_size_bytes: int | None = None
    build_minutes: float | None = None
    failure: str | None = None


@dataclass(frozen=True)
class ComparedRun:
    """A build that takes part: what it was asked for, by key, and its run where it finished, or why it did not."""

    name: str
    folder: Path
    settings: dict[str, Any]
    outcome: FinishedRun | str


def find_figure(name: str, measured: MeasuredFigures) -> Figure | None:
    """One figure of a build, with operating points chosen on other patients than those counted wherever there is such a figure.

    With several operating points (findings) it is their mean, without an interval; None where the build has no such figure.
    """
    if name in measured.overall:
        return measured.overall[name]
    found = [figure for point in measured.points if (figure := point.metrics_cross_fitted.get(name) or point.metrics.get(name))]
    if len(found) < 2:
        return found[0] if found else None
    values = [figure.value for figure in found if figure.value is not None]
    return Figure(sum(values) / len(values) if values else None)


def compare(runs: Sequence[ComparedRun], columns: Sequence[str]) -> list[ComparisonRow]:
    """Make one row of each build, in the order given.

    Parameters
    ----------
    runs : sequence of ComparedRun
    columns : sequence of str
        Of :data:`COLUMNS`.
    """
    keys = dict.fromkeys(key for compared in runs for key in compared.settings)
    differing = [key for key in keys if len({repr(compared.settings.get(key)) for compared in runs}) > 1]
    rows = []
    for compared in runs:
        settings = {key: compared.settings.get(key) for key in differing}
        run = compared.outcome
        if not isinstance(run, FinishedRun):
            rows.append(ComparisonRow(name=compared.name, folder=str(compared.folder), settings=settings, failure=run))
            continue
        figures = {name: figure for name in columns if (figure := find_figure(name, run.report.measured)) is not None}
        rows.append(
            ComparisonRow(
                name=compared.name,
                folder=str(compared.folder),
                settings=settings,
                figures=figures,
                model_size_bytes=run.report.model_size_bytes,
                build_minutes=round(run.report.build_seconds / 60.0, 2),
            )
        )
    return rows


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    text = text if len(text) <= _WIDEST_SETTING else f"{text[: _WIDEST_SETTING - 3]}..."
    return text.replace("|", "\\|").replace("\n", " ")


def _best(rows: Sequence[ComparisonRow], column: str) -> str | None:
    known = [(figure.value, row.name, figure) for row in rows if (figure := row.figures.get(column)) and figure.value is not None]
    if len(known) < 2:
        return None
    _, name, best = max(known, key=lambda entry: entry[0])
    text = f"Highest {column.replace('_', ' ')}: {name}, {best}."
    near = [
        other
        for _, other, figure in known
        if other != name and figure.high is not None and best.low is not None and figure.high >= best.low
    ]
    return f"{text} The intervals of {', '.join(near)} overlap it: these patients do not tell them apart." if near else text


def render_comparison(rows: Sequence[ComparisonRow], columns: Sequence[str]) -> str:
    """The rows as a Markdown table, with a sentence on the first column and the messages of the builds that failed."""
    differing = list(dict.fromkeys(key for row in rows for key in row.settings))
    settings, further = differing[:_MOST_SETTINGS], differing[_MOST_SETTINGS:]
    shown = [name for name in columns if any(name in row.figures for row in rows)]
    titles = ["build", *settings, *(name.replace("_", " ") for name in shown), "model bytes", "minutes"]
    rows_of_text = []
    for row in rows:
        cells = [row.name, *(_cell(row.settings.get(key)) for key in settings)]
        if row.failure is not None:
            cells += ["failed", *[""] * (len(titles) - len(cells) - 1)]
        else:
            cells += [str(row.figures.get(name, "")) for name in shown]
            cells += [f"{row.model_size_bytes:,}", f"{row.build_minutes:.1f}"]
        rows_of_text.append(cells)
    finished = [row for row in rows if row.failure is None]
    lines = [f"{len(finished)} of {len(rows)} builds finished. Held-out patients, int8 model; 95 % intervals, bootstrap over patients."]
    if shown and (best := _best(finished, shown[0])):
        lines.append(best)
    lines += [f"{row.name} failed: {row.failure}" for row in rows if row.failure is not None]
    blocks: list[Block] = [Table(titles, rows_of_text), "\n".join(lines)]
    if further:
        others = [f"* {row.name}: {', '.join(f'{key} {_cell(row.settings.get(key))}' for key in further)}" for row in rows]
        blocks += ["What else differs:", "\n".join(others)]
    return render_markdown(blocks) + "\n"


def write_comparison(rows: Sequence[ComparisonRow], columns: Sequence[str], out: Path) -> str:
    """Write ``comparison.md`` and ``comparison.json`` and give the table.

    Raises
    ------
    DiskFullError, StorageError
        If they cannot be written.
    """
    text = render_comparison(rows, columns)
    write_whole(out / "comparison.md", text.encode())
    write_json(out / "comparison.json", rows)
    return text
