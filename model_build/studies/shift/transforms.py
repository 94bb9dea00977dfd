"""Change prepared images as another hospital's devices, exports and habits would, one change at a time."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from model_build.array_types import BoolArray, Float64Array, Int64Array, UInt8Array
from model_build.data.pixels import Pixels

Grey = UInt8Array


@dataclass(frozen=True)
class Shift:
    """A change of every image, always the same.

    ``family`` names what changes: shifts of one family are much alike, so whoever leaves one of them out leaves out all. ``change`` takes
    and gives grey values, uint8, shape (rows, columns), and leaves its input as it was.
    """

    name: str
    family: str
    change: Callable[[Grey], Grey]


def _table(curve: Callable[[Float64Array], Float64Array]) -> Callable[[Grey], Grey]:
    """A change of each grey value by itself; ``curve`` is given 0 (black) to 255 (white)."""
    values = np.clip(np.rint(curve(np.arange(256.0))), 0.0, 255.0).astype(np.uint8)
    return lambda grey: values[grey]


def _by_pillow(change: Callable[[Image.Image], Image.Image]) -> Callable[[Grey], Grey]:
    return lambda grey: np.array(change(Image.fromarray(grey)), dtype=np.uint8)


def _crop(share: float) -> Callable[[Image.Image], Image.Image]:
    """Cut so much off each side and enlarge the rest: a film collimated more closely."""

    def change(image: Image.Image) -> Image.Image:
        columns, rows = image.size
        box = (share * columns, share * rows, (1.0 - share) * columns, (1.0 - share) * rows)
        return image.resize(image.size, Image.Resampling.BILINEAR, box=box)

    return change


def _pad(share: float) -> Callable[[Image.Image], Image.Image]:
    """Make the film smaller by this share of its sides, within a black border."""

    def change(image: Image.Image) -> Image.Image:
        columns, rows = image.size
        small = image.resize((round((1.0 - share) * columns), round((1.0 - share) * rows)), Image.Resampling.BILINEAR)
        padded = Image.new("L", image.size)
        padded.paste(small, ((columns - small.width) // 2, (rows - small.height) // 2))
        return padded

    return change


def _coarsen(share: float) -> Callable[[Image.Image], Image.Image]:
    """Keep this share of the rows and columns, and enlarge again."""

    def change(image: Image.Image) -> Image.Image:
        small = image.resize((max(1, round(share * image.width)), max(1, round(share * image.height))), Image.Resampling.BILINEAR)
        return small.resize(image.size, Image.Resampling.BILINEAR)

    return change


def _jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def change(image: Image.Image) -> Image.Image:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=quality)
        return Image.open(stream, formats=("JPEG",))

    return change


AS_IT_IS = Shift("as they are", "none", np.copy)

SHIFTS: tuple[Shift, ...] = (
    Shift("gamma 0.6", "gamma", _table(lambda v: 255.0 * (v / 255.0) ** 0.6)),
    Shift("gamma 1.6", "gamma", _table(lambda v: 255.0 * (v / 255.0) ** 1.6)),
    Shift("brighter by 30", "brightness", _table(lambda v: v + 30.0)),
    Shift("darker by 30", "brightness", _table(lambda v: v - 30.0)),
    Shift("contrast 0.6", "contrast", _table(lambda v: (v - 128.0) * 0.6 + 128.0)),
    Shift("contrast 1.4", "contrast", _table(lambda v: (v - 128.0) * 1.4 + 128.0)),
    Shift("equalised", "histogram", _by_pillow(ImageOps.equalize)),
    Shift("autocontrast", "histogram", _by_pillow(lambda image: ImageOps.autocontrast(image, cutoff=2))),
    Shift("cropped by 8 %", "framing", _by_pillow(_crop(0.08))),
    Shift("padded by 15 %", "framing", _by_pillow(_pad(0.15))),
    Shift("blur of 1 px", "sharpness", _by_pillow(lambda image: image.filter(ImageFilter.GaussianBlur(1.0)))),
    Shift("resolution 40 %", "sharpness", _by_pillow(_coarsen(0.4))),
    Shift("JPEG quality 20", "compression", _by_pillow(_jpeg(20))),
)
"""The shifts, on the model's input: 40 % of 160 rows are 64, one pixel there is about a dozen of a scanned film."""


class ShiftedPixels:
    """Some of the images of a set, each changed when it is read: nothing but the images asked for stands in memory.

    Parameters
    ----------
    pixels : Pixels
        The whole set.
    indices : ndarray, int64, shape (chosen,)
        Which images, in which order.
    shift : Shift
    """

    def __init__(self, pixels: Pixels, indices: Int64Array, shift: Shift) -> None:
        self._pixels, self._indices, self._shift = pixels, indices, shift

    @property
    def shape(self) -> tuple[int, ...]:
        """(chosen, rows, columns, 1)."""
        return (len(self), *self._pixels.shape[1:])

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int | slice | Int64Array | BoolArray, /) -> Grey:
        """Changed images, as :class:`~model_build.data.pixels.Pixels` gives them; always new arrays."""
        if isinstance(index, int):
            return self._shift.change(self._pixels[int(self._indices[index])][:, :, 0])[:, :, np.newaxis]
        chosen = self._indices[index]
        changed = np.empty((len(chosen), *self.shape[1:]), np.uint8)
        for place, origin in enumerate(chosen.tolist()):
            changed[place, :, :, 0] = self._shift.change(self._pixels[origin][:, :, 0])
        return changed
