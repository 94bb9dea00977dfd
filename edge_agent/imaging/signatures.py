"""What a file is, by its first bytes and never by its name."""

from __future__ import annotations

from edge_agent.errors import InputFault

ACCEPTED = "JPEG, PNG, TIFF, BMP, WebP or DICOM"

_READ_FORMATS = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"BM", "BMP"),
    (8, b"WEBP", "WEBP"),
)
"""Offset, bytes there, and Pillow's name of the format."""

_OTHER_IMAGES = (
    (0, b"GIF8", "a GIF picture"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000 picture"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (4, b"ftypheic", "an HEIC picture, as phones take it"),
    (4, b"ftypmif1", "an HEIC picture, as phones take it"),
    (4, b"ftypavif", "an AVIF picture"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    (0, b"\xff\x0a", "a JPEG XL picture"),
    (0, b"8BPS", "a Photoshop document"),
)

_OTHER_FILES = (
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive or an Office document"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"\xd0\xcf\x11\xe0", "an old Office document"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a Windows program"),
    (4, b"ftyp", "a video"),
    (0, b"\x1aE\xdf\xa3", "a video"),
    (8, b"AVI ", "a video"),
    (0, b"SQLite format 3\0", "a database"),
)


def read_format(content: bytes) -> str:
    """Find the format of a file's content, among those that are read.

    Parameters
    ----------
    content : bytes
        The whole file; only its beginning counts.

    Returns
    -------
    str
        "JPEG", "PNG", "TIFF", "BMP" or "WEBP".

    Raises
    ------
    InputFault
        ``empty``, ``unsupported_format`` (an image of another kind) or ``not_an_image``; the message says what it looks like.
    """
    if not content:
        raise InputFault("empty", "The file is empty (0 bytes): the copy was probably interrupted. Copy or export it again.")
    for offset, magic, name in _READ_FORMATS:
        if content.startswith(magic, offset):
            return name
    for offset, magic, words in _OTHER_IMAGES:
        if content.startswith(magic, offset):
            raise InputFault("unsupported_format", f"This is {words}, which is not read. Export the image as {ACCEPTED}.")
    raise InputFault("not_an_image", f"This is not an image: it looks like {_looks_like(content)}. Export the image as {ACCEPTED}.")


def _looks_like(content: bytes) -> str:
    for offset, magic, words in _OTHER_FILES:
        if content.startswith(magic, offset):
            return words
    head = content[:1024]
    if not any(head):
        return "nothing but zeros, as a failing disk or a broken copy leaves it"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if text.startswith((b"<?xml", b"<svg")):
        return "an XML or SVG file"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or _is_text(head):
        return "text"
    return "unknown binary content"


def _is_text(head: bytes) -> bool:
    """Text holds no control bytes but white space. Bytes from 128 on may be UTF-8 or an old code page."""
    return all(byte >= 0x20 or byte in b"\t\n\r\f\x1b" for byte in head) and 0x7F not in head
