"""NIH ChestX-ray14: ``Data_Entry_2017.csv`` with ``|``-separated findings, images in ``images`` or ``images_001`` to ``images_012``."""

from __future__ import annotations

import re
from pathlib import Path

from edge_agent.errors import ConfigError
from model_build.data.example import Example, Split
from model_build.data.layouts.table import TableRow, read_table

NO_FINDING = "No Finding"
FINDINGS = (
    *("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis", "Hernia", "Infiltration"),
    *("Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax"),
)
_TABLES = ("Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv")
_COLUMNS = ("Image Index", "Finding Labels", "Patient ID")


def list_nih(root: Path) -> list[Example]:
    """List the images of a ChestX-ray14 folder, or of a part of it.

    Returns
    -------
    list of Example
        In the order of the table. ``split`` comes from ``train_val_list.txt`` and ``test_list.txt`` where they stand in ``root``.

    Raises
    ------
    ConfigError
        If the table, a column or an image is missing, a finding is none of the fourteen, or a list leaves an image out.

    References
    ----------
    Wang et al., ChestX-ray8, CVPR 2017, and the data set's own README.
    """
    table = next((root / name for name in _TABLES if (root / name).is_file()), root / _TABLES[0])
    rows = read_table(table, _COLUMNS)
    images = {path.name: path.relative_to(root) for folder in sorted(root.glob("images*")) for path in folder.rglob("*.*")}
    trained, tested = _read_list(root / "train_val_list.txt"), _read_list(root / "test_list.txt")
    examples, first_row = [], dict[str, TableRow]()
    for row in rows:
        name = row.require("Image Index")
        if name in first_row:
            raise ConfigError(f"{row.origin}: {name} stands already in {first_row[name].origin}; keep one of the two lines")
        if name not in images:
            raise ConfigError(f"{row.origin}: there is no image {name} below {root}/images*; bring the file there or remove the line")
        first_row[name] = row
        examples.append(
            Example(
                images[name],
                _findings(row),
                row.require("Patient ID"),
                row.origin,
                _split(row, name, trained, tested),
                view=row.optional("View Position"),
                age_years=_age(row.optional("Patient Age")),
                # The table of 2017 says Gender, that of 2020 says Sex.
                sex=row.optional("Patient Sex") or row.optional("Patient Gender"),
            )
        )
    return examples


def _findings(row: TableRow) -> tuple[str, ...]:
    findings = tuple(part.strip() for part in row.require("Finding Labels").split("|"))
    for finding in findings:
        if finding not in (NO_FINDING, *FINDINGS):
            raise ConfigError(
                f"{row.origin}: the finding {finding!r} is none of ChestX-ray14's; correct it ({NO_FINDING}, {', '.join(FINDINGS)})"
            )
    if NO_FINDING in findings and len(findings) > 1:
        raise ConfigError(f"{row.origin}: {NO_FINDING!r} stands beside other findings; remove one of them")
    return findings


def _age(text: str | None) -> int | None:
    """Whole years from "58" or from "058Y" as in the first release; months and days count as 0 years."""
    match = re.fullmatch(r"(\d+)([YMD]?)", text or "")
    return None if match is None else int(match[1]) if match[2] in ("", "Y") else 0


def _read_list(path: Path) -> frozenset[str] | None:
    try:
        return frozenset(path.read_text(encoding="utf-8-sig").split())
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path}: cannot be read as a list of file names: {fault}") from fault


def _split(row: TableRow, name: str, trained: frozenset[str] | None, tested: frozenset[str] | None) -> Split | None:
    if trained is None and tested is None:
        return None
    in_train = name in trained if trained is not None else name not in (tested or ())
    in_test = name in tested if tested is not None else not in_train
    if in_train == in_test:
        where = "both of" if in_train else "neither of"
        raise ConfigError(f"{row.origin}: {name} stands in {where} train_val_list.txt and test_list.txt; it belongs in one")
    return "train" if in_train else "test"
