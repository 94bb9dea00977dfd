"""Grey values of any depth to the 8 bits that models see."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.array_types import UInt8Array

_SAMPLE_PIXELS = 1_000_000
_BLOCK_PIXELS = 4_000_000
_TAIL = 0.001
"""One dead pixel in a thousand must not decide the brightness; a side marker, which is bright and larger, still counts."""


def even_sample(values: NDArray[Any]) -> NDArray[Any]:
    """Take at most a million values, evenly spread over all axes; a view. All of them where there are not more."""
    if values.size <= _SAMPLE_PIXELS:
        return values
    step = int(np.ceil((values.size / _SAMPLE_PIXELS) ** (1 / values.ndim)))
    return values[(slice(None, None, step),) * values.ndim]


def grey_range(values: NDArray[Any]) -> tuple[float, float]:
    """Find the two grey values that become black and white in an image that does not say so itself.

    A deeper image seldom uses its whole container: a 12-bit radiograph in a 16-bit file would come out nearly black if it were divided by
    65,535, and clipped it would come out white. So its own range decides, as a viewer does for a DICOM file without a window.

    Parameters
    ----------
    values : ndarray, integer or float, any shape
        Values that are not finite are left out. Of a large image an even sample is used.

    Returns
    -------
    tuple of float
        The 0.1 % and the 99.9 % quantile; minimum and maximum where these are equal; (0, 0) where there is no finite value.
    """
    sample = even_sample(values)
    if np.issubdtype(sample.dtype, np.floating):
        sample = sample[np.isfinite(sample)]
    if sample.size == 0:
        return 0.0, 0.0
    low, high = (float(value) for value in np.quantile(sample, (_TAIL, 1 - _TAIL)))
    if low == high:
        low, high = float(sample.min()), float(sample.max())
    return low, high


def to_8_bits(values: NDArray[Any], low: float, high: float) -> UInt8Array:
    """Scale grey values so that ``low`` becomes 0 and ``high`` 255, rounded; what lies outside is clipped.

    Parameters
    ----------
    values : ndarray, integer or float, any shape
        Values that are not a number become 0.
    low, high : float
        Where they are equal, ``low`` and less become 0 and the rest 255.

    Returns
    -------
    ndarray, uint8, same shape
        A new array; works in blocks of rows, so that no copy of the whole image in floating point is made.
    """
    grey = np.empty(values.shape, dtype=np.uint8)
    rows = max(1, _BLOCK_PIXELS // max(1, values[:1].size))
    for start in range(0, values.shape[0], rows):
        with np.errstate(invalid="ignore"):  # a signalling NaN, which only a broken file holds
            block = values[start : start + rows].astype(np.float64)
        if high > low:
            np.clip(block, low, high, out=block)
            block = (block - low) * (255.0 / (high - low)) + 0.5
        else:
            block = np.where(block > low, 255.0, 0.0)
        grey[start : start + rows] = np.nan_to_num(block, nan=0.0).astype(np.uint8)
    return grey
