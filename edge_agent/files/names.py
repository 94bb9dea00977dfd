"""File names: printable, short enough for the file system, and free."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

NAME_MAX_BYTES = 255
"""Longest file name of ext4, xfs, tmpfs and their kin."""
_EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,4}$")
"""A DICOM file is often called by its UID ("1.2.840.10008.1"): its last number is no extension."""


def printable_path(path: str) -> str:
    r"""Give a path as valid Unicode.

    Linux names are bytes; those that are not UTF-8 reach Python as lone surrogates, which neither JSON nor a database takes. Such a byte
    is shown as ``\xff``.
    """
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def fit_name(name: str, suffix: str = "", tag: str = "") -> str:
    """Put a tag before a name's extension and a suffix after it, shortening the name where the file system would refuse it.

    Returns
    -------
    str
        At most 255 bytes: ``scan.png`` with tag ``-12`` and suffix ``.json`` is ``scan-12.png.json``.
    """
    match = _EXTENSION.search(name)
    extension = match.group() if match and match.start() > 0 else ""
    stem = os.fsencode(name[: len(name) - len(extension)])
    room = NAME_MAX_BYTES - len(os.fsencode(tag + extension + suffix))
    if len(stem) > room:
        # "ignore" drops what is left of a character that the cut went through; bytes that never were UTF-8 go with it.
        stem = stem[:room].decode("utf-8", "ignore").encode()
    return f"{os.fsdecode(stem)}{tag}{extension}{suffix}"


def names_for(name: str, record_id: int, suffix: str = "") -> Iterator[str]:
    """Give the names to try, best first: its own, then with the record's number, which ties the file to its record, then more."""
    yield fit_name(name, suffix)
    yield fit_name(name, suffix, f"-{record_id}")
    for count in range(1, 1_000_000):
        yield fit_name(name, suffix, f"-{record_id}-{count}")


def is_free(path: Path) -> bool:
    """Tell whether nothing is there, or the empty file that a power cut makes of one that was just written."""
    try:
        found = path.lstat()
    except OSError:
        return True
    return stat.S_ISREG(found.st_mode) and found.st_size == 0
