"""One look at every file of a data set: what it is, and a thumbnail to compare it by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from edge_agent.errors import InputFault
from edge_agent.imaging.decode import decode_image
from model_build.array_types import UInt8Array
from model_build.data.example import Example
from model_build.data.read_ahead import in_order
from model_build.data.similarity import THUMBNAIL_PX, thumbnail


@dataclass(frozen=True, slots=True)
class Scanned:
    """A readable image: ``rows`` and ``columns`` of the whole file, ``mode`` such as "JPEG L", mean grey value from 0 to 255."""

    example: Example
    sha256: str
    byte_count: int
    rows: int
    columns: int
    mode: str
    mean: float


@dataclass(frozen=True)
class Scan:
    """``thumbnails`` is uint8, shape (images, 32, 32), in the order of ``images``; ``unreadable`` pairs an example with the reason."""

    images: list[Scanned]
    thumbnails: UInt8Array
    unreadable: list[tuple[Example, str]]


def scan_images(root: Path, examples: Sequence[Example], on_progress: Callable[[int, int], None] = lambda done, total: None) -> Scan:
    """Read every file once, on all cores; about 1.5 KB stays in memory for each.

    Parameters
    ----------
    root : Path
        The data folder.
    examples : sequence of Example
    on_progress : callable, optional
        Called with the number of files read and their total.

    Returns
    -------
    Scan
        JPEGs are decoded at reduced size where that suffices for the thumbnail.
    """
    images: list[Scanned] = []
    unreadable: list[tuple[Example, str]] = []
    thumbnails = np.empty((len(examples), THUMBNAIL_PX, THUMBNAIL_PX), np.uint8)
    for done, (example, scanned) in enumerate(in_order(lambda example: _scan(root, example), examples), start=1):
        if isinstance(scanned, str):
            unreadable.append((example, scanned))
        else:
            image, thumbnails[len(images)] = scanned
            images.append(image)
        on_progress(done, len(examples))
    return Scan(images, thumbnails[: len(images)], unreadable)


def _scan(root: Path, example: Example) -> tuple[Scanned, UInt8Array] | str:
    """What there is to know of a file, and its thumbnail, or why it cannot be read."""
    try:
        content = (root / example.path).read_bytes()
        frame = decode_image(content, rows=THUMBNAIL_PX, columns=THUMBNAIL_PX)
    except InputFault as fault:
        return fault.message
    except OSError as fault:
        return f"The file cannot be read from the disk: {fault.strerror}."
    digest, mode = hashlib.sha256(content).hexdigest(), _mode(content, frame.file_format)
    scanned = Scanned(example, digest, len(content), frame.rows, frame.columns, mode, float(frame.pixels.mean()))
    return scanned, thumbnail(frame.pixels)


def _mode(content: bytes, file_format: str) -> str:
    """The format and Pillow's name for the kind of pixels; a DICOM file's pixels are described by its own header alone."""
    if file_format == "DICOM":
        return file_format
    with Image.open(BytesIO(content), formats=(file_format,)) as image:
        return f"{file_format} {image.mode}"
