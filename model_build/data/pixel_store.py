"""Prepared images by the digest of their files: in memory, or on disk where there are too many, decoded once for all later builds."""

from __future__ import annotations

import fcntl
import importlib.metadata
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import msgspec
import numpy as np

from edge_agent.errors import ConfigError, DiskFullError, ModelError, StorageError
from edge_agent.files.atomic import SPACE_GONE
from edge_agent.imaging.preprocess import InputContract
from model_build.array_types import Float64Array, Int64Array, UInt8Array
from model_build.arrays import read_arrays, write_arrays
from model_build.data.pixels import StoredPixels
from model_build.data.prepare import PROPERTY_COUNT, Prepared
from model_build.data.similarity import THUMBNAIL_PX

_FORMAT = 1
"""Raise it when decoding or preparation gives other pixels, so that no build trains on those of an older version."""
_DIGEST_BYTES = 32


class MemoryStore:
    """Prepared images in one array, for as many as were announced."""

    def __init__(self, capacity: int, contract: InputContract) -> None:
        self._pixels = np.empty((capacity, contract.rows, contract.columns, 1), np.uint8)
        self._index = _Index(capacity)

    def __enter__(self) -> MemoryStore:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def place_of(self, sha256: str) -> int | None:
        """Where the image of these bytes stands, if it is here."""
        return self._index.places.get(sha256)

    def add(self, sha256: str, prepared: Prepared) -> int:
        """Take an image in; returns its place."""
        place = self._index.add(sha256, prepared)
        self._pixels[place] = prepared.pixels
        return place

    def pixels(self, places: Sequence[int]) -> UInt8Array:
        """The images at these places."""
        return self._pixels[_as_index(places)]

    def properties(self, places: Sequence[int]) -> Float64Array:
        """Their properties, shape (images, 4)."""
        return self._index.properties_of(places)

    def thumbnails(self, places: Sequence[int]) -> UInt8Array:
        """Their thumbnails, shape (images, 32, 32)."""
        return self._index.thumbnails_of(places)


class DiskStore:
    """Prepared images in a folder, kept for later builds with the same input contract; takes in as many more as were announced.

    Used as a context, by one process at a time. ``pixels.u8`` grows first; ``index.npz``, written whole at the end, says what of it counts:
    what a killed build had added beyond that is cut off by the next. An index of another contract, of other decoders or a damaged one is
    thrown away, and everything is decoded again.

    Raises
    ------
    ConfigError
        On entering, if another build is filling the same folder.
    DiskFullError, StorageError
        If the folder cannot be written. What was there before is kept.
    """

    def __init__(self, folder: Path, capacity: int, contract: InputContract) -> None:
        self._capacity = capacity
        self._folder = folder / f"{contract.rows}x{contract.columns}"
        self._path, self._index_path = self._folder / "pixels.u8", self._folder / "index.npz"
        self._image_shape = (contract.rows, contract.columns, 1)
        self._size = contract.rows * contract.columns
        versions = {name: importlib.metadata.version(name) for name in ("pillow", "pydicom")}
        self._made_by = msgspec.json.encode([_FORMAT, contract, versions]).decode()
        self._index = _Index(0)
        self._kept = 0
        self._descriptor = self._lock = -1

    def __enter__(self) -> DiskStore:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._index = self._read_index()
            self._kept = len(self._index.places)
            if not self._kept:
                # A new file: a build that reads the old one keeps it until it ends.
                self._path.unlink(missing_ok=True)
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._descriptor, self._kept * self._size)
        except BlockingIOError:
            self._close()
            raise ConfigError(f"{self._folder}: another build is filling this cache; wait for it, or name another folder") from None
        except OSError as fault:
            self._close()
            raise self._fault(fault) from fault
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if kind is None or not issubclass(kind, StorageError):
                self._keep()
            # Gives back the space of what nobody will find.
            os.ftruncate(self._descriptor, self._kept * self._size)
        except OSError as fault:
            raise self._fault(fault) from fault
        finally:
            self._close()

    def _keep(self) -> None:
        """Make what was added count, if anything was."""
        if len(self._index.places) > self._kept:
            os.fsync(self._descriptor)
            write_arrays(self._index_path, made_by=np.array(self._made_by), **self._index.to_arrays())
            self._kept = len(self._index.places)

    def place_of(self, sha256: str) -> int | None:
        """Where the image of these bytes stands, if it is here."""
        return self._index.places.get(sha256)

    def add(self, sha256: str, prepared: Prepared) -> int:
        """Take an image in; returns its place."""
        place = len(self._index.places)
        content, offset = np.ascontiguousarray(prepared.pixels).reshape(-1).data, place * self._size
        try:
            while content:
                count = os.pwrite(self._descriptor, content, offset)
                content, offset = content[count:], offset + count
        except OSError as fault:
            raise self._fault(fault) from fault
        return self._index.add(sha256, prepared)

    def pixels(self, places: Sequence[int]) -> StoredPixels:
        """The images at these places, to be read when asked for."""
        return StoredPixels(self._path, np.array(places, np.int64), self._image_shape)

    def properties(self, places: Sequence[int]) -> Float64Array:
        """Their properties, shape (images, 4)."""
        return self._index.properties_of(places)

    def thumbnails(self, places: Sequence[int]) -> UInt8Array:
        """Their thumbnails, shape (images, 32, 32)."""
        return self._index.thumbnails_of(places)

    def _read_index(self) -> _Index:
        try:
            arrays = read_arrays(self._index_path)
            index = _Index.from_arrays(arrays, self._capacity)
            whole = self._path.stat().st_size >= len(index.places) * self._size
            return index if whole and str(arrays["made_by"]) == self._made_by else _Index(self._capacity)
        except (ModelError, OSError, KeyError, ValueError):
            return _Index(self._capacity)

    def _close(self) -> None:
        for descriptor in (self._descriptor, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._lock = -1

    def _fault(self, fault: OSError) -> StorageError:
        if fault.errno in SPACE_GONE:
            return DiskFullError(f"{self._path}: no space left for the decoded images; free some, or name a folder on another disk")
        return StorageError(f"{self._path}: cannot be written: {fault.strerror}; name a folder that can")


class _Index:
    """What is kept of every image beside its pixels, by place; ``places`` finds the place by digest.

    In arrays made once for ``capacity`` more images: small arrays of their own, made between the large ones of decoding, would cut the
    freed memory into pieces too small to be used again (measured: 30 KiB lost for each image).
    """

    def __init__(self, capacity: int) -> None:
        self.places: dict[str, int] = {}
        self._properties = np.empty((capacity, PROPERTY_COUNT), np.float64)
        self._thumbnails = np.empty((capacity, THUMBNAIL_PX, THUMBNAIL_PX), np.uint8)

    def add(self, sha256: str, prepared: Prepared) -> int:
        place = self.places[sha256] = len(self.places)
        self._properties[place] = prepared.properties
        self._thumbnails[place] = prepared.thumbnail
        return place

    def properties_of(self, places: Sequence[int]) -> Float64Array:
        return self._properties[_as_index(places)]

    def thumbnails_of(self, places: Sequence[int]) -> UInt8Array:
        return self._thumbnails[_as_index(places)]

    def to_arrays(self) -> dict[str, UInt8Array | Float64Array]:
        everything = range(len(self.places))
        digests = np.frombuffer(bytes.fromhex("".join(self.places)), np.uint8).reshape(-1, _DIGEST_BYTES)
        return {"digests": digests, "properties": self.properties_of(everything), "thumbnails": self.thumbnails_of(everything)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, UInt8Array], capacity: int) -> _Index:
        count = len(arrays["digests"])
        index = cls(count + capacity)
        index.places = {digest.tobytes().hex(): place for place, digest in enumerate(arrays["digests"])}
        index._properties[:count], index._thumbnails[:count] = arrays["properties"], arrays["thumbnails"]
        return index


def _as_index(places: Sequence[int]) -> slice | Int64Array:
    """Choose without a copy where that is possible: a build that fills an empty store asks for all, in order."""
    return slice(len(places)) if list(places) == list(range(len(places))) else np.array(places, np.int64)
