"""What other commands wrote into the run folder, for the report: their text, table and figure as they stand there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import ConfigError
from model_build.report.mistakes import data_uri


@dataclass(frozen=True)
class Block:
    """A piece of Markdown: a paragraph (``text``), or a table (``head`` and ``rows``)."""

    text: str = ""
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Part:
    """One question that a command of its own answers. ``blocks`` is empty where it was not run."""

    title: str
    command: str
    blocks: list[Block]
    figure: str | None


# Stem of the files, title, and the command that writes them.
_PARTS = (
    ("shift", "At another hospital: simulated shift", "model-build simulate-shift RUN_FOLDER --data DIR"),
    (
        "label-efficiency",
        "What each further label buys",
        "model-build label-efficiency RUN_FOLDER/config.toml --data DIR --out RUN_FOLDER",
    ),
    ("precision", "Number formats and pruning", "model-build ablate precision RUN_FOLDER --data DIR"),
    (
        "augmentation",
        "What augmentation buys",
        "model-build ablate augmentation RUN_FOLDER/config.toml --data DIR --out RUN_FOLDER/augmentation",
    ),
)


def _cells(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))


def read_markdown(text: str) -> list[Block]:
    """Paragraphs and pipe tables of the Markdown that this package writes; headings and list items become paragraphs.

    Parameters
    ----------
    text : str
        Blocks stand apart by an empty line.

    Returns
    -------
    list of Block
        Without marks of emphasis and code.
    """
    blocks = []
    for piece in text.split("\n\n"):
        lines = [line for line in piece.strip().splitlines() if line.strip()]
        if len(lines) >= 2 and lines[0].startswith("|") and set(lines[1]) <= set("|-: "):
            blocks.append(Block(head=_cells(lines[0]), rows=tuple(_cells(line) for line in lines[2:])))
            continue
        plain = [line.lstrip("#* ").replace("`", "").replace("**", "") for line in lines]
        # Each item of a list is a paragraph; the lines of a paragraph run on.
        items = plain if lines and lines[0].startswith("* ") else [" ".join(plain)]
        blocks += [Block(text=item) for item in items if item]
    return blocks


def read_parts(folder: Path) -> list[Part]:
    """Every part, in the order of the report, with what stands in a run folder or in a folder of its own there.

    Raises
    ------
    ConfigError
        If a file can not be read.
    """
    return [_read_part(folder, *part) for part in _PARTS]


def _read_part(folder: Path, stem: str, title: str, command: str) -> Part:
    for path in (folder / f"{stem}.md", folder / stem / f"{stem}.md"):
        try:
            if not path.is_file():
                continue
            drawn = path.with_suffix(".png")
            figure = data_uri(drawn.read_bytes(), "image/png") if drawn.is_file() else None
            return Part(title, command, read_markdown(path.read_text(encoding="utf-8")), figure)
        except (OSError, UnicodeDecodeError) as fault:
            raise ConfigError(f"{path}: can not be read ({fault}); write it again with `{command}`, or remove it") from fault
    return Part(title, command, [], None)
