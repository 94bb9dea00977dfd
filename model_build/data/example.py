"""One labelled image as every layout's reader yields it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_agent.errors import ConfigError

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


@dataclass(frozen=True, slots=True)
class Example:
    """An image and what the data set says of it.

    ``path`` is relative to the data folder. ``labels`` holds the data set's own names, one or several, in its order. ``origin`` says where
    that stands ("labels.csv line 7"), for messages. ``split`` is the data set's own split, where it has one.
    """

    path: Path
    labels: tuple[str, ...]
    patient: str
    origin: str
    split: Split | None = None
    view: str | None = None
    age_years: int | None = None
    sex: str | None = None


def check_image(root: Path, path: Path, origin: str) -> None:
    """Raise :class:`ConfigError` unless ``root / path`` is a file."""
    if not (root / path).is_file():
        raise ConfigError(f"{origin}: there is no image {root / path}; bring the file there or remove the line")
