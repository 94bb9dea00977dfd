"""What every study writes: tables and sentences in Markdown, the numbers in JSON, and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from matplotlib.figure import Figure

from model_build.plots import png
from model_build.run_folder import write_json, write_whole
from model_build.tables import Block, render_markdown


def write_study(out: Path, name: str, blocks: Sequence[Block], numbers: msgspec.Struct, figure: Figure) -> str:
    """Write ``NAME.md``, ``NAME.json`` and ``NAME.png`` into a folder, which is made, and return the Markdown.

    Raises
    ------
    DiskFullError, StorageError
        If a file cannot be written.
    """
    text = render_markdown(blocks)
    write_whole(out / f"{name}.md", f"{text}\n".encode())
    write_json(out / f"{name}.json", numbers)
    write_whole(out / f"{name}.png", png(figure))
    return text
