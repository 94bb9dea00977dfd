"""What every benchmark prints: the machine's facts, and a Markdown table with the budget beside what was measured."""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.bench.board import read_board
from edge_agent.bench.condition import cautions, read_state
from edge_agent.inference.bundle import default_bundle_path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Measured:
    """One line: ``value`` in ``unit``; ``within`` is None where nothing was promised, or nothing could be measured."""

    what: str
    value: float | None
    unit: str
    budget: str = ""
    within: bool | None = None
    note: str = ""


def at_most(what: str, value: float, budget: float, unit: str, note: str = "") -> Measured:
    return Measured(what, value, unit, f"<= {budget:g} {unit}", value <= budget, note)


def at_least(what: str, value: float, budget: float, unit: str, note: str = "") -> Measured:
    return Measured(what, value, unit, f">= {budget:g} {unit}", value >= budget, note)


def print_report(title: str, lines: Iterable[Measured]) -> int:
    """Print it; return 1 where a budget is not kept, so that a script can tell."""
    lines = list(lines)
    board, state = read_board(), read_state()
    print(f"## {title}\n")
    print(f"{board.model or 'unnamed machine'}, {board.cores} x {board.cpu}, {board.os}, kernel {board.kernel}, Python {board.python},")
    print(", ".join(f"{name} {version}" for name, version in board.packages.items()) + "\n")
    print("| what | measured | budget | kept | |")
    print("|---|---:|---:|---|---|")
    for line in lines:
        value = "-" if line.value is None else f"{line.value:,.{_digits(line.value)}f} {line.unit}"
        kept = {True: "yes", False: "**no**", None: ""}[line.within]
        print(f"| {line.what} | {value} | {line.budget} | {kept} | {line.note} |")
    print()
    # The load of the benchmark itself is in the average by now; only what is far above it is worth a word.
    for caution in cautions(board, state) if state.load_average > board.cores else []:
        print(f"caution: {caution}\n")
    return 1 if any(line.within is False for line in lines) else 0


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that all share: which bundle, and where the real radiographs are."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=default_bundle_path(), help="the bundle's folder [the one that ships]")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("EDGE_AGENT_DATA", ROOT.parent / "shared" / "data")), help="the real radiographs"
    )
    return parser


def radiographs(data: Path, folder: str) -> list[Path]:
    """List the JPEGs below a folder of the real data, or end with a message."""
    files = sorted(path for path in (data / folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise SystemExit(f"no radiographs in {data / folder}: name the folder that holds kermany with --data or EDGE_AGENT_DATA")
    return files


def _digits(value: float) -> int:
    return 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
