"""When a camera's picture is worth keeping: the scene stands still, and it is not the one kept before."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.array_types import Float32Array

_CELLS_COLUMNS = 64
_CELLS_ROWS = 48
"""Frames are compared as grey pictures of this size: each cell averages many pixels, so that sensor noise mostly cancels."""
_CLOCK_TOLERANCE_S = 0.001
"""Timestamps of a video are rounded to the container's time base."""


class StillScene:
    """Decides, frame by frame, which one is taken.

    A scene is still while every frame stays within ``motion_threshold`` of the frame that it began with. Comparing with that frame and not
    with the one just before finds slow movement too.

    Parameters
    ----------
    still_s : float
        Seconds that a scene stands still before a frame of it is taken.
    motion_threshold : float
        Grey levels (0 to 255), mean over the picture: more than this is movement.
    difference_threshold : float
        Grey levels, mean over the picture: a still scene that differs less than this from the last one taken is the same scene.
    """

    def __init__(self, still_s: float, motion_threshold: float, difference_threshold: float) -> None:
        self._still_s = still_s
        self._motion_threshold = motion_threshold
        self._difference_threshold = difference_threshold
        self._first: Float32Array | None = None
        self._first_shape: tuple[int, ...] = ()
        self._first_s = 0.0
        self._taken: Float32Array | None = None

    def offer(self, pixels: NDArray[Any], at_s: float) -> bool:
        """Look at the next frame.

        Parameters
        ----------
        pixels : ndarray, shape (rows, columns) or (rows, columns, 3)
            As OpenCV gives it (blue, green, red). Only read. Its size may change from frame to frame: a new size begins a new scene.
        at_s : float
            When the frame was captured, in seconds of a clock that does not go back.

        Returns
        -------
        bool
            Whether to take this frame; it is then the one that later scenes are compared with.
        """
        cells = _grey_cells(pixels)
        moved = self._first is None or pixels.shape != self._first_shape or _mean_difference(cells, self._first) > self._motion_threshold
        if moved:
            self._first, self._first_shape, self._first_s = cells, pixels.shape, at_s
        if at_s - self._first_s < self._still_s - _CLOCK_TOLERANCE_S:
            return False
        if self._taken is not None and _mean_difference(cells, self._taken) < self._difference_threshold:
            return False
        self._taken = cells
        return True


def _grey_cells(pixels: NDArray[Any]) -> Float32Array:
    import cv2

    # Colour is dropped after shrinking: the conversion then touches 3,072 cells and not every pixel.
    small = cv2.resize(pixels, (_CELLS_COLUMNS, _CELLS_ROWS), interpolation=cv2.INTER_AREA)
    grey = small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    return np.asarray(grey, dtype=np.float32)


def _mean_difference(one: Float32Array, other: Float32Array | None) -> float:
    return float("inf") if other is None else float(np.abs(one - other).mean())
