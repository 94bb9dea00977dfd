"""Where files are put in the home folder: names that fit, that overwrite nothing, and writes that are whole or not there at all."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from edge_agent.errors import DiskFullError, ReadOnlyError, StorageAwayError, StorageError

NAME_MAX_BYTES = 255
"""Longest file name of ext4, xfs, tmpfs and their kin."""

_SPACE_GONE = (errno.ENOSPC, errno.EDQUOT)
# A DICOM file is often called by its UID ("1.2.840.10008.1"): its last number is no extension.
_EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,4}$")


def storage_error(fault: OSError, doing: str) -> StorageError:
    """Turn a fault of our own files into the error that the agent waits out.

    Parameters
    ----------
    fault : OSError
        As the system gave it.
    doing : str
        What could not be done, such as "write results/predictions.jsonl".

    Returns
    -------
    StorageError
        :class:`DiskFullError` where no space (or quota) is left, :class:`ReadOnlyError` where the disk takes no writes, else
        :class:`StorageAwayError`.
    """
    if fault.errno in _SPACE_GONE:
        return DiskFullError(f"no space is left to {doing}: free some space; a running agent goes on by itself then, and nothing is lost")
    if fault.errno == errno.EROFS:
        return ReadOnlyError(
            f"can not {doing}: its disk is mounted read-only, often after a fault of the disk; check the disk and mount it writable again; "
            "a running agent goes on by itself then, and nothing is lost"
        )
    return StorageAwayError(
        f"can not {doing}: {fault.strerror or fault}; check that the disk is mounted and that the agent may write there; "
        "a running agent goes on by itself then"
    )


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


def make_folder(root: Path, parts: tuple[str, ...]) -> Path:
    """Make the folders ``parts`` below ``root`` (which is made too).

    Where a file already bears a folder's name, the folder is called ``NAME-folder``; where the whole would be longer than the system
    allows, ``root`` itself is given.

    Raises
    ------
    StorageError
        If a folder can not be made.
    """
    folder = root
    try:
        root.mkdir(parents=True, exist_ok=True)
        for part in parts:
            for name in (part, fit_name(part, "-folder")):
                with suppress(FileExistsError):
                    (folder / name).mkdir(exist_ok=True)
                    folder = folder / name
                    break
            else:
                return root
    except OSError as fault:
        if fault.errno == errno.ENAMETOOLONG:
            return root
        raise storage_error(fault, f"make a folder in {root}") from fault
    return folder


@contextmanager
def replacing(path: Path, *, durable: bool = False, called: str = "") -> Iterator[IO[bytes]]:
    """Write a file so that it is there whole or not at all, replacing what was there.

    Parameters
    ----------
    path : Path
        In an existing folder.
    durable : bool
        Wait until the disk has it: for what can not be made again.
    called : str, optional
        What messages call it, where its name is that of an image: such a name may be a patient's, and messages reach the log.

    Yields
    ------
    binary file
        A temporary file beside ``path``; it takes the place of ``path`` when the block ends without an error.

    Raises
    ------
    StorageError
        If it can not be written; nothing half-written is left behind.
    """
    temporary = path.with_name(fit_name(f".{path.name}", ".tmp"))
    try:
        with temporary.open("wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            sync_folder(path.parent)
    except BaseException as fault:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(fault, OSError):
            raise storage_error(fault, f"write {called or f'{path.parent.name}/{path.name}'}") from fault
        raise


def sync_file_system(folder: Path) -> None:
    """Wait until the disk has everything that was written to the file system of a folder. May take seconds.

    syncfs(2), which Python does not offer: one call for many small files, on their file system alone.

    Raises
    ------
    OSError
        If the disk did not take something, or the folder is gone.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names in a folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
