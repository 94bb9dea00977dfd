"""What of a finished run goes to an experiment tracker: numbers, figures, report and bundle; no patient's image."""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from edge_agent.errors import ConfigError
from model_build.report.page import Drawing, Page
from model_build.run_folder import (
    BUNDLE,
    CONFIG,
    ENVIRONMENT,
    EPOCHS,
    REPORTS,
    Figure,
    FinishedRun,
    RunReport,
    flatten,
    read_run,
    write_json,
)

MARK = "tracked.json"
"""In a run folder: which trackers have the run."""

_OTHER_THAN_SVG = re.compile(r"data:(?!image/svg\+xml;base64,)\w+/")
_TEXTS = (CONFIG, ENVIRONMENT, EPOCHS, *REPORTS[:2])
_UNUSUAL = re.compile(r"[^\w\-./ ]")
"""Characters that not every tracker takes in the name of a metric."""


@dataclass(frozen=True)
class EpochFigures:
    """The metrics of one epoch: its number in its phase, seconds since the build began, and values by name ("measure/loss")."""

    phase: str
    epoch: int
    elapsed_s: float
    values: dict[str, float]


@dataclass(frozen=True)
class TrackedRun:
    """A finished run as every tracker gets it.

    ``files`` is a folder: config, environment, epochs, the reports without images, and ``figures/``. ``started_s`` and ``ended_s`` are
    seconds since 1970.
    """

    name: str
    model: str
    version: str
    serial: int
    started_s: float
    ended_s: float
    git_commit: str
    parameters: dict[str, Any]
    epochs: list[EpochFigures]
    figures: dict[str, float]
    files: Path
    bundle: Path


class Tracker(Protocol):
    """Where runs are tracked. ``kind`` and ``store`` together identify a tracker."""

    kind: str
    store: str

    def begin(self, run: TrackedRun) -> str:
        """Open a run and give its id."""

    def log(self, run_id: str, run: TrackedRun) -> str:
        """Log everything, close the run, and return in words where it is."""

    def discard(self, run_id: str) -> None:
        """Remove a run that was begun and never closed, if it is still there."""


class _Mark(msgspec.Struct, frozen=True):
    """A run that was given to a tracker; ``report`` is the SHA-256 of its report.json: a folder may be built into again."""

    kind: str
    store: str
    run_id: str
    report: str
    complete: bool


def _read_page(folder: Path) -> Page:
    from model_build.report.html import read_page

    return read_page(folder)


def _figure_files(drawings: Sequence[Drawing]) -> dict[str, bytes]:
    """The figures by file name, which is made of the words that describe them."""
    files: dict[str, bytes] = {}
    for drawing in drawings:
        words = re.sub(r"[^a-z0-9]+", "-", drawing.words.lower()).strip("-")[:60]
        files[f"{words}.svg" if f"{words}.svg" not in files else f"{words}-{len(files)}.svg"] = drawing.svg
    return files


@contextmanager
def shareable_files(folder: Path, read_page: Callable[[Path], Page] = _read_page) -> Iterator[Path]:
    """A temporary folder with what may leave the data: the run's texts, its HTML report without images, and its figures.

    Parameters
    ----------
    folder : Path
        Of a finished run; the report that stands there, which shows the worst mistakes, is left out.
    read_page : callable
        From a run folder to its report without images.

    Raises
    ------
    ConfigError
        If the page holds an image nevertheless.
    """
    page = read_page(folder)
    if _OTHER_THAN_SVG.search(page.text) or any(b"<image" in drawing.svg for drawing in page.drawings):
        raise ConfigError("the report to be tracked holds an image that is not a drawing; nothing was tracked")
    with tempfile.TemporaryDirectory(prefix="model-build-") as name:
        files = Path(name)
        (files / "figures").mkdir()
        (files / REPORTS[2]).write_text(page.text, encoding="utf-8")
        for figure, content in _figure_files(page.drawings).items():
            (files / "figures" / figure).write_bytes(content)
        for text in _TEXTS:
            if (folder / text).is_file():
                (files / text).write_bytes((folder / text).read_bytes())
        yield files


def _spread(name: str, figure: Figure) -> dict[str, float]:
    """A figure and the bounds of its interval as three metrics, without those that could not be computed."""
    values = {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
    return {_UNUSUAL.sub("_", key): value for key, value in values.items() if value is not None}


def final_figures(report: RunReport) -> dict[str, float]:
    """Every figure of a report by name: "auc", "auc_low", "auc_high", "cross_fitted/accuracy"; with several findings "Effusion/auc"."""
    measured, found = report.measured, dict[str, float]()
    for point in measured.points:
        prefix = f"{point.name}/" if len(measured.points) > 1 else ""
        for name, figure in point.metrics.items():
            found |= _spread(f"{prefix}{name}", figure)
        for name, figure in point.metrics_cross_fitted.items():
            found |= _spread(f"{prefix}cross_fitted/{name}", figure)
    for name, figure in measured.overall.items():
        found |= _spread(f"overall/{name}", figure)
    return found | {"model_size_bytes": float(report.model_size_bytes), "build_seconds": report.build_seconds}


def epoch_figures(lines: Sequence[dict[str, Any]]) -> list[EpochFigures]:
    """The lines of epochs.jsonl as metrics."""
    found = []
    for line in lines:
        phase = str(line["phase"])
        values = {f"{phase}/{key}": float(value) for key, value in line.items() if key != "epoch" and isinstance(value, int | float)}
        found.append(EpochFigures(phase, int(line["epoch"]), float(line.get("elapsed_s", 0.0)), values))
    return found


def _describe(name: str, run: FinishedRun, files: Path) -> TrackedRun:
    ended_s = (run.folder / REPORTS[0]).stat().st_mtime
    config = {key: value for key, value in flatten(msgspec.to_builtins(run.config)).items() if not key.startswith("card.")}
    return TrackedRun(
        name=name,
        model=run.config.name,
        version=run.config.version,
        serial=run.config.serial,
        started_s=ended_s - run.report.build_seconds,
        ended_s=ended_s,
        git_commit=str(run.environment.get("git_commit", "")),
        parameters=config | flatten(run.environment, "environment"),
        epochs=epoch_figures(run.epochs),
        figures=final_figures(run.report),
        files=files,
        bundle=run.folder / BUNDLE,
    )


def track_run(folder: Path, name: str, trackers: Sequence[Tracker], read_page: Callable[[Path], Page] = _read_page) -> list[str]:
    """Give a finished run to each tracker that does not have it yet; one that was cut short before is given again.

    Parameters
    ----------
    folder : Path
        Of a finished run.
    name : str
        Of the run.
    trackers : sequence of Tracker
    read_page : callable
        As in :func:`shareable_files`.

    Returns
    -------
    list of str
        Where the run is now, in words, for each tracker that it was given to.

    Raises
    ------
    StorageError
        If a tracker's store or server cannot be written.
    ConfigError
        If the run folder cannot be read.
    """
    if not trackers:
        return []
    path = folder / MARK
    try:
        marks = msgspec.json.decode(path.read_bytes(), type=list[_Mark]) if path.exists() else []
    except (OSError, msgspec.DecodeError) as fault:
        raise ConfigError(f"{path}: cannot be read ({fault}); remove it to have the run tracked again") from fault
    run = read_run(folder)
    digest = hashlib.sha256((folder / REPORTS[0]).read_bytes()).hexdigest()
    waiting = [
        tracker for tracker in trackers if not any(_is_of(mark, tracker) and mark.complete and mark.report == digest for mark in marks)
    ]
    if not waiting:
        return []
    places = []
    with shareable_files(folder, read_page) as files:
        described = _describe(name, run, files)
        for tracker in waiting:
            for mark in marks:
                if _is_of(mark, tracker) and not mark.complete:
                    tracker.discard(mark.run_id)
            others = [mark for mark in marks if not _is_of(mark, tracker)]
            run_id = tracker.begin(described)
            write_json(path, [*others, _Mark(tracker.kind, tracker.store, run_id, digest, complete=False)])
            places.append(tracker.log(run_id, described))
            marks = [*others, _Mark(tracker.kind, tracker.store, run_id, digest, complete=True)]
            write_json(path, marks)
    return places


def _is_of(mark: _Mark, tracker: Tracker) -> bool:
    return (mark.kind, mark.store) == (tracker.kind, tracker.store)
