"""From a file's bytes to grey pixels, or to a fault that a technician understands."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np

# The two plugins that Pillow does not load by itself: without them its first TIFF or WebP would load all forty.
from PIL import Image, ImageFile, TiffImagePlugin, WebPImagePlugin  # noqa: F401

from edge_agent.array_types import UInt8Array
from edge_agent.errors import InputFault
from edge_agent.imaging.dicom import decode_dicom, is_dicom
from edge_agent.imaging.grey import grey_range, to_8_bits
from edge_agent.imaging.integrity import check_jpeg, check_png, check_webp, damaged, refuse_too_large, truncated
from edge_agent.imaging.quiet import quiet_libraries
from edge_agent.imaging.signatures import read_format
from edge_agent.records import Frame

# Pillow's own limit is one number for the whole process, and between one and two times that a mere warning. Ours is an argument,
# checked on the header before anything is decoded.
Image.MAX_IMAGE_PIXELS = None

REDUCED_DECODE_FACTOR = 1
"""A JPEG is decoded straight to 1/2, 1/4 or 1/8 as long as it stays at least this many times the model's input. Measured on 64 full-size
radiographs (0.3 to 7 megapixels) against the 224x224 copies of the same films that the model was trained on, at 160x160: mean shift of the
log odds 0.62 at factor 1, 0.65 at 2, 0.61 for a full decode, and no label changed by any; decode with preparation in ms of one core: 3.8,
4.5, 7.5."""

PILLOW_FAULTS: tuple[type[Exception], ...] = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, AssertionError, NotImplementedError, struct.error, zlib.error),
)
"""All that Pillow's readers have been seen to raise on broken files: it checks little itself and lets its parsing fail."""

_DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_COLOUR_MODES = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"})
_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_EXIF_ORIENTATION = 0x0112
_EXCHANGING_ORIENTATIONS = frozenset({5, 6, 7, 8})
"""The orientations that exchange rows and columns."""
_TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 262, 0
_TIFF_TILE_COLUMNS, _TIFF_TILE_ROWS = 322, 323
_JPEG_FILL = 128
"""Luma that libjpeg puts where the data ends too early."""


def decode_image(content: bytes, *, rows: int, columns: int, max_pixels: int = 100_000_000) -> Frame:
    """Decode one image file of any accepted format to 8-bit grey.

    Colour becomes luma (ITU-R BT.601), transparent parts black, deeper grey is scaled by its own range (:func:`grey_range`), the EXIF
    orientation is applied.

    Parameters
    ----------
    content : bytes
        The whole file. Its format is found from these bytes, never from a name.
    rows, columns : int
        The model input that follows, in pixels. A JPEG may come back reduced, but not below that size where the file has it.
    max_pixels : int
        An image with more is refused from its header. Memory stays below about five bytes per pixel of the file, plus the content.

    Returns
    -------
    Frame
        Pixels uint8, as the eye would see them (bone bright), upright; ``rows`` and ``columns`` of the whole image, upright.

    Raises
    ------
    InputFault
        ``empty``, ``not_an_image``, ``unsupported_format``, ``too_large``, ``truncated``, ``damaged``, ``multi_frame``,
        ``unsupported_pixels``, and those of :func:`~edge_agent.imaging.dicom.decode_dicom`.
    """
    if is_dicom(content):
        return decode_dicom(content, max_pixels=max_pixels)
    file_format = read_format(content)
    _check_before_opening(content, file_format, max_pixels)
    with quiet_libraries():
        try:
            # One reader only, the one for what the content is. Pillow's own guess would try every reader that it has.
            with Image.open(BytesIO(content), formats=(file_format,)) as image:
                return _decode_opened(image, content, file_format, rows=rows, columns=columns, max_pixels=max_pixels)
        except PILLOW_FAULTS as error:
            raise (truncated() if "truncated" in str(error).lower() else damaged()) from None
        except MemoryError:
            raise InputFault("too_large", "There is not enough memory to decode this image. Export it in a smaller size.") from None


def _check_before_opening(content: bytes, file_format: str, max_pixels: int) -> None:
    size = None
    match file_format:
        case "JPEG":
            size = check_jpeg(content)
        case "PNG":
            check_png(content)
        case "WEBP":
            size = check_webp(content)
    if size is not None:
        refuse_too_large(*size, max_pixels)


def _decode_opened(image: ImageFile.ImageFile, content: bytes, file_format: str, *, rows: int, columns: int, max_pixels: int) -> Frame:
    file_columns, file_rows = image.size
    if file_rows < 1 or file_columns < 1:
        raise damaged()
    refuse_too_large(file_rows, file_columns, max_pixels)
    if file_format == "TIFF":
        # A decoder allocates whole tiles, and a tile may be far larger than the image in it.
        tags = image.tag_v2  # type: ignore[attr-defined]
        refuse_too_large(tags.get(_TIFF_TILE_ROWS, 0), tags.get(_TIFF_TILE_COLUMNS, 0), max_pixels)
    # JPEG may carry further pictures (MPO: a preview, a depth map); the first is the image.
    if file_format != "JPEG" and getattr(image, "is_animated", False):
        raise InputFault("multi_frame", "The file holds several pages or frames, and which one counts is unknown. Export one image a file.")
    # The longer side for both, because the EXIF orientation may exchange them.
    side = REDUCED_DECODE_FACTOR * max(rows, columns)
    image.draft("L", (side, side))  # does nothing where the format has no reduced decode
    image.load()
    if file_format == "JPEG" and _ends_in_filling(content, image, side):
        raise truncated()
    orientation = _orientation(image)
    grey = _upright(_to_grey(image), orientation)
    if orientation in _EXCHANGING_ORIENTATIONS:
        file_rows, file_columns = file_columns, file_rows
    return Frame(pixels=grey, rows=file_rows, columns=file_columns, file_format=file_format)


def _to_grey(image: ImageFile.ImageFile) -> UInt8Array:
    """Luma of a loaded image of any mode, uint8, shape (rows, columns)."""
    mode = image.mode
    if mode in _DEEP_MODES:
        values = np.asarray(image)
        grey = to_8_bits(values, *grey_range(values))
        tags = getattr(image, "tag_v2", None)
        if tags is not None and tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
            np.subtract(255, grey, out=grey)  # Pillow does this for 8 bits and less only
        return grey
    if mode in _ALPHA_MODES or (mode in _COLOUR_MODES and image.has_transparency_data):
        with_alpha = image.convert("LA" if mode in {"LA", "La", "L", "1"} else "RGBA")
        over_black = Image.new("L", image.size, 0)
        over_black.paste(with_alpha.convert("L"), mask=with_alpha.getchannel("A"))
        return np.asarray(over_black)
    if mode in _COLOUR_MODES:
        return np.asarray(image if mode == "L" else image.convert("L"))
    raise InputFault("unsupported_pixels", f"The pixels are of a kind that is not read ({mode}). Export the image as 8 or 16-bit grey.")


def _ends_in_filling(content: bytes, image: ImageFile.ImageFile, side: int) -> bool:
    """Whether a JPEG has its end marker, but not all of its data before that: the decoder then fills up with grey and says nothing.

    Bytes put in before the end marker are skipped where the image is complete; where it is not, they are decoded and change the picture.
    """
    if image.convert("L").getpixel((image.width - 1, image.height - 1)) != _JPEG_FILL:
        return False
    end = content.rfind(b"\xff\xd9")
    with Image.open(BytesIO(content[:end] + bytes(range(1, 250)) * 8 + content[end:]), formats=("JPEG",)) as stuffed:
        stuffed.draft("L", (side, side))
        return stuffed.tobytes() != image.tobytes()


def _orientation(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation (TIFF 6.0, tag 274) still to be applied. Pillow has applied a TIFF's own when loading, and removed the tag."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except PILLOW_FAULTS:  # a broken EXIF block says nothing about the pixels
        return 1
    return orientation if isinstance(orientation, int) else 1


def _upright(grey: UInt8Array, orientation: int) -> UInt8Array:
    match orientation:
        case 2:
            turned = grey[:, ::-1]
        case 3:
            turned = grey[::-1, ::-1]
        case 4:
            turned = grey[::-1]
        case 5:
            turned = grey.T
        case 6:
            turned = np.rot90(grey, -1)
        case 7:
            turned = grey.T[::-1, ::-1]
        case 8:
            turned = np.rot90(grey)
        case _:
            return grey
    return np.ascontiguousarray(turned)
