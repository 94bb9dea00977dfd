"""Reader for one folder per class, with patients told apart by a pattern in the file name."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ConfigError, InputFault
from edge_agent.imaging.decode import decode_image
from edge_agent.imaging.preprocess import InputContract, prepare_input
from model_build.config import SourceConfig


@dataclass(frozen=True)
class LabelledFile:
    """One image on disk: its path below the data folder, its class index, its patient and the SHA-256 of its bytes."""

    path: Path
    label: int
    patient: str
    sha256: str


@dataclass(frozen=True)
class ImageSet:
    """Decoded images with their labels.

    ``pixels`` is uint8, shape (images, rows, columns, 1), prepared by :func:`edge_agent.imaging.preprocess.prepare_input`; ``labels`` is
    int64, shape (images,), an index into the config's labels; ``files`` is in the same order. ``dropped`` says, per file left
    out, why. ``fingerprint`` is the SHA-256 over every kept file's digest and label.
    """

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    files: list[LabelledFile]
    dropped: list[str]
    fingerprint: str


def _class_files(root: Path, label: str) -> list[Path]:
    folder = root / label
    if not folder.is_dir():
        raise ConfigError(f"{root}: no folder {label!r}; every class of source.labels needs a folder of images with its name")
    paths = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    if not paths:
        raise ConfigError(f"{folder}: the class {label!r} has no image")
    return paths


def _patient_of(path: Path, pattern: re.Pattern[str]) -> str:
    match = pattern.search(path.name)
    if match is None or not match.groups() or not match.group(1):
        raise ConfigError(f"{path}: source.patient_pattern finds no patient in this file name")
    return match.group(1)


def read_folders(
    root: Path, source: SourceConfig, contract: InputContract, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> ImageSet:
    """Decode a data set kept as one folder per class.

    Parameters
    ----------
    root : Path
        Holds one folder for every label of ``source.labels``.
    source : SourceConfig
        Labels and the patient pattern.
    contract : InputContract
        The model's input size and rules.
    on_progress : callable, optional
        Called with the number of files read and their total.

    Returns
    -------
    ImageSet
        Byte-identical files are kept once (the first by name), so that no copy stands on both sides of a split.

    Raises
    ------
    ConfigError
        If a class has no folder or no image, a name has no patient, or the same bytes stand under two labels.

    Notes
    -----
    A file that can not be decoded is left out and named in ``dropped``.
    """
    try:
        pattern = re.compile(source.patient_pattern)
    except re.error as fault:
        raise ConfigError(f"source.patient_pattern is not a regular expression: {fault}") from fault
    candidates = [(path, index) for index, label in enumerate(source.labels) for path in _class_files(root, label)]
    kept: list[LabelledFile] = []
    pixels: list[NDArray[np.uint8]] = []
    dropped: list[str] = []
    first_by_digest: dict[str, LabelledFile] = {}
    for done, (path, class_index) in enumerate(candidates, start=1):
        content = path.read_bytes()
        relative = path.relative_to(root)
        entry = LabelledFile(relative, class_index, _patient_of(path, pattern), hashlib.sha256(content).hexdigest())
        first = first_by_digest.get(entry.sha256)
        if first is not None and first.label != class_index:
            raise ConfigError(f"{root}: {first.path} and {relative} are the same image under two labels; remove the wrong one")
        if first is not None:
            dropped.append(f"{relative}: same bytes as {first.path}")
            continue
        try:
            frame = decode_image(content, rows=contract.rows, columns=contract.columns)
        except InputFault as fault:
            dropped.append(f"{relative}: {fault.message}")
            continue
        first_by_digest[entry.sha256] = entry
        kept.append(entry)
        pixels.append(prepare_input(frame.pixels, contract))
        on_progress(done, len(candidates))
    for index, label in enumerate(source.labels):
        if not any(entry.label == index for entry in kept):
            raise ConfigError(f"{root / label}: no image of the class {label!r} can be read")
    digest = hashlib.sha256("".join(f"{entry.sha256} {entry.label}\n" for entry in kept).encode()).hexdigest()
    return ImageSet(np.stack(pixels), np.array([entry.label for entry in kept], np.int64), kept, dropped, digest)
