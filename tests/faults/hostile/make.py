"""Hostile files, made by code: each attack of README.md as a function that returns the bytes. ``python make.py FOLDER`` writes them all.

Nothing here needs the agent: only Python's own library, and the bytes are the same on every run.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

Attack = Callable[[], bytes]


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png(columns: int, rows: int, *, bits: int = 8, pixels: bytes = b"", extra: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", columns, rows, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", zlib.compress(pixels, 9)) + _chunk(b"IEND", b"")


def _good_png(extra: bytes = b"") -> bytes:
    return _png(16, 16, pixels=(b"\0" + bytes(range(16))) * 16, extra=extra)


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def _jpeg_head(columns: int, rows: int, *, progressive: bool = False) -> bytes:
    """Start of image to Huffman tables, for one grey component.

    The bit 0 is "as bright as the last block" (and "no detail"), the bits 10 with seven more a change of brightness.
    """
    tables = _segment(0xDB, b"\0" + b"\1" * 64)
    frame = _segment(0xC2 if progressive else 0xC0, struct.pack(">BHHB", 8, rows, columns, 1) + b"\1\x11\0")
    brightness = _segment(0xC4, b"\0\1\1" + bytes(14) + b"\0\7")
    detail = _segment(0xC4, b"\x10\1" + bytes(15) + b"\0")
    return b"\xff\xd8" + tables + frame + brightness + detail


def _scan(first: int = 0, last: int = 63, approximation: int = 0) -> bytes:
    return _segment(0xDA, bytes((1, 1, 0, first, last, approximation)))


def _tiff(tags: dict[int, tuple[int, int, int]], body: bytes = b"", *, next_directory: int = 0) -> bytes:
    """Little-endian, the body at byte 8, the directory behind it. ``tags``: number to (type, count, value)."""
    directory = struct.pack("<H", len(tags))
    for tag, (kind, count, value) in sorted(tags.items()):
        directory += struct.pack("<HHII", tag, kind, count, value)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + directory + struct.pack("<I", next_directory)


def _tiff_tags(columns: int, rows: int, **changed: tuple[int, int, int]) -> dict[int, tuple[int, int, int]]:
    tags = {256: (4, 1, columns), 257: (4, 1, rows), 258: (3, 1, 8), 259: (3, 1, 1), 262: (3, 1, 1), 273: (4, 1, 8), 277: (3, 1, 1)}
    tags |= {278: (4, 1, rows), 279: (4, 1, min(columns * rows, 2**32 - 1))}
    return tags | {int(name.removeprefix("tag_")): value for name, value in changed.items()}


def _webp(columns: int, rows: int) -> bytes:
    chunk = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (columns - 1).to_bytes(3, "little") + (rows - 1).to_bytes(3, "little")
    return b"RIFF" + struct.pack("<I", 4 + len(chunk) + 200) + b"WEBP" + chunk + bytes(200)


def _bmp(columns: int, rows: int, body: bytes = b"") -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, columns, rows, 1, 8, 0, 0, 2835, 2835, 256, 0)
    return b"BM" + struct.pack("<IHHI", 54 + 1024 + len(body), 0, 0, 54 + 1024) + header + bytes(1024) + body


def _element(tag: int, vr: bytes, value: bytes, *, length: int | None = None) -> bytes:
    value += b"\0" * (len(value) % 2)
    count = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr)
    return head + (struct.pack("<HI", 0, count) if vr in {b"OW", b"OB", b"SQ", b"UN"} else struct.pack("<H", count)) + value


def _us(*numbers: int) -> bytes:
    return struct.pack(f"<{len(numbers)}H", *numbers)


def _dicom(
    rows: int = 4,
    columns: int = 4,
    *,
    syntax: bytes = b"1.2.840.10008.1.2.1",
    before: bytes = b"",
    bits_stored: int = 16,
    **elements: bytes,
) -> bytes:
    """A small grey image with a patient's name; ``tag_XXXXXXXX`` replaces a whole element."""
    pixels = bytes(range(32))
    body = {
        0x00080016: _element(0x00080016, b"UI", b"1.2.840.10008.5.1.4.1.1.1.1"),
        0x00100010: _element(0x00100010, b"PN", b"Zzyzx^Quentin"),
        0x00280002: _element(0x00280002, b"US", _us(1)),
        0x00280004: _element(0x00280004, b"CS", b"MONOCHROME2 "),
        0x00280010: _element(0x00280010, b"US", _us(rows)),
        0x00280011: _element(0x00280011, b"US", _us(columns)),
        0x00280100: _element(0x00280100, b"US", _us(16)),
        0x00280101: _element(0x00280101, b"US", _us(bits_stored)),
        0x00280102: _element(0x00280102, b"US", _us(bits_stored - 1)),
        0x00280103: _element(0x00280103, b"US", _us(0)),
        0x7FE00010: _element(0x7FE00010, b"OW", pixels),
    }
    body |= {int(name.removeprefix("tag_"), 16): value for name, value in elements.items()}
    meta = _element(0x00020010, b"UI", syntax)
    dataset = before + b"".join(body[tag] for tag in sorted(body))
    if syntax == b"1.2.840.10008.1.2.1.99":
        deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
        dataset = deflate.compress(dataset) + deflate.flush()
    return bytes(128) + b"DICM" + _element(0x00020000, b"UL", struct.pack("<I", len(meta))) + meta + dataset


def _encapsulated(stream: bytes) -> bytes:
    stream += b"\0" * (len(stream) % 2)
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) + struct.pack("<HHI", 0xFFFE, 0xE000, len(stream)) + stream
    return _element(0x7FE00010, b"OB", items + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0), length=0xFFFFFFFF)


def _nested_sequences(depth: int) -> bytes:
    opening = _element(0x00081140, b"SQ", b"", length=0xFFFFFFFF) + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    closing = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return opening * depth + closing * depth


def _lut_of_wrong_length() -> bytes:
    item = _element(0x00283002, b"US", _us(0, 0, 16)) + _element(0x00283006, b"US", _us(1, 2, 3))
    return _element(0x00283010, b"SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item)


def _jp2_without_end() -> bytes:
    return _encapsulated(b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(64))


def _truncated_jpeg(tail: bytes) -> bytes:
    """The header of a 512x512 JPEG, and data for the first few of its 4,096 blocks only."""
    return _jpeg_head(512, 512) + _scan() + b"\xbf\x80" + bytes(16) + tail


# Name of the file (README.md has the attack under it) to the code that the decoder must give and the bytes; "" where it must decode.
ATTACKS: dict[str, tuple[str, Attack]] = {
    "empty.jpg": ("empty", lambda: b""),
    "text.jpg": ("not_an_image", lambda: b"this is no picture\n" * 40),
    "page.png": ("not_an_image", lambda: b"<!DOCTYPE html>\n<html><body>404</body></html>"),
    "zeros.jpg": ("not_an_image", lambda: bytes(100_000)),
    "pdf-then-jpeg.jpg": ("not_an_image", lambda: b"%PDF-1.4\n" + _truncated_jpeg(b"\xff\xd9")),
    "cut.jpg": ("truncated", lambda: _truncated_jpeg(b"")),
    "zero-tail.jpg": ("truncated", lambda: _truncated_jpeg(bytes(4000))),
    "early-end.jpg": ("truncated", lambda: _truncated_jpeg(b"\xff\xd9")),
    "header-only.jpg": ("truncated", lambda: _jpeg_head(64, 64)),
    "no-frame.jpg": ("damaged", lambda: b"\xff\xd8" + _scan() + b"\xff\xd9"),
    "segment-length-0.jpg": ("damaged", lambda: b"\xff\xd8\xff\xe0\0\0" + bytes(50) + b"\xff\xd9"),
    "huge-header.jpg": ("too_large", lambda: _jpeg_head(65_500, 65_500) + _scan() + bytes(16) + b"\xff\xd9"),
    "many-scans.jpg": (
        "damaged",
        lambda: _jpeg_head(9_000, 9_000, progressive=True) + (_scan(1, 1, 0) + bytes(2)) * 20_000 + b"\xff\xd9",
    ),
    "30000x30000.png": ("too_large", lambda: _png(30_000, 30_000, pixels=bytes(10_000_000))),
    "one-row-too-wide.png": ("too_large", lambda: _png(2**31 - 1, 1)),
    "no-pixels.png": ("truncated", lambda: _png(64, 64)),
    "no-end.png": ("truncated", lambda: _good_png()[:-12]),
    "wrong-checksum.png": ("damaged", lambda: _good_png()[:-20] + b"\xff" + _good_png()[-19:]),
    "chunk-longer-than-file.png": ("truncated", lambda: _good_png()[:33] + struct.pack(">I", 2**31 - 1) + b"IDAT" + bytes(50)),
    "no-columns.png": ("damaged", lambda: _png(0, 16)),
    "text-bomb.png": ("damaged", lambda: _good_png(_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(100_000_000), 9)))),
    "profile-bomb.png": ("damaged", lambda: _good_png(_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(100_000_000), 9)))),
    "huge.bmp": ("too_large", lambda: _bmp(2**31 - 1, 2**31 - 1)),
    "negative.bmp": ("too_large", lambda: _bmp(60_000, -60_000)),
    "cut.bmp": ("truncated", lambda: _bmp(100, 100, bytes(50))),
    "huge-canvas.webp": ("too_large", lambda: _webp(16_383, 16_383)),
    "length-beyond-file.webp": ("truncated", lambda: b"RIFF\xff\xff\xff\x7fWEBPVP8 " + bytes(100)),
    "huge.tif": ("too_large", lambda: _tiff(_tiff_tags(2**31 - 1, 2**31 - 1), bytes(16))),
    "huge-tile.tif": (
        "too_large",
        lambda: _tiff(_tiff_tags(16, 16, tag_322=(4, 1, 60_000), tag_323=(4, 1, 60_000), tag_324=(4, 1, 8), tag_325=(4, 1, 16)), bytes(16)),
    ),
    "strip-beyond-file.tif": ("truncated", lambda: _tiff(_tiff_tags(64, 64, tag_273=(4, 1, 2**31)), bytes(16))),
    "tag-count.tif": ("", lambda: _tiff(_tiff_tags(16, 16, tag_258=(3, 2**31 - 1, 8)), bytes(256))),
    "loop.tif": ("multi_frame", lambda: _tiff(_tiff_tags(16, 16), bytes(256), next_directory=9)),
    "self-loop.tif": ("", lambda: _tiff(_tiff_tags(16, 16), bytes(256), next_directory=8 + 256)),
    "no-directory.tif": ("damaged", lambda: b"II*\0\xff\xff\xff\x7f" + bytes(100)),
    "more-rows-than-data.dcm": ("truncated", lambda: _dicom(9_000, 9_000)),
    "pixel-length-beyond-file.dcm": (
        "truncated",
        lambda: _dicom(9_000, 9_000, tag_7FE00010=_element(0x7FE00010, b"OW", bytes(32), length=2**32 - 2)),
    ),
    "name-length-beyond-file.dcm": ("dicom_no_pixels", lambda: _dicom(tag_00100010=_element(0x00100010, b"UN", b"Zz", length=2**32 - 2))),
    "two-thousand-million-frames.dcm": ("multi_frame", lambda: _dicom(tag_00280008=_element(0x00280008, b"IS", b"2000000000"))),
    "deflate-bomb.dcm": (
        "dicom_compressed",
        lambda: _dicom(syntax=b"1.2.840.10008.1.2.1.99", before=_element(0x00080001, b"UN", bytes(100_000_000))),
    ),
    "nested-sequences.dcm": ("damaged", lambda: _dicom(before=_nested_sequences(20_000))),
    "many-elements.dcm": ("damaged", lambda: _dicom(before=_element(0x00090010, b"LO", b"") * 150_000)),
    "lut-shorter-than-stated.dcm": ("damaged", lambda: _dicom(tag_00283010=_lut_of_wrong_length())),
    "more-bits-than-allocated.dcm": ("damaged", lambda: _dicom(bits_stored=40_000)),
    "no-bits.dcm": ("damaged", lambda: _dicom(tag_00280101=_element(0x00280101, b"US", _us(0)))),
    "name-as-rows.dcm": ("damaged", lambda: _dicom(tag_00280010=_element(0x00280010, b"PN", b"Zzyzx^Quentin"))),
    "window-not-a-number.dcm": (
        "",
        lambda: _dicom(tag_00281050=_element(0x00281050, b"DS", b"nan "), tag_00281051=_element(0x00281051, b"DS", b"inf ")),
    ),
    "endless-jp2.dcm": (
        "dicom_compressed",
        lambda: _dicom(syntax=b"1.2.840.10008.1.2.4.90", tag_7FE00010=_jp2_without_end()),
    ),
    "jpeg-larger-than-header.dcm": (
        "damaged",
        lambda: _dicom(
            syntax=b"1.2.840.10008.1.2.4.50",
            tag_00280100=_element(0x00280100, b"US", _us(8)),
            tag_00280101=_element(0x00280101, b"US", _us(8)),
            tag_00280102=_element(0x00280102, b"US", _us(7)),
            tag_7FE00010=_encapsulated(_jpeg_head(60_000, 60_000) + _scan() + b"\0\xff\xd9"),
        ),
    ),
    "unknown-syntax.dcm": ("dicom_compressed", lambda: _dicom(syntax=b"1.2.3.4.5.6")),
    "preamble-only.dcm": ("truncated", lambda: bytes(128) + b"DICM"),
}


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, (_, attack) in ATTACKS.items():
        (folder / name).write_bytes(attack())


if __name__ == "__main__":
    main()
