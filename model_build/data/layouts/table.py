"""CSV files whose faults are reported by file and line."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row; ``origin`` is "FILE line N", the line on which it begins."""

    origin: str
    values: dict[str, str]

    def require(self, column: str) -> str:
        """The value in ``column``, stripped; :class:`ConfigError` if it is empty."""
        value = self.values[column]
        if not value:
            raise ConfigError(f"{self.origin}: the column {column!r} is empty; fill it in or remove the line")
        return value

    def optional(self, column: str) -> str | None:
        """The value in ``column``, or None where the file has no such column or nothing in it."""
        return self.values.get(column) or None


def read_table(path: Path, columns: Sequence[str]) -> list[TableRow]:
    """Read a CSV file with a header line.

    Parameters
    ----------
    path : Path
        UTF-8, with or without a byte order mark.
    columns : sequence of str
        Those that the header must have; others may stand there too.

    Returns
    -------
    list of TableRow
        At least one. Blank lines are passed over; cells are stripped; a cell that is missing at the end of a line is empty.

    Raises
    ------
    ConfigError
        If the file is missing, is not text, lacks a column or has no row.
    """
    rows: list[TableRow] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            header = [name.strip() for name in next(reader, [])]
            missing = [name for name in columns if name not in header]
            if missing:
                found = ", ".join(filter(None, header)) or "none"
                raise ConfigError(f"{path} line 1: no column {missing[0]!r}; the columns there are: {found}")
            line = reader.line_num + 1
            for cells in reader:
                if any(cells):
                    padded = [*cells, *[""] * (len(header) - len(cells))]
                    rows.append(TableRow(f"{path} line {line}", {name: cell.strip() for name, cell in zip(header, padded, strict=False)}))
                line = reader.line_num + 1
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; this layout needs it") from None
    except (OSError, UnicodeDecodeError, csv.Error) as fault:
        raise ConfigError(f"{path}: cannot be read as a CSV file in UTF-8: {fault}") from fault
    if not rows:
        raise ConfigError(f"{path}: has a header but no row")
    return rows
