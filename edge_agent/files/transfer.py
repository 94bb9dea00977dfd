"""Carrying one file from folder to folder: copied whole, put back, looked at, each relative to an open folder and never through a link."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_agent.errors import StorageError
from edge_agent.files.atomic import replacing, storage_error
from edge_agent.files.names import names_for

_COPIED_BYTES = 1024 * 1024
_COPY = "an image that leaves the inbox for another disk"


class SourceFault(Exception):
    """A file could not be read while it was copied: not a fault of the place that it is copied to."""


def lstat_in(folder: int, name: str) -> os.stat_result | None:
    """``lstat`` of a file in an open folder; None where there is none. Raises OSError where nobody can tell."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def digest_in(folder: int | None, name: str) -> str:
    """SHA-256 of a file, not followed. Raises OSError where it cannot be read."""
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_file(folder: int, name: str, target: Path) -> None:
    """Copy a file, or a link itself, so that it is whole and on the disk when this returns.

    Parameters
    ----------
    folder : int
        Descriptor of the open folder that it lies in.
    name : str
        Its name there.
    target : Path
        A name that is free, in an existing folder.

    Raises
    ------
    FileNotFoundError
        If there is no such file any more.
    SourceFault
        If it cannot be read. Nothing half-written is left behind, here and below.
    StorageError
        If the copy cannot be written.
    """
    with _reading():
        if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            leads_to = os.readlink(name, dir_fd=folder)
            with writing(_COPY):
                os.symlink(leads_to, target)  # noqa: PTH211 - relative to an open folder
            return
        source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(source, "rb", buffering=0) as original, replacing(target, durable=True, called=_COPY) as copy:
        while True:
            with _reading():
                part = original.read(_COPIED_BYTES)
            if not part:
                break
            copy.write(part)
        copy.flush()
        found = os.fstat(source)
        os.utime(copy.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))


def put_back(source: Path, folder: int, name: str) -> None:
    """Give a file back to an open folder, under a name that is free there.

    Raises
    ------
    StorageError
        If the folder does not take it. It stays where it is.
    """
    try:
        for candidate in names_for(name, 0):
            try:
                os.link(source, candidate, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                continue
            except OSError:
                # No hard links here (FAT, or another owner's file under fs.protected_hardlinks).
                if lstat_in(folder, candidate) is not None:
                    continue
                os.rename(source, candidate, dst_dir_fd=folder)
            else:
                source.unlink()
            return
    except OSError as fault:
        raise StorageError(
            f"an image that has no record lies in {source.parent} and could not be put back into the inbox ({fault.strerror}): "
            "move the newest file there back by hand"
        ) from fault


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turn a fault into a :class:`StorageError`, but for a file that went away meanwhile: that is nobody's fault.

    ``what`` is for the message, which reaches the log: no name of an image, nor of a folder of the inbox.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as fault:
        raise storage_error(fault, f"write {what}") from fault


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as fault:
        raise SourceFault from fault
