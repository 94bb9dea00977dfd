"""DICOM: single images, found by content, shown as a viewer would show them first. pydicom is loaded at the first such file.

No element that names a patient is read: pydicom gets a list of the few that pixels need and skips the rest unparsed.
"""

from __future__ import annotations

import logging
import struct
import zlib
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_agent.array_types import UInt8Array
from edge_agent.errors import InputFault
from edge_agent.imaging.grey import even_sample, grey_range, to_8_bits
from edge_agent.imaging.integrity import check_jpeg, damaged, refuse_too_large, truncated
from edge_agent.imaging.quiet import quiet_libraries
from edge_agent.imaging.voi import grey_table
from edge_agent.records import Frame

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

PYDICOM_FAULTS: tuple[type[Exception], ...] = (
    *(OSError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError),
    *(AssertionError, RuntimeError, struct.error, zlib.error),
)
"""pydicom parses lazily and converts on access, so a broken element can raise nearly any of Python's own errors, at any line below."""

_PREFIX, _PREFIX_AT = b"DICM", 128
_META_GROUP, _TRANSFER_SYNTAX = 0x0002, 0x00020010
_PIXEL_DATA = 0x7FE00010
_MAX_ELEMENTS = 100_000
"""A file with more elements before its pixels is not one image's header but an attempt to keep the reader busy."""

_FIRST_ELEMENTS = frozenset({0x0000, 0x0001, 0x0005, 0x0008, 0x0012, 0x0016, 0x0018})
"""Elements of group 0008 with which a data set without its file header begins."""

_READ_ELEMENTS = (
    0x00080016,  # SOP Class UID, to say what a file without pixels is
    0x00280002,  # Samples per Pixel
    0x00280004,  # Photometric Interpretation
    0x00280006,  # Planar Configuration
    0x00280008,  # Number of Frames
    0x00280010,  # Rows
    0x00280011,  # Columns
    0x00280100,  # Bits Allocated
    0x00280101,  # Bits Stored
    0x00280102,  # High Bit
    0x00280103,  # Pixel Representation
    0x00280120,  # Pixel Padding Value
    0x00281050,  # Window Center
    0x00281051,  # Window Width
    0x00281052,  # Rescale Intercept
    0x00281053,  # Rescale Slope
    0x00281056,  # VOI LUT Function
    0x00283000,  # Modality LUT Sequence
    0x00283010,  # VOI LUT Sequence
    0x20500020,  # Presentation LUT Shape
    0x7FE00001,  # Extended Offset Table
    0x7FE00002,  # Extended Offset Table Lengths
    0x7FE00008,  # Float Pixel Data
    0x7FE00009,  # Double Float Pixel Data
    _PIXEL_DATA,
)


def is_dicom(content: bytes) -> bool:
    """Tell whether a file's content is DICOM.

    Either a Part 10 file ("DICM" after 128 bytes of preamble), or one without that preamble, as old archives write it: it must begin with a
    file meta group in explicit VR, or with one of the first elements of group 0008 and a plausible length.

    References
    ----------
    DICOM PS3.10, 7.1; PS3.5, 7.1.
    """
    if content.startswith(_PREFIX, _PREFIX_AT):
        return True
    if len(content) < 132:
        return False
    for order in "<>":
        group, element, length = struct.unpack_from(f"{order}HHI", content)
        if order == "<" and (group, element) == (_META_GROUP, 0) and content[4:6] == b"UL":
            return True
        if group == 0x0008 and element in _FIRST_ELEMENTS:
            return _has_explicit_vr(content, 0) or (order == "<" and 0 < length <= 128 and length % 2 == 0)
    return False


def decode_dicom(content: bytes, *, max_pixels: int = 100_000_000) -> Frame:
    """Decode a single-frame DICOM image to 8-bit grey, as a viewer shows it first.

    Stored values go through the modality LUT or rescale, then through the first VOI LUT or else the first window; an image without either
    is scaled by its own range. MONOCHROME1 is inverted after that, so that bone is bright. Colour becomes luma.

    Parameters
    ----------
    content : bytes
        The whole file, for which :func:`is_dicom` holds.
    max_pixels : int
        An image with more is refused from its header.

    Returns
    -------
    Frame
        Pixels uint8, shape (rows, columns); never reduced.

    Raises
    ------
    InputFault
        ``dicom_no_pixels``, ``dicom_compressed``, ``multi_frame``, ``too_large``, ``truncated`` (the header states more pixels than the
        file holds), ``unsupported_pixels``, ``damaged``. No message quotes an element's value but the name of its transfer syntax.

    References
    ----------
    DICOM PS3.3, C.7.6.3, C.11.1 and C.11.2.
    """
    # What pydicom logs may quote an identifier. Its own setup sets the level at its import, so it is set again after that.
    import pydicom.config
    from pydicom.errors import BytesLengthException

    logging.getLogger(pydicom.config.logger.name).setLevel(logging.CRITICAL)
    faults: tuple[type[Exception], ...] = (*PYDICOM_FAULTS, BytesLengthException)
    with quiet_libraries():
        try:
            dataset = _read_dataset(content)
            _check_header(dataset, max_pixels)
            samples = _decode_samples(dataset, max_pixels)
            grey = _luma(samples) if samples.ndim == 3 else _apply_tables(samples, dataset)
        except faults:
            raise damaged() from None
        except MemoryError:
            raise InputFault("too_large", "There is not enough memory to decode this image. Export it in a smaller size.") from None
    return Frame(pixels=grey, rows=grey.shape[0], columns=grey.shape[1], file_format="DICOM")


def _has_explicit_vr(content: bytes, position: int) -> bool:
    vr = content[position + 4 : position + 6]
    return len(vr) == 2 and vr.isalpha() and vr.isupper()


def _read_dataset(content: bytes) -> Dataset:
    """Read the elements of ``_READ_ELEMENTS`` and the transfer syntax, nothing else.

    Not with ``dcmread``: that inflates a deflated data set to whatever size it has.
    """
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset
    from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    file = BytesIO(content)
    file.seek(_PREFIX_AT + len(_PREFIX) if content.startswith(_PREFIX, _PREFIX_AT) else 0)
    meta = read_dataset(file, False, True, stop_when=lambda tag, _vr, _length: tag >> 16 != _META_GROUP, specific_tags=[_TRANSFER_SYNTAX])
    start = file.tell()
    if start >= len(content):
        raise truncated()
    if "TransferSyntaxUID" in meta:
        syntax = UID(meta.TransferSyntaxUID)
    elif not _has_explicit_vr(content, start):
        syntax = ImplicitVRLittleEndian
    else:
        # Group 0008 in big-endian order reads as 0800.
        syntax = ExplicitVRBigEndian if content[start : start + 2] == b"\x00\x08" else ExplicitVRLittleEndian
    if not syntax.is_transfer_syntax or syntax.is_deflated:
        raise _compressed(syntax)

    elements = 0

    def after_pixels(tag: int, _vr: str | None, _length: int) -> bool:
        nonlocal elements
        elements += 1
        if elements > _MAX_ELEMENTS:
            raise damaged()
        return tag > _PIXEL_DATA

    dataset = read_dataset(file, syntax.is_implicit_VR, syntax.is_little_endian, stop_when=after_pixels, specific_tags=list(_READ_ELEMENTS))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    return dataset


def _check_header(dataset: Dataset, max_pixels: int) -> None:
    """Check from the header alone that the file holds one image, of accepted size and kind, with all of its pixels."""
    if not dataset.get("PixelData"):
        if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
            raise InputFault("unsupported_pixels", "The DICOM file holds measured values, not a picture. Export the radiograph itself.")
        raise InputFault("dicom_no_pixels", f"The DICOM file holds no image{_kind(dataset)}. Export the radiograph itself.")
    if int(dataset.get("NumberOfFrames") or 1) > 1:
        raise InputFault("multi_frame", "The DICOM file holds several frames, and which one counts is unknown. Export one image a file.")
    rows, columns, samples = int(dataset.Rows), int(dataset.Columns), int(dataset.get("SamplesPerPixel") or 1)
    bits = int(dataset.BitsAllocated)
    if rows < 1 or columns < 1:
        raise damaged()
    refuse_too_large(rows, columns, max_pixels)
    expected = {1: ("MONOCHROME1", "MONOCHROME2"), 3: ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")}.get(samples, ())
    if dataset.PhotometricInterpretation not in expected or bits not in ((8, 16) if samples == 1 else (8,)):
        raise InputFault("unsupported_pixels", "The DICOM pixels are of a kind that is not read. Export the image as 8 or 16-bit grey.")
    if not 1 <= int(dataset.BitsStored) <= bits:
        raise damaged()
    if not dataset.file_meta.TransferSyntaxUID.is_compressed:
        # YBR_FULL_422 shares two of four colour samples between neighbours.
        samples = 2 if dataset.PhotometricInterpretation == "YBR_FULL_422" else samples
        if len(dataset.PixelData) < rows * columns * samples * (bits // 8):
            raise truncated()


def _kind(dataset: Dataset) -> str:
    """The kind of object by its registered class name; nothing where the class is not a registered one."""
    from pydicom.uid import UID

    name = UID(str(dataset.get("SOPClassUID", ""))).name
    return f" (it is: {name.removesuffix(' Storage')})" if name.endswith(" Storage") else ""


def _compressed(syntax: UID) -> InputFault:
    known = f" ({syntax.name})" if syntax.is_transfer_syntax else ""
    return InputFault(
        "dicom_compressed",
        f"The DICOM pixels are compressed in a way that is not read here{known}. "
        "Install the extra: pip install 'edge-agent[dicom]', or export the image uncompressed (Explicit VR Little Endian).",
    )


def _decode_samples(dataset: Dataset, max_pixels: int) -> NDArray[Any]:
    """Stored values, shape (rows, columns), or RGB, uint8, shape (rows, columns, 3).

    The index, because pydicom adds frames of its own where there are more bytes than the header says.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array

    syntax = dataset.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        # pydicom masks unused bits on the assumption that the stored ones are the lowest; _apply_tables goes by the high bit.
        return pixel_array(dataset, index=0, view_only=True, correct_unused_bits=False)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise _compressed(syntax) from None
    if not decoder.is_available:
        raise _compressed(syntax)
    _check_stream_size(dataset, max_pixels)
    try:
        return pixel_array(dataset, index=0)
    except RuntimeError:  # none of the plugins could; one that is not installed might (12-bit JPEG)
        raise (_compressed(syntax) if decoder.missing_dependencies else damaged()) from None


def _check_stream_size(dataset: Dataset, max_pixels: int) -> None:
    """Check that the picture inside states the size that the header states: a decoder allocates what the picture says."""
    from pydicom.encaps import generate_frames
    from pydicom.uid import RLELossless

    if dataset.file_meta.TransferSyntaxUID == RLELossless:  # run-length coding has no size of its own
        return
    stream = next(generate_frames(dataset.PixelData, number_of_frames=1))
    if stream.startswith(b"\xff\xd8"):
        size = check_jpeg(stream)
    elif stream.startswith(b"\xff\x4f\xff\x51"):  # JPEG 2000: start of codestream and its size marker (T.800, A.5.1)
        right, bottom, left, top = struct.unpack_from(">IIII", stream, 8)
        size = (bottom - top, right - left)
        refuse_too_large(bottom, right, max_pixels)
    else:
        # Above all a JP2 file header, which the standard forbids here (PS3.5, A.4.4), and in which a box of length 0 keeps pydicom 3.0.2
        # searching for ever.
        raise _compressed(dataset.file_meta.TransferSyntaxUID)
    if size != (dataset.Rows, dataset.Columns):
        raise damaged()


def _luma(rgb: NDArray[Any]) -> UInt8Array:
    return np.asarray(Image.fromarray(rgb).convert("L"))


def _apply_tables(stored: NDArray[Any], dataset: Dataset) -> UInt8Array:
    """Stored values to what is shown: one look-up per pixel, because all rules together map at most 65,536 values."""
    bits_stored = int(dataset.BitsStored)
    shift = int(dataset.get("HighBit", bits_stored - 1)) - (bits_stored - 1)
    if not 0 <= shift <= stored.itemsize * 8 - bits_stored:
        raise damaged()
    # Bits outside of those stored may hold an overlay (PS3.5, 8.1.1).
    mask = (1 << bits_stored) - 1
    codes = stored.astype(f"u{stored.itemsize}", copy=False) >> shift & mask
    values, table = grey_table(dataset)
    if table is None:
        sample = even_sample(codes)
        padding = dataset.get("PixelPaddingValue")
        if padding is not None:
            sample = sample[sample != int(padding) & mask]
        table = to_8_bits(values, *grey_range(values[sample]))
    # Both mean the same (C.7.6.3.1.2, C.11.6.1): the lowest value is shown white.
    if dataset.PhotometricInterpretation == "MONOCHROME1" or dataset.get("PresentationLUTShape") == "INVERSE":
        np.subtract(255, table, out=table)
    return np.asarray(table[codes])
