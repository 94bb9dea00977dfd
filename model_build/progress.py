"""What a build shows while it runs, on standard error: a bar with the time left, a line for each epoch, or nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Protocol

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Shown(Protocol):
    """What a build or a study reports while it runs."""

    def stage(self, name: str, total: int) -> None:
        """A new stage of ``total`` steps begins."""

    def advance(self, done: int, note: str) -> None:
        """``done`` steps of the stage are behind us."""


def files_read(progress: Shown) -> Callable[[int, int], None]:
    """What a reader of images calls with the files done and their total: a stage of its own, which begins with the first file."""

    def on_file(done: int, total: int) -> None:
        if done == 1:
            progress.stage("reading images", total)
        progress.advance(done, f"{done} of {total} files")

    return on_file


class BarProgress:
    """Shows one bar per stage of a build; without a terminal, one line per stage and per tenth of it."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._name, self._total, self._tenth = "", 1, 0

    def __enter__(self) -> BarProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of ``total`` steps."""
        self._name, self._total, self._tenth = name, max(1, total), 0
        if self._task is not None:
            self._bar.update(self._task, completed=self._bar.tasks[self._task].total)
        self._task = self._bar.add_task(name, total=self._total, note="")
        if not self._console.is_terminal:
            self._console.print(name)

    def advance(self, done: int, note: str) -> None:
        """Show that ``done`` steps of the stage are behind us."""
        if self._task is None:
            return
        self._bar.update(self._task, completed=done, note=note)
        tenth = 10 * done // self._total
        if not self._console.is_terminal and tenth > self._tenth:
            self._tenth = tenth
            self._console.print(f"{self._name}: {10 * tenth} %, {note}")


class NoProgress:
    """Shows nothing."""

    def stage(self, name: str, total: int) -> None:
        """Pass over it."""

    def advance(self, done: int, note: str) -> None:
        """Pass over it."""


class EpochProgress:
    """Shows one line for each stage, and one for each epoch in epochs.jsonl.

    Parameters
    ----------
    epochs : Path
        Epochs that stand there already, from before a kill, are not shown again.
    """

    def __init__(self, epochs: Path) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._epochs = epochs
        self._shown = self._lines()

    def _lines(self) -> list[bytes]:
        # The last piece is empty, or a line that is being written.
        return self._epochs.read_bytes().split(b"\n")[:-1] if self._epochs.exists() else []

    def stage(self, name: str, total: int) -> None:
        """Begin a stage of ``total`` steps."""
        self._show_epochs()
        self._console.print(name)

    def advance(self, done: int, note: str) -> None:
        """Show the epochs that ended since the last call."""
        self._show_epochs()

    def _show_epochs(self) -> None:
        lines = self._lines()
        for line in lines[len(self._shown) :]:
            entry = msgspec.json.decode(line)
            figures = [f"{name} {value:.4g}" for name, value in entry.items() if isinstance(value, float)]
            self._console.print(f"{entry['phase']}, epoch {entry['epoch']}: {', '.join(figures)}", soft_wrap=True)
        self._shown = lines


def make_progress(verbose: int, epochs: Path) -> AbstractContextManager[Shown]:
    """What shows a build: nothing for ``verbose`` 0, a bar for 1, a line for each epoch of the file ``epochs`` for 2."""
    if verbose == 1:
        return BarProgress()
    return nullcontext(NoProgress() if verbose == 0 else EpochProgress(epochs))
