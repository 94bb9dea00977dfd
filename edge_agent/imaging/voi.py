"""DICOM's grey value chain as one table: stored value, modality transformation, values of interest, 8 bits.

pydicom has functions for each step. They are not used, because they work on the image and in float64 (eight bytes a pixel), refuse
modality LUTs of 9 to 15 bits, wrap 8-bit VOI LUTs with over 256 entries, and turn a window around where the rescale slope is negative.
A test compares this module with them where they are right.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.array_types import Float64Array, UInt8Array

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def grey_table(dataset: Dataset) -> tuple[Float64Array, UInt8Array | None]:
    """Work out what each possible stored value means and, where the file says so, how bright it is shown.

    Parameters
    ----------
    dataset : Dataset
        With at most 16 bits stored.

    Returns
    -------
    values : ndarray, float64, shape (2 ** bits stored,)
        By the stored bits read as an unsigned number: the value after the modality LUT, or after rescale slope and intercept.
    table : ndarray, uint8, same shape, or None
        By the same: 0 (black) to 255, before any inversion. None where the file has no usable window.

    References
    ----------
    DICOM PS3.3, C.11.1 and C.11.2.
    """
    bits_stored = int(dataset.BitsStored)
    stored = np.arange(1 << bits_stored)
    if int(dataset.PixelRepresentation):  # two's complement
        stored[stored >= 1 << (bits_stored - 1)] -= 1 << bits_stored

    if dataset.get("ModalityLUTSequence"):
        values = _look_up(stored, dataset.ModalityLUTSequence[0], dataset)
    else:
        slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
        values = stored.astype(np.float64) * (1.0 if slope is None else float(slope)) + (0.0 if intercept is None else float(intercept))

    lut = _first_lut(dataset)
    if lut is not None:
        shown = _look_up(np.rint(values), lut, dataset)
        # The descriptor often states 16 bits where 12 are used: the depth is that of the largest entry.
        return values, np.rint(shown * (255.0 / ((1 << int(shown.max()).bit_length()) - 1 or 1))).astype(np.uint8)
    window = _first_window(dataset)
    return values, None if window is None else np.rint(_apply_window(values, *window) * 255.0).astype(np.uint8)


def _look_up(values: NDArray[Any], item: Dataset, dataset: Dataset) -> Float64Array:
    """Apply one item of a LUT sequence (C.11.1.1.1): values before the first mapped one get the first entry, those after it the last."""
    entries, first = int(item.LUTDescriptor[0]) & 0xFFFF or 1 << 16, int(item.LUTDescriptor[1])
    if isinstance(item.LUTData, bytes):
        # 8-bit entries may be packed two to a word.
        kind = "u1" if len(item.LUTData) < 2 * entries else "<u2" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">u2"
        lut = np.frombuffer(item.LUTData, dtype=kind)
    else:
        lut = np.asarray(item.LUTData, dtype=np.int64).reshape(-1) & 0xFFFF
    if lut.size < entries:
        raise ValueError
    return np.asarray(lut[np.clip(values - first, 0, entries - 1).astype(np.int64)], dtype=np.float64)


def _first_lut(dataset: Dataset) -> Dataset | None:
    sequence = dataset.get("VOILUTSequence")
    if not sequence or sequence[0].get("LUTDescriptor") is None or sequence[0].get("LUTData") is None:
        return None
    item: Dataset = sequence[0]
    return item


def _first_window(dataset: Dataset) -> tuple[str, float, float] | None:
    """Function, centre and width of the first window; None where there is none, or one that no viewer could apply."""
    center, width = (_first_number(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction") or "LINEAR").upper()
    if center is None or width is None or function not in {"LINEAR", "LINEAR_EXACT", "SIGMOID"}:
        return None
    if not (math.isfinite(center) and math.isfinite(width)) or width <= 0 or (function == "LINEAR" and width < 1):
        return None
    return function, center, width


def _first_number(value: Any) -> float | None:
    from pydicom.multival import MultiValue

    first = (value[0] if len(value) else None) if isinstance(value, MultiValue) else value
    return None if first is None else float(first)


def _apply_window(values: Float64Array, function: str, center: float, width: float) -> Float64Array:
    """Brightness from 0 to 1 (C.11.2.1.2.1, C.11.2.1.3.1 and C.11.2.1.3.2)."""
    if function == "SIGMOID":
        return 1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - center) / width, -700.0, 700.0)))
    if function == "LINEAR":
        center, width = center - 0.5, width - 1.0
    if width == 0:
        return (values > center).astype(np.float64)
    return np.clip((values - center) / width + 0.5, 0.0, 1.0)
