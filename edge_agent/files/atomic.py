"""Write files and folders so that they are there whole or not at all, also after a power cut."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from edge_agent.errors import DiskFullError, ReadOnlyError, StorageAwayError, StorageError
from edge_agent.files.names import fit_name

SPACE_GONE = (errno.ENOSPC, errno.EDQUOT)
"""No space is left, or no quota."""


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
    if fault.errno in SPACE_GONE:
        return DiskFullError(f"no space is left to {doing}: free some space; a running agent goes on by itself then, and nothing is lost")
    if fault.errno == errno.EROFS:
        return ReadOnlyError(
            f"cannot {doing}: its disk is mounted read-only, often after a fault of the disk; check the disk and mount it writable again; "
            "a running agent goes on by itself then, and nothing is lost"
        )
    return StorageAwayError(
        f"cannot {doing}: {fault.strerror or fault}; check that the disk is mounted and that the agent may write there; "
        "a running agent goes on by itself then"
    )


def cannot_write(fault: OSError, path: Path, hint: str) -> StorageError:
    """Turn a fault of a file that a command writes for a person into an error with what to do next.

    Returns
    -------
    StorageError
        :class:`DiskFullError` where no space (or quota) is left.
    """
    kind = DiskFullError if fault.errno in SPACE_GONE else StorageError
    return kind(f"{path}: cannot be written: {fault.strerror or fault}; {hint}")


def make_folder(root: Path, parts: tuple[str, ...]) -> Path:
    """Make the folders ``parts`` below ``root`` (which is made too).

    Where a file already bears a folder's name, the folder is called ``NAME-folder``; where the whole would be longer than the system
    allows, ``root`` itself is given.

    Raises
    ------
    StorageError
        If a folder cannot be made.
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
def replacing(path: Path, *, durable: bool = False, called: str = "", hint: str = "") -> Iterator[IO[bytes]]:
    """Write a file so that it is there whole or not at all, replacing what was there.

    Parameters
    ----------
    path : Path
        In an existing folder.
    durable : bool
        Wait until the disk has it: for what cannot be made again.
    called : str, optional
        What messages call it, where its name is that of an image: such a name may be a patient's, and messages reach the log.
    hint : str, optional
        What a person can do, for the message of :func:`cannot_write`. Without it the message is that of an agent, which waits and tries
        again (:func:`storage_error`).

    Yields
    ------
    binary file
        A temporary file beside ``path``; it takes the place of ``path`` when the block ends without an error.

    Raises
    ------
    StorageError
        If it cannot be written; nothing half-written is left behind.
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
            if hint:
                raise cannot_write(fault, path, hint) from fault
            raise storage_error(fault, f"write {called or f'{path.parent.name}/{path.name}'}") from fault
        raise


def write_folder(target: Path, contents: Mapping[str, bytes], hint: str) -> None:
    """Write a folder of files durably, replacing an older one once the new one is whole and on disk.

    Parameters
    ----------
    target : Path
        The folders above it are made.
    contents : mapping of str to bytes
        By file name.
    hint : str
        What a person can do, for the message.

    Raises
    ------
    DiskFullError, StorageError
        If it cannot be written; the older folder, where there was one, still stands.
    """
    part, old = (target.with_name(f".{target.name}.{suffix}") for suffix in ("part", "old"))
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write_files(part, contents)
        shutil.rmtree(old, ignore_errors=True)
        if target.exists():
            target.rename(old)
        part.rename(target)
        sync_folder(target.parent)
    except OSError as fault:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(part, ignore_errors=True)
        raise cannot_write(fault, target, hint) from fault
    shutil.rmtree(old, ignore_errors=True)


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write new files into a folder, by their names, and wait until the disk has them. Raises OSError where it does not take them."""
    for name, content in contents.items():
        with (folder / name).open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    sync_folder(folder)


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
