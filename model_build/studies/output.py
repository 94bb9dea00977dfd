"""What both ablations write: a table in Markdown, the numbers in JSON, a figure, and a sentence that follows from the numbers."""

from __future__ import annotations

from pathlib import Path

import msgspec

from model_build.run_folder import write_json, write_whole


def write_ablation(out: Path, name: str, text: str, numbers: msgspec.Struct, figure: bytes) -> None:
    """Write ``NAME.md``, ``NAME.json`` and ``NAME.png`` into a folder, which is made; errors as for ``run_folder.write_whole``."""
    write_whole(out / f"{name}.md", text.encode())
    write_json(out / f"{name}.json", numbers)
    write_whole(out / f"{name}.png", figure)
