"""The pixels of a build's images: who trains and measures asks for the ones it needs, in memory or on disk."""

from __future__ import annotations

import os
import weakref
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from edge_agent.errors import StorageError
from model_build.array_types import BoolArray, Int64Array, UInt8Array


class Pixels(Protocol):
    """Prepared images, uint8, shape (images, rows, columns, 1): an array, or a store on disk that reads only what is asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(images, rows, columns, 1)."""

    def __len__(self) -> int:
        """The number of images."""

    def __getitem__(self, index: int | slice | Int64Array | BoolArray, /) -> UInt8Array:
        """One image, uint8, shape (rows, columns, 1), or those that a slice, indices or flags choose, shape (chosen, rows, columns, 1)."""


class StoredPixels:
    """Images in one flat file, read when asked for.

    Read by ``pread`` and not mapped: a mapped page counts as this process's memory once it was looked at. Safe to use from several threads.

    Parameters
    ----------
    path : Path
        The images one after the other, uint8, without a header.
    places : ndarray, int64, shape (images,)
        Where in the file each image of this set stands, counted in images.
    image_shape : tuple of int
        (rows, columns, 1).
    """

    def __init__(self, path: Path, places: Int64Array, image_shape: tuple[int, int, int]) -> None:
        self._path, self._places, self._image_shape = path, places, image_shape
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._descriptor)

    @property
    def shape(self) -> tuple[int, ...]:
        """(images, rows, columns, 1)."""
        return (len(self), *self._image_shape)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int | slice | Int64Array | BoolArray, /) -> UInt8Array:
        """Read images into a new array; :class:`StorageError` if the file is shorter than it was."""
        places = np.atleast_1d(self._places[index])
        images = np.empty((len(places), *self._image_shape), np.uint8)
        # What stands together in the file is read in one go.
        borders = [0, *(np.flatnonzero(np.diff(places) != 1) + 1).tolist(), len(places)]
        for start, stop in pairwise(borders):
            if stop > start:
                self._read_into(images[start:stop], int(places[start]))
        return images[0] if isinstance(index, (int, np.integer)) else images

    def _read_into(self, images: UInt8Array, place: int) -> None:
        target, offset = images.reshape(-1).data, place * images[0].size
        while target:
            try:
                count = os.preadv(self._descriptor, [target], offset)
            except OSError as fault:
                raise StorageError(f"{self._path}: cannot be read: {fault.strerror}; check the disk and start again") from fault
            if count == 0:
                raise StorageError(f"{self._path}: was cut short while the build used it; start again, it is then made anew")
            target, offset = target[count:], offset + count
