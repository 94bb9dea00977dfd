"""Deletes the files of old records, and only those: a file goes where its record says that it is the recorded one."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from edge_agent.database.old_records import OldRecord
from edge_agent.database.rows import signed_64
from edge_agent.files.names import fit_name, names_for
from edge_agent.outbox.disposal import NOTE_SUFFIX
from edge_agent.outbox.results import sidecar_id
from edge_agent.records import Status

_NOTE_MAX_BYTES = 64 * 1024
_NAMES_TRIED = 4


class Deletion(NamedTuple):
    """What was deleted. ``stuck_id`` is the first record whose file could not be deleted, or has not left the inbox; 0 for none."""

    last_id: int
    files: int
    freed_bytes: int
    stuck_id: int
    folders: set[Path]


Remove = Callable[[Path, OldRecord], tuple[list[Path], int]]
"""Deletes what one record left below a root; gives the paths and their bytes."""


def delete_files(root: Path, records: Sequence[OldRecord], remove: Remove, enough_bytes: int | None = None) -> Deletion:
    """Delete what old records left in a folder.

    Parameters
    ----------
    root : Path
        ``HOME/done``, ``HOME/rejected`` or ``HOME/results``.
    records : sequence of OldRecord
        At least one, oldest first.
    remove : callable
        :func:`remove_image` or :func:`remove_sidecar`.
    enough_bytes : int, optional
        Stop once this much has been freed.

    Returns
    -------
    Deletion
        With the folders that may be empty now.
    """
    files = freed_bytes = stuck_id = last_id = 0
    folders: set[Path] = set()
    for record in records:
        if enough_bytes is not None and freed_bytes >= enough_bytes:
            break
        last_id = record.record_id
        try:
            removed, size_bytes = remove(root, record) if record.disposed else ([], 0)
        except OSError:
            removed, size_bytes, stuck = [], 0, True
        else:
            stuck = not record.disposed
        stuck_id = stuck_id or (record.record_id if stuck else 0)
        files += len(removed)
        freed_bytes += size_bytes
        folders.update(path.parent for path in removed)
    return Deletion(last_id, files, freed_bytes, stuck_id, folders)


def remove_image(root: Path, record: OldRecord) -> tuple[list[Path], int]:
    """Delete the image of a record below ``done/`` or ``rejected/``, with the note beside it."""
    image = image_of(root, record)
    removed: list[Path] = []
    size_bytes = 0
    if image is not None:
        size_bytes = image.lstat().st_size
        image.unlink()
        removed.append(image)
    if record.status == "rejected":
        for place in places_of(root, record.path, record.record_id):
            note = place.with_name(fit_name(place.name, NOTE_SUFFIX))
            if _is_note_of(note, record.record_id):
                size_bytes += note.lstat().st_size
                note.unlink()
                removed.append(note)
    return removed, size_bytes


def remove_sidecar(root: Path, record: OldRecord) -> tuple[list[Path], int]:
    """Delete the sidecar of a record below ``results/``."""
    for folder in _folders(root, record.path):
        for name in names_for(PurePosixPath(record.path).name, record.record_id, ".json"):
            sidecar = folder / name
            if not os.path.lexists(sidecar):
                if name != fit_name(PurePosixPath(record.path).name, ".json"):
                    break
                continue
            if sidecar_id(sidecar) == record.record_id:
                size_bytes = sidecar.lstat().st_size
                sidecar.unlink()
                return [sidecar], size_bytes
    return [], 0


def image_of(root: Path, record: OldRecord) -> Path | None:
    """Find the image of a record below a folder: under one of the names that it may have got, with its size and modification time."""
    for place in places_of(root, record.path, record.record_id):
        with suppress(FileNotFoundError, NotADirectoryError):
            found = place.lstat()
            if (signed_64(found.st_size), signed_64(found.st_mtime_ns)) == (record.size_bytes, record.mtime_ns):
                return place
    return None


def folder_of(status: Status) -> Literal["done", "rejected"]:
    """Give the folder of the home to which the image of a record goes."""
    return "done" if status == "done" else "rejected"


def places_of(root: Path, path: str, record_id: int) -> Iterator[Path]:
    """Give the places where the image of a record may lie below a folder, the surest first: with the record's number, then its own name."""
    own, *numbered = islice(names_for(PurePosixPath(path).name, record_id), _NAMES_TRIED)
    for folder in _folders(root, path):
        yield from (folder / name for name in numbered)
        yield folder / own


def ids_with_file(records: Iterable[OldRecord], roots: Sequence[Path]) -> set[int]:
    """Give the ids of the records whose file may still lie in one of the folders. A folder that cannot be looked at may hold it."""
    kept = set()
    for record in records:
        try:
            if any(image_of(root, record) for root in roots):
                kept.add(record.record_id)
        except OSError:
            kept.add(record.record_id)
    return kept


def folder_bytes(root: Path) -> int:
    """Sum up the sizes of the files below a folder."""
    total = 0
    for folder, _, names in os.walk(root):
        for name in names:
            with suppress(OSError):
                found = os.lstat(os.path.join(folder, name))  # noqa: PTH118 - a hundred thousand times
                total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    return total


def remove_empty(folders: Iterable[Path], root: Path) -> None:
    """Remove folders below a root that are empty, and those above them that have become so."""
    for folder in folders:
        with suppress(OSError):
            while folder != root and folder.is_relative_to(root):
                folder.rmdir()
                folder = folder.parent


def _folders(root: Path, path: str) -> list[Path]:
    """Where :func:`~edge_agent.files.atomic.make_folder` may have led: a folder whose name a file had is called ``NAME-folder``."""
    parts = PurePosixPath(path).parts[:-1]
    folders = [root]
    for part in parts:
        folders = [below for folder in folders for below in (folder / part, folder / fit_name(part, "-folder")) if below.is_dir()]
    return [*folders, root] if parts else folders


def _is_note_of(note: Path, record_id: int) -> bool:
    with suppress(OSError):
        return note.lstat().st_size <= _NOTE_MAX_BYTES and b"(record %d)" % record_id in note.read_bytes()
    return False
