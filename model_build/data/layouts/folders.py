"""One folder per class, as it is or below ``train``, ``val`` and ``test``; patients are told apart by a pattern in the file name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from edge_agent.errors import ConfigError
from model_build.data.example import SPLITS, Example, Split


def list_folders(root: Path, labels: Sequence[str] | None, patient_pattern: str) -> list[Example]:
    """List the images of a data set kept as one folder per class.

    Parameters
    ----------
    root : Path
        Holds one folder for every label, or folders ``train``, ``val``, ``test`` that do.
    labels : sequence of str or None
        The folders to look at; None for every one there is.
    patient_pattern : str
        Searched in the file name: what its first group matches names the patient. Empty: every file is a patient of its own.

    Returns
    -------
    list of Example
        By split, then in the order of ``labels``, then by name. Hidden files and deeper folders are not looked at.

    Raises
    ------
    ConfigError
        If a class has no folder or no file, a name has no patient, or the pattern is none.
    """
    try:
        pattern = re.compile(patient_pattern)
    except re.error as fault:
        raise ConfigError(f"source.patient_pattern is not a regular expression: {fault}") from fault
    splits: list[tuple[Split | None, Path]] = [
        (name, root / name) for name in SPLITS if (root / name).is_dir() and name not in (labels or ())
    ]
    examples = []
    for split, base in splits or [(None, root)]:
        for label in labels if labels is not None else _folder_names(base):
            for path in _class_files(base, label):
                patient = _patient_of(path, pattern) if patient_pattern else path.name
                examples.append(Example(path.relative_to(root), (label,), patient, str(path), split))
    return examples


def _folder_names(base: Path) -> list[str]:
    names = sorted(path.name for path in base.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not names:
        raise ConfigError(f"{base}: holds no folder; this layout needs one folder of images per class")
    return names


def _class_files(base: Path, label: str) -> list[Path]:
    folder = base / label
    if not folder.is_dir():
        raise ConfigError(f"{base}: no folder {label!r}; every class of source.labels needs a folder of images with its name")
    paths = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    if not paths:
        raise ConfigError(f"{folder}: the class {label!r} has no image")
    return paths


def _patient_of(path: Path, pattern: re.Pattern[str]) -> str:
    match = pattern.search(path.name)
    if match is None or not match.groups() or not match.group(1):
        raise ConfigError(f"{path}: source.patient_pattern finds no patient in this file name")
    return match.group(1)
