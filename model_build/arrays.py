"""Arrays on disk as ``.npz`` files: written whole or not at all, read without pickle."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ModelError
from edge_agent.files.atomic import replacing


def write_arrays(path: Path, **arrays: NDArray[Any]) -> None:
    """Write arrays to an uncompressed ``.npz`` file, durably; an interrupted write leaves the older file.

    Parameters
    ----------
    path : Path
        Where it goes, in an existing folder.
    **arrays : ndarray
        By their names in the file.

    Raises
    ------
    DiskFullError, StorageError
        If it cannot be written.
    """
    with replacing(path, durable=True, hint="free space, or name another --out") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read every array of a ``.npz`` file.

    Raises
    ------
    ModelError
        If it is missing, damaged, or holds anything but plain arrays.
    """
    try:
        # Opened here: NumPy would leave the file of a damaged archive open.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; has the run that should have written it got so far?") from None
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as fault:
        raise ModelError(f"{path}: is not a whole file of arrays ({fault}); make the run again") from fault


def pack_arrays(**arrays: NDArray[Any]) -> bytes:
    """Arrays as the bytes of a compressed ``.npz`` file; no pickle."""
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()
