"""A bundle as one zip file, opened without trust: it may come from anybody's USB stick.

Everything is read into memory, within limits that are checked before and while it is unpacked; nothing is written.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path

from edge_agent.errors import ModelContractError, ModelError

MAX_ARCHIVE_BYTES = 64 * 1024**2
"""A packed bundle has about 1.2 MB. The same limit holds for all that is unpacked from it together."""

_MAX_MEMBERS = 16
_MAX_DIRECTORY_BYTES = 16 * 1024
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""The methods that zipfile unpacks piece by piece. With the others it unpacks a whole bomb before it gives the first byte."""
_END_RECORD = struct.Struct("<4s4H2LH")
_END_MARK = b"PK\x05\x06"
_ZIP64_LOCATOR_MARK = b"PK\x06\x07"
_ZIP64_LOCATOR_BYTES = 20
_ENCRYPTED_FLAGS = 0x1 | 0x40
_NEXT_STEP = "copy the file again from where the model was made, or have it packed again with  model-build package"
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError, OverflowError)
"""What zipfile has been seen to raise on damaged files."""


def read_archive(path: Path, allowed: Collection[str], max_file_bytes: int) -> dict[str, bytes]:
    """Unpack a zip file into memory.

    Parameters
    ----------
    path : Path
    allowed : collection of str
        Names of the files that it may hold, at its root or in one single folder.
    max_file_bytes : int
        A larger file in it is refused, by the size that the archive states, and by the real size while it is unpacked.

    Returns
    -------
    dict of str to bytes
        The files by their names, without the folder.

    Raises
    ------
    ModelContractError
        If it holds anything else than these files, each once and plain: other names, ways out of the folder, links, devices, passwords.
    ModelError
        If it cannot be read or is damaged.
    """
    content = read_bounded(path, MAX_ARCHIVE_BYTES)
    if content is None:
        raise ModelError(f"{path}: no such file; name the zip file of a bundle")
    if refusal := _directory_refusal(content):
        raise ModelContractError(f"{path}: {refusal}; {_NEXT_STEP}")
    contents: dict[str, bytes] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if refusal := _members_refusal(members, allowed, max_file_bytes):
                raise ModelContractError(f"{path}: {refusal}; {_NEXT_STEP}")
            for member in members:
                if not member.is_dir():
                    contents[_base_name(member)] = _unpack(archive, member)
    except _ZIP_FAULTS as fault:
        raise ModelError(f"{path}: damaged, or no zip file ({fault}); {_NEXT_STEP}") from fault
    return contents


def read_bounded(path: Path, max_bytes: int) -> bytes | None:
    """Read a file of a bundle, or a packed bundle; None where there is no such file.

    Raises
    ------
    ModelError
        If it cannot be read.
    ModelContractError
        If it is larger than ``max_bytes``.
    """
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as fault:
        raise ModelError(f"{path}: cannot be read: {fault.strerror}") from fault
    if len(content) > max_bytes:
        raise ModelContractError(f"{path}: larger than {max_bytes:,} bytes; this is not a bundle of edge-agent")
    return content


def _directory_refusal(content: bytes) -> str | None:
    """What is wrong with the archive's directory before zipfile reads it all into memory; a million members would take a gigabyte."""
    tail = content[-_END_RECORD.size :]
    if len(tail) < _END_RECORD.size or not tail.startswith(_END_MARK):
        return "this is no zip file, it was cut short, or something stands after its end"
    if content[-_END_RECORD.size - _ZIP64_LOCATOR_BYTES :].startswith(_ZIP64_LOCATOR_MARK):
        return "it has the form for archives above 4 GB"
    _, disk, directory_disk, on_disk, count, size, _, comment = _END_RECORD.unpack(tail)
    if (disk, directory_disk, comment) != (0, 0, 0) or on_disk != count:
        return "it is one of several parts, or carries a comment"
    if count > _MAX_MEMBERS or size > _MAX_DIRECTORY_BYTES:
        return f"it holds {count} files; a bundle has fewer"
    return None


def _members_refusal(members: list[zipfile.ZipInfo], allowed: Collection[str], max_file_bytes: int) -> str | None:
    """What is wrong with the members, by what the archive says of them; None where all are as they must be."""
    seen: set[str] = set()
    folders: set[str] = set()
    for member in members:
        shown = ascii(member.orig_filename[:80])
        folder, _, name = member.filename.rpartition("/")
        folders.add(folder)
        if member.orig_filename != member.filename or "/" in folder or folder in (".", "..") or member.filename.startswith("/"):
            return f"the name {shown} leads out of one single folder"
        if name not in allowed and not member.is_dir():
            return f"it holds {shown}, which is no part of a bundle"
        if member.filename in seen:
            return f"it holds {shown} twice"
        seen.add(member.filename)
        # The upper half is the mode of the system that packed it; 0 where that has none.
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFDIR if member.is_dir() else stat.S_IFREG):
            return f"{shown} is a link or a device and no plain file"
        if member.flag_bits & _ENCRYPTED_FLAGS:
            return f"{shown} is locked by a password"
        if member.compress_type not in _METHODS:
            return f"{shown} is packed by a method that is not used here"
        if member.file_size > max_file_bytes or (member.is_dir() and member.file_size):
            return f"{shown} would have {member.file_size:,} bytes; at most {max_file_bytes:,} are taken"
    if len(folders) > 1:
        return "its files stand in more than one folder"
    if sum(member.file_size for member in members) > MAX_ARCHIVE_BYTES:
        return f"its files would have more than {MAX_ARCHIVE_BYTES:,} bytes together"
    return None


def _base_name(member: zipfile.ZipInfo) -> str:
    return member.filename.rpartition("/")[2]


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """Unpack one file, no byte beyond the size that the archive states: zipfile stops there, and the checksum then tells a bomb."""
    with archive.open(member) as stream:
        content = stream.read(member.file_size + 1)
    if len(content) != member.file_size:
        raise zipfile.BadZipFile(f"{_base_name(member)} has {len(content):,} bytes, not {member.file_size:,}")
    return content
