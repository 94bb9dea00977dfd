"""Reading an arrival: its bytes as they were when it settled, whole, and never through a symbolic link."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath

from edge_agent.errors import InputFault
from edge_agent.intake.settle import Stamp
from edge_agent.records import Arrival


class StillChangingError(Exception):
    """A file is not, or did not stay, what it was when it settled: it must settle again. Nobody's fault."""


def open_folder(root: Path, parts: tuple[str, ...]) -> int:
    """Open the folder ``parts`` below ``root`` without following a symbolic link on the way.

    A path is checked and used at different times; whoever may write to the inbox could swap a sub-folder for a link in between. What
    is done relative to this descriptor stays inside the inbox.

    Returns
    -------
    int
        A descriptor for ``dir_fd=``; the caller closes it.

    Raises
    ------
    OSError
        If a folder is gone (``ENOENT``) or is no folder any more (``ELOOP``, ``ENOTDIR``).
    """
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def read_arrival(inbox: Path, arrival: Arrival, max_file_bytes: int) -> bytes:
    """Read a settled file.

    Parameters
    ----------
    inbox : Path
        The watched folder.
    arrival : Arrival
        The file, with its stamp when it settled.
    max_file_bytes : int
        A larger file is not read.

    Returns
    -------
    bytes
        The whole content. Nobody wrote to the file from the moment it settled to the end of the read, as far as size, modification
        time, change time and inode tell.

    Raises
    ------
    InputFault
        If it is a symbolic link, too large, not readable for us, or the medium fails.
    StillChangingError
        If it changed since it settled.
    FileNotFoundError
        If it is gone.
    """
    path = PurePosixPath(arrival.path)
    try:
        folder = open_folder(inbox, path.parts[:-1])
    except NotADirectoryError:
        raise FileNotFoundError(errno.ENOENT, "a folder of its path is gone") from None
    try:
        # O_NONBLOCK: a named pipe put in the file's place must not block a worker for ever.
        descriptor = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError as fault:
        raise _open_fault(fault) from fault
    finally:
        os.close(folder)
    try:
        before = os.fstat(descriptor)
        if not stat.S_ISREG(before.st_mode) or not Stamp.of_stat(before).same_content(Stamp.of_arrival(arrival)):
            raise StillChangingError
        if before.st_size > max_file_bytes:
            raise InputFault(
                "too_large",
                f"The file has {before.st_size:,} bytes; at most {max_file_bytes:,} are taken. "
                "If it really is one image, raise max_file_bytes in the configuration, then drop it again.",
            )
        content = _read_whole(descriptor, before.st_size)
        if len(content) != before.st_size or Stamp.of_stat(os.fstat(descriptor)) != Stamp.of_stat(before):
            raise StillChangingError
    finally:
        os.close(descriptor)
    return content


def _read_whole(descriptor: int, size_bytes: int) -> bytes:
    """Read to the end, but not much further than a file of that size should go."""
    parts: list[bytes] = []
    wanted = size_bytes + 1
    try:
        while wanted > 0 and (part := os.read(descriptor, wanted)):
            parts.append(part)
            wanted -= len(part)
    except OSError as fault:
        raise _read_error(fault) from fault
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _read_error(fault: OSError) -> InputFault:
    return InputFault("read_error", f"The file could not be read ({fault.strerror}). Check the disk, then copy it again.")


def _open_fault(fault: OSError) -> InputFault | OSError:
    match fault.errno:
        case errno.ELOOP:
            return InputFault("symlink", "This is a symbolic link. Links are not followed: copy the image itself into the inbox.")
        case errno.EACCES | errno.EPERM:
            return InputFault(
                "no_permission", "The agent is not allowed to read this file. Make it readable (chmod a+r), then drop it again."
            )
        case errno.ENXIO | errno.ENODEV:
            return InputFault("not_a_file", "This is not a file but a device, a pipe or a socket. Drop image files only.")
        case errno.EIO | errno.ESTALE | errno.ENOMEDIUM:
            return _read_error(fault)
        case _:
            return fault
