"""mini-MIAS: ``labels.csv`` with a row for every abnormality, mammograms in ``images``."""

from __future__ import annotations

import re
from pathlib import Path

from edge_agent.errors import ConfigError
from model_build.data.example import Example, check_image
from model_build.data.layouts.table import TableRow, read_table

_NORMAL = "NORM"
_ABNORMALITIES = ("CALC", "CIRC", "SPIC", "MISC", "ARCH", "ASYM", _NORMAL)
_SEVERITIES = {"B": "benign", "M": "malignant"}
_SUFFIXES = (".png", ".jpg", ".tif", ".dcm")


def list_mini_mias(root: Path) -> list[Example]:
    """List the mammograms of a mini-MIAS folder.

    Returns
    -------
    list of Example
        One for each mammogram: ``normal``, ``benign`` or ``malignant``, the gravest of its rows. Odd and even numbers are the right and
        left breast of one patient.

    Raises
    ------
    ConfigError
        If the table, a column or an image is missing, or a row's name, abnormality or severity is unknown.

    References
    ----------
    Suckling et al., The Mammographic Image Analysis Society Digital Mammogram Database, 1994.
    """
    found: dict[str, Example] = {}
    for row in read_table(root / "labels.csv", ("Name", "Abnormality", "Type")):
        name, label = row.require("Name"), _label(row)
        match = re.fullmatch(r"mdb(\d+)", name)
        if match is None:
            raise ConfigError(f"{row.origin}: the name {name!r} is not mdb and a number, so that its patient is unknown; correct it")
        number, earlier = int(match[1]), found.get(name)
        if earlier is not None:
            if "normal" in (label, *earlier.labels):
                raise ConfigError(
                    f"{row.origin}: {name} stands already in {earlier.origin}, and one of the two rows says {_NORMAL}; correct one"
                )
            found[name] = (
                earlier
                if "malignant" in earlier.labels
                else Example(earlier.path, (label,), earlier.patient, earlier.origin, view=earlier.view)
            )
            continue
        path = next(
            (p for p in (Path("images", name + suffix) for suffix in _SUFFIXES) if (root / p).is_file()), Path("images", f"{name}.png")
        )
        check_image(root, path, row.origin)
        found[name] = Example(path, (label,), str((number + 1) // 2), row.origin, view="RIGHT" if number % 2 else "LEFT")
    return list(found.values())


def _label(row: TableRow) -> str:
    abnormality = row.require("Abnormality")
    if abnormality not in _ABNORMALITIES:
        raise ConfigError(f"{row.origin}: the abnormality {abnormality!r} is none of {', '.join(_ABNORMALITIES)}; correct it")
    if abnormality == _NORMAL:
        return "normal"
    severity = row.require("Type")
    if severity not in _SEVERITIES:
        raise ConfigError(f"{row.origin}: the type {severity!r} is neither B (benign) nor M (malignant); correct it")
    return _SEVERITIES[severity]
