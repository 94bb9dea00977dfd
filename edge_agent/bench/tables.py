"""Results as tables for a terminal: one run, or several boards beside one another."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.bench.condition import throttled_words
from edge_agent.bench.result import MIN_ITERATIONS, MIN_SECONDS, BenchmarkResult, Stage

if TYPE_CHECKING:
    from rich.console import Console

_MEBIBYTE = 1024**2


def print_result(result: BenchmarkResult, console: Console) -> None:
    """Print the board's facts, the table of rows, and what makes the run doubtful or invalid."""
    from rich.table import Table

    for name, value in _facts(result):
        console.print(f"{name:>12}  {value}", highlight=False, soft_wrap=True, markup=False)
    table = Table(title="milliseconds", title_justify="left")
    for heading in ("runtime", "threads", "stage", "median", "p90", "p99", "n"):
        table.add_column(heading, justify="left" if heading in ("runtime", "stage") else "right", no_wrap=True)
    for row in result.rows:
        latency = row.latency_ms
        cells = ["-", "-", "-", "failed"]
        if latency is not None:
            cells = [*map(_milliseconds, (latency.median, latency.p90, latency.p99)), f"{latency.iterations}{'*' if latency.short else ''}"]
        table.add_row(row.runtime, str(row.threads), row.stage or "-", *cells)
    console.print(table)
    if any(row.latency_ms is not None and row.latency_ms.short for row in result.rows):
        console.print(f"* less than {MIN_ITERATIONS} iterations or {MIN_SECONDS:g} s: only a rough figure", highlight=False)
    for row in result.rows:
        if row.error is not None:
            console.print(f"failed: {row.runtime}, threads: {row.threads}: {row.error}", highlight=False, markup=False, soft_wrap=True)
    for caution in result.cautions:
        console.print(f"caution: {caution}", highlight=False, markup=False, soft_wrap=True)
    for reason in result.invalid:
        console.print(f"INVALID: {reason}", style="bold red", highlight=False, markup=False, soft_wrap=True)


def print_comparison(results: Sequence[tuple[Path, BenchmarkResult]], console: Console) -> None:
    """Print the median of each row of several results, with its ratio to the first result's.

    A row is matched by runtime, threads and stage; where a result does not have it, its cell is empty.
    """
    from rich.table import Table

    for number, (path, result) in enumerate(results, start=1):
        console.print(f"[{number}] {path}: {_board_words(result)}", highlight=False, markup=False, soft_wrap=True)
    for warning in _comparison_warnings(results):
        console.print(f"warning: {warning}", style="bold", highlight=False, markup=False, soft_wrap=True)
    table = Table(title="median, milliseconds; ratio to [1]" if len(results) > 1 else "median, milliseconds", title_justify="left")
    for heading in ("runtime", "threads", "stage"):
        table.add_column(heading, justify="right" if heading == "threads" else "left", no_wrap=True)
    for number in range(1, len(results) + 1):
        table.add_column(f"\\[{number}]", justify="right", no_wrap=True)
        if number > 1:
            table.add_column("ratio", justify="right", no_wrap=True)
    medians = [_medians(result) for _, result in results]
    for key in dict.fromkeys(key for each in medians for key in each):
        runtime, threads, stage = key
        cells: list[str] = []
        for number, each in enumerate(medians):
            cells.append(_milliseconds(each[key]) if key in each else "")
            if number:
                base = medians[0].get(key)
                cells.append(f"{each[key] / base:.2f}" if base and key in each else "")
        table.add_row(runtime, str(threads), stage, *cells)
    console.print(table)
    if len({result.model.digest for _, result in results}) == 1:
        console.print(f"model: {_model_words(results[0][1])}", highlight=False, markup=False, soft_wrap=True)


def _medians(result: BenchmarkResult) -> dict[tuple[str, int, Stage], float]:
    return {
        (row.runtime, row.threads, row.stage): row.latency_ms.median
        for row in result.rows
        if row.latency_ms is not None and row.stage is not None
    }


def _comparison_warnings(results: Sequence[tuple[Path, BenchmarkResult]]) -> list[str]:
    warnings = []
    if len({result.model.digest for _, result in results}) > 1:
        warnings.append("the models differ; the ratios compare models as well as boards:")
        warnings.extend(f"  {path}: {_model_words(result)}" for path, result in results)
    if len({result.images for _, result in results}) > 1:
        warnings.append("the images differ: decode, preprocess, image, commit and drop_to_record cannot be compared")
    warnings.extend(f"{path} is invalid: {reason}" for path, result in results for reason in result.invalid)
    return warnings


def _facts(result: BenchmarkResult) -> list[tuple[str, str]]:
    board, before, after = result.board, result.before, result.after
    memory = "" if board.memory_bytes is None else f"{board.memory_bytes / _MEBIBYTE:.0f} MiB memory, "
    clock = [f"{hertz / 1e6:.0f} MHz" for hertz in (before.clock_hz, after.clock_hz) if hertz is not None]
    heat = [f"{celsius:.1f} °C" for celsius in (before.temperature_c, after.temperature_c) if celsius is not None]
    throttled = None if after.throttled is None else f"0x{after.throttled:x} {', '.join(throttled_words(after.throttled)) or '(never)'}"
    facts = [
        ("board", board.model),
        ("CPU", f"{board.cores} x {board.cpu or board.architecture}, {' '.join(board.features) or 'no known feature'}"),
        ("memory", f"{memory}pages of {board.page_size_bytes} bytes"),
        ("system", f"{board.os or 'Linux'}, kernel {board.kernel}, glibc {board.glibc or '-'}, Python {board.python}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in board.packages.items())),
        ("clock", " -> ".join(clock) + (f", governor {before.governor}" if before.governor else "")),
        ("temperature", " -> ".join(heat)),
        ("throttled", throttled),
        ("power", board.power_supply),
        ("model", _model_words(result)),
        ("images", result.images),
    ]
    return [(name, value) for name, value in facts if value]


def _model_words(result: BenchmarkResult) -> str:
    model = result.model
    version = f" {model.version}" if model.version else ""
    return f"{model.name}{version}, {model.size_bytes} bytes, SHA-256 {model.digest[:12]}"


def _board_words(result: BenchmarkResult) -> str:
    board = result.board
    return f"{board.model or board.architecture}, {board.cores} x {board.cpu or board.architecture}, {result.created_at:%Y-%m-%d}"


def _milliseconds(value: float) -> str:
    """Three significant digits, never a power of ten."""
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"
