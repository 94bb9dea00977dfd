"""Reading an arrival: its bytes as they were when it settled, whole, and never through a symbolic link."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PurePosixPath

from edge_agent.errors import InputFault, SourceGoneError
from edge_agent.files.open_beneath import open_folder
from edge_agent.files.stamp import Stamp
from edge_agent.intake.presence import check_present
from edge_agent.records import Arrival

_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What this process has run out of. All else that the system says of one file must hold up no other file."""
_IN_USE = (errno.EBUSY, errno.EAGAIN, errno.ETXTBSY)
"""What a share says while a program on another machine keeps the file locked."""
_SECOND_NS = 10**9
_COMPARED_BYTES = 1024 * 1024


class StillChangingError(Exception):
    """A file is not, or did not stay, what it was when it settled: it must settle again. Nobody's fault."""


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
        If it is a symbolic link, too large, not readable for us, or the system fails twice at this file while the inbox is well.
    StillChangingError
        If it changed since it settled.
    FileNotFoundError
        If it is gone, or what its sub-folder stands on, or another program keeps it locked: the next pass over the inbox finds it.
    SourceGoneError
        If the inbox is: its disk was pulled, or its server does not answer.
    OSError
        If this process has run out of descriptors or memory.
    """
    try:
        return _read_unchanged(inbox, arrival, max_file_bytes)
    except OSError as fault:
        if isinstance(fault, FileNotFoundError) or fault.errno in _OURS:
            raise
    _check_source(inbox, arrival)
    try:
        return _read_unchanged(inbox, arrival, max_file_bytes)
    except OSError as fault:
        if isinstance(fault, FileNotFoundError) or fault.errno in _OURS:
            raise
        if fault.errno in _IN_USE:
            raise FileNotFoundError(errno.ENOENT, "another program keeps the file locked") from None
        _check_source(inbox, arrival)
        raise InputFault("read_error", f"The file could not be read ({fault.strerror}). Check the disk, then copy it again.") from fault


def _check_source(inbox: Path, arrival: Arrival) -> None:
    """Check that a fault is one of the file alone, and not of its disk or share."""
    check_present(inbox, None)
    folder = (inbox / arrival.path).parent
    if folder != inbox:
        try:
            check_present(folder, None)
        except SourceGoneError:  # what is mounted inside the inbox may go and come while the inbox stays
            raise FileNotFoundError(errno.ENOENT, "the disk or share of its folder is gone") from None


def _read_unchanged(inbox: Path, arrival: Arrival, max_file_bytes: int) -> bytes:
    descriptor = _open_arrival(inbox, PurePosixPath(arrival.path))
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
        # FAT keeps dates of two seconds: of a file that was written over in the meantime they may tell nothing.
        if before.st_mtime_ns % _SECOND_NS == 0 and not _is_content(descriptor, content):
            raise StillChangingError
    finally:
        os.close(descriptor)
    return content


def _open_arrival(inbox: Path, path: PurePosixPath) -> int:
    try:
        folder = open_folder(inbox, path.parts[:-1])
    except NotADirectoryError:
        raise FileNotFoundError(errno.ENOENT, "a folder of its path is gone") from None
    except PermissionError as fault:
        raise _no_permission() from fault
    try:
        # O_NONBLOCK: a named pipe put in the file's place must not block a worker for ever.
        return os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as fault:
        match fault.errno:
            case errno.ELOOP:
                raise InputFault(
                    "symlink", "This is a symbolic link. Links are not followed: copy the image itself into the inbox."
                ) from fault
            case errno.EACCES | errno.EPERM:
                raise _no_permission() from fault
            case errno.ENXIO:
                raise InputFault("not_a_file", "This is not a file but a device, a pipe or a socket. Drop image files only.") from fault
        raise
    finally:
        os.close(folder)


def _no_permission() -> InputFault:
    return InputFault("no_permission", "The agent is not allowed to read this file. Make it readable (chmod a+r), then drop it again.")


def _read_whole(descriptor: int, size_bytes: int) -> bytes:
    """Read to the end, but not much further than a file of that size should go."""
    parts: list[bytes] = []
    wanted = size_bytes + 1
    while wanted > 0 and (part := os.read(descriptor, wanted)):
        parts.append(part)
        wanted -= len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _is_content(descriptor: int, content: bytes) -> bool:
    """Read once more and compare."""
    os.lseek(descriptor, 0, os.SEEK_SET)
    place = 0
    while part := os.read(descriptor, _COMPARED_BYTES):
        if content[place : place + len(part)] != part:
            return False
        place += len(part)
    return place == len(content)
