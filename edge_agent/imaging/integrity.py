"""Checks that a file is complete and not too large, before its pixels are decoded.

Decoders are lenient: where data is missing they fill in grey and say nothing. A picture that is half made up must never be classified.
"""

from __future__ import annotations

import struct
import zlib

from edge_agent.errors import InputFault

MAX_JPEG_SCANS = 100
"""A progressive JPEG of a scanner has about ten scans. Each one costs a pass over the whole image: a file with thousands of empty scans
keeps a decoder busy for hours."""

_STANDALONE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})
_START_OF_FRAME = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
"""All "start of frame" markers (C0 to CF without the tables C4, C8, CC), and that of JPEG-LS (F7)."""
_SEQUENTIAL_FRAMES = frozenset({0xC0, 0xC1})
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


def refuse_too_large(rows: int, columns: int, max_pixels: int) -> None:
    """Raise :class:`InputFault` ``too_large`` where ``rows`` times ``columns``, as a header states them, is over ``max_pixels``."""
    if rows * columns > max_pixels:
        raise InputFault(
            "too_large",
            f"The image has {columns:,} x {rows:,} pixels; at most {max_pixels / 1e6:,.6g} million are read. Export it in a smaller size.",
        )


def truncated() -> InputFault:
    """Make the fault of a file that ends too early."""
    return InputFault("truncated", "The image file is incomplete: it ends too early. Copy or export it again.")


def damaged() -> InputFault:
    """Make the fault of a file that begins as an image but is broken further on."""
    return InputFault("damaged", "The image file is damaged and cannot be decoded. Copy or export it again.")


def check_jpeg(content: bytes) -> tuple[int, int]:
    """Walk a JPEG's segments to the first scan, and check that an end-of-image marker follows.

    Parameters
    ----------
    content : bytes
        Begins with the start-of-image marker. Bytes after the image (a maker's padding, a second picture) do no harm.

    Returns
    -------
    tuple of int
        Rows and columns by the frame header.

    Raises
    ------
    InputFault
        ``truncated`` where the segments or the end marker are missing, as in a file whose rest is zeros; ``damaged`` where what
        stands there is no segment, or there are more scans than any camera writes.

    References
    ----------
    ITU-T T.81, B.1 and B.2.
    """
    position, size = 2, None
    component_count, sequential = b"", False
    while True:
        if position + 4 > len(content):
            raise truncated()
        if content[position] != 0xFF:
            raise damaged()
        marker = content[position + 1]
        if marker == 0xFF or marker in _STANDALONE_MARKERS:  # fill byte, or a marker without a length
            position += 1 if marker == 0xFF else 2
            continue
        (length,) = struct.unpack_from(">H", content, position + 2)
        if marker in _START_OF_FRAME:
            if length < 8 or position + 9 > len(content):
                raise damaged()
            size = struct.unpack_from(">HH", content, position + 5)
            component_count, sequential = content[position + 9 : position + 10], marker in _SEQUENTIAL_FRAMES
        if marker == _START_OF_SCAN:
            break
        if marker == _END_OF_IMAGE or length < 2:
            raise damaged()
        position += 2 + length
    if size is None:
        raise damaged()
    end = content.rfind(bytes((0xFF, _END_OF_IMAGE)), position)
    if end < 0:
        raise truncated()
    # A sequential image whose first scan holds all components has no other scan that a decoder would read.
    one_scan = sequential and content[position + 4 : position + 5] == component_count
    if not one_scan and content.count(bytes((0xFF, _START_OF_SCAN)), position, end) > MAX_JPEG_SCANS:
        raise damaged()
    return size


def check_png(content: bytes) -> None:
    """Check that a PNG has every chunk up to IEND, each with the checksum that it states.

    Pillow does not look at the checksums of pixel chunks, and stops at the last row.

    Raises
    ------
    InputFault
        ``truncated`` where a chunk is missing or cut; ``damaged`` where a checksum is wrong.

    References
    ----------
    W3C PNG specification, 5.3 and 5.4.
    """
    position = 8
    view = memoryview(content)
    while position + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, position)
        end = position + 8 + length
        if end + 4 > len(content):
            raise truncated()
        if struct.unpack_from(">I", content, end)[0] != zlib.crc32(view[position + 4 : end]):
            raise damaged()
        if name == b"IEND":
            return
        position = end + 4
    raise truncated()


def check_webp(content: bytes) -> tuple[int, int] | None:
    """Check that a WebP file is as long as it states, and read its size from the header.

    Pillow's decoder allocates the canvas when it is created, before anybody can look at the size.

    Returns
    -------
    tuple of int or None
        Rows and columns of the canvas; None where the first chunk is not one that is known, which Pillow refuses.

    Raises
    ------
    InputFault
        ``truncated``.

    References
    ----------
    RFC 9649, 2.4 to 2.7.
    """
    if len(content) < 30 or struct.unpack_from("<I", content, 4)[0] + 8 > len(content):
        raise truncated()
    match content[12:16]:
        case b"VP8X":
            columns, rows = (int.from_bytes(content[at : at + 3], "little") + 1 for at in (24, 27))
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", content, 21)
            columns, rows = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            columns, rows = (side & 0x3FFF for side in struct.unpack_from("<HH", content, 26))
        case _:
            return None
    return rows, columns
