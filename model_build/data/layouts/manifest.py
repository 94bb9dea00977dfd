"""A plain CSV file that lists every image: ``path``, ``label`` or ``labels``, ``patient``, and if wanted ``split, view, age, sex``."""

from __future__ import annotations

from pathlib import Path

from edge_agent.errors import ConfigError
from model_build.data.example import SPLITS, Example, Split, check_image
from model_build.data.layouts.table import TableRow, read_table


def list_manifest(root: Path, table_name: str) -> list[Example]:
    """List the images of a manifest.

    Parameters
    ----------
    root : Path
        The data folder, to which each ``path`` is relative.
    table_name : str
        The manifest's name in it.

    Returns
    -------
    list of Example
        In the manifest's order. ``labels`` are separated by ``|``; an empty cell there is an image without any.

    Raises
    ------
    ConfigError
        If the file, a column, a value or an image is missing, an image is listed twice, or a split is unknown or given for a part only.
    """
    rows = read_table(root / table_name, ("path", "patient"))
    columns = rows[0].values
    if ("label" in columns) == ("labels" in columns):
        raise ConfigError(f"{root / table_name} line 1: needs either a column 'label' or a column 'labels' (several, separated by |)")
    examples: dict[Path, Example] = {}
    for row in rows:
        path = Path(row.require("path"))
        if path in examples:
            raise ConfigError(f"{row.origin}: {path} stands already in {examples[path].origin}; keep one of the two lines")
        check_image(root, path, row.origin)
        several = row.values.get("labels", "")
        labels = (row.require("label"),) if "label" in columns else tuple(part.strip() for part in several.split("|") if several)
        examples[path] = Example(
            path,
            labels,
            row.require("patient"),
            row.origin,
            _split(row) if "split" in columns else None,
            view=row.optional("view"),
            age_years=_age(row),
            sex=row.optional("sex"),
        )
    return list(examples.values())


def _split(row: TableRow) -> Split:
    name = row.require("split")
    for split in SPLITS:
        if name == split:
            return split
    raise ConfigError(f"{row.origin}: the split {name!r} is none of {', '.join(SPLITS)}; correct it")


def _age(row: TableRow) -> int | None:
    text = row.optional("age")
    if text is not None and not text.isdecimal():
        raise ConfigError(f"{row.origin}: the age {text!r} is not a whole number of years; correct it or leave it empty")
    return None if text is None else int(text)
