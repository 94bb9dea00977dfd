"""A study: the question that a command of its own answers, and what it writes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from matplotlib.figure import Figure

from model_build.metrics.bootstrap import Estimate
from model_build.plots import Series, png
from model_build.run_folder import write_json, write_whole
from model_build.tables import Block, render_markdown

Found = TypeVar("Found", bound=msgspec.Struct)


@dataclass(frozen=True)
class Study(Generic[Found]):
    """One study. ``stem`` names its files and its folder below the run folder; ``command`` is how to run it."""

    stem: str
    title: str
    command: str
    kind: type[Found]
    describe: Callable[[Found], list[Block]]
    draw: Callable[[Found], Figure]

    def write(self, found: Found, out: Path) -> str:
        """Write ``STEM.md``, ``STEM.json`` and ``STEM.png`` into a folder, which is made, and return the Markdown.

        Raises
        ------
        DiskFullError, StorageError
            If a file cannot be written.
        """
        text = render_markdown(self.describe(found))
        write_whole(out / f"{self.stem}.md", f"{text}\n".encode())
        write_json(out / f"{self.stem}.json", found)
        write_whole(out / f"{self.stem}.png", png(self.draw(found)))
        return text


def estimate_series(label: str, colour: str, mark: str, figures: Sequence[Estimate]) -> Series:
    """Figures with their intervals as marks of a panel."""
    return Series(label, colour, mark, *([getattr(figure, name) for figure in figures] for name in ("value", "low", "high")))
