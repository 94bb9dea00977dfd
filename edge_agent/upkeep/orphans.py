"""After the database was built again: every image finds its record, or goes back to the inbox to get one."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from edge_agent.database.database import Database
from edge_agent.database.integrity import Progress
from edge_agent.database.pending_commit import PendingCommit, Settlement
from edge_agent.database.recorded_files import files_with_digest, has_file, oldest_finish
from edge_agent.database.rows import signed_64
from edge_agent.files.atomic import make_folder, storage_error, sync_file_system
from edge_agent.files.names import fit_name, names_for, printable_path
from edge_agent.files.open_beneath import open_folder
from edge_agent.files.stamp import Stamp
from edge_agent.files.transfer import copy_file, digest_in, put_back
from edge_agent.outbox.disposal import NOTE_SUFFIX
from edge_agent.records import Arrival, Record
from edge_agent.upkeep.delete_files import folder_of, places_of
from edge_agent.upkeep.rebuild import REBUILT_NOTE, Rebuilt

_TAG = re.compile(r"-\d+(-\d+)?(?=(\.[A-Za-z][A-Za-z0-9]{0,4})?$)")
"""What ``names_for`` puts before the extension of a name that was taken."""


def look_after_images(database: Database, home: Path, inbox: Path, *, keeps: bool, progress: Progress) -> None:
    """Finish a rebuild: match the images with the records, and write an event that says so. Does nothing if that was done before.

    An image in the inbox whose record came back is that record's: it leaves the inbox and is not classified twice. An image in ``done/`` or
    ``rejected/`` that no record describes goes back to the inbox under its path. One that is older than every record stays where it is:
    its record has been deleted for its age.

    Parameters
    ----------
    database : Database
        As opened.
    home, inbox : Path
        Existing folders.
    keeps : bool
        Whether images stay in the inbox. The workers recognise those by their bytes.
    progress : callable
        Called for each image.

    Raises
    ------
    StorageError
        If something cannot be read or written; the next start goes on.
    """
    note = database.note(REBUILT_NOTE)
    if not note:
        return
    _claim(database, inbox, keeps=keeps, progress=progress)
    oldest = oldest_finish(database)
    oldest_s = oldest.timestamp() if oldest else 0.0
    returned = left = 0
    try:
        for root in (home / "done", home / "rejected"):
            for path in _without_record(database, root, progress):
                if path.lstat().st_ctime < oldest_s:
                    left += 1
                else:
                    _give_back(path, root, inbox)
                    returned += 1
        # The note that this is done must not reach the disk before what was done.
        for folder in {inbox, home / "done", home / "rejected"}:
            sync_file_system(folder)
    except OSError as fault:
        raise storage_error(fault, f"give an image back to {inbox}") from fault
    message = _message(msgspec.json.decode(note, type=Rebuilt), returned, left)
    database.insert(PendingCommit(notes={REBUILT_NOTE: ""}, events=[("database_rebuilt", message)]))


def _claim(database: Database, inbox: Path, *, keeps: bool, progress: Progress) -> None:
    """Give the records whose path and content match an image in the inbox its stamp; the image then leaves the inbox as usual."""
    claimed: dict[int, Arrival] = {}
    for path in _files(inbox):
        progress()
        relative = path.relative_to(inbox).as_posix()
        records = database.records_at(relative)
        if records and (record := _describing(path, records, keeps=keeps)):
            claimed[record.id or 0] = Stamp.of_stat(path.lstat()).arrival(record, relative)
    settlements = [] if keeps else [Settlement(record_id, None, None, disposed=False) for record_id in claimed]
    database.insert(PendingCommit(restamped=list(claimed.items()), settlements=settlements))


def _describing(path: Path, records: list[Record], *, keeps: bool) -> Record | None:
    """Find which of the records of a path, the newest first, describes the file that is there."""
    newest = records[0]
    try:
        if not newest.sha256:  # it could not be read, so only its date can tell that it is still the same
            return newest if path.lstat().st_mtime <= newest.finished_at.timestamp() else None
        if keeps:
            return None
        digest = digest_in(None, str(path))
    except OSError:
        return None
    return next((record for record in records if record.sha256 == digest), None)


def _without_record(database: Database, root: Path, progress: Progress) -> Iterator[Path]:
    elsewhere: Counter[str] = Counter()
    for path in _files(root):
        progress()
        name = path.name
        if name.endswith(NOTE_SUFFIX) or (name.startswith(".") and name.endswith(".tmp")):
            continue
        relative = printable_path(path.relative_to(root).as_posix())
        found = path.lstat()
        if has_file(database, (relative, _TAG.sub("", relative)), found.st_size, found.st_ino):
            continue
        try:
            digest = digest_in(None, str(path))
        except OSError:
            continue
        # A record of these bytes may be this file's, which somebody renamed or moved, but not where its own file lies in its place: then
        # this is a copy, and its record is lost.
        elsewhere[digest] += 1
        if elsewhere[digest] > _records_without_file(database, root.parent, digest):
            yield path


def _records_without_file(database: Database, home: Path, sha256: str) -> int:
    return sum(
        not any(
            _stamp_of(place) == (each.size_bytes, each.inode)
            for place in places_of(home / folder_of(each.status), each.path, each.record_id)
        )
        for each in files_with_digest(database, sha256)
    )


def _stamp_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return signed_64(found.st_size), signed_64(found.st_ino)


def _give_back(path: Path, root: Path, inbox: Path) -> None:
    """Move an image to its place in the inbox, overwriting nothing."""
    target = make_folder(inbox, path.relative_to(root).parts[:-1])
    if _is_there(path, target / path.name):
        path.unlink()  # an earlier try came half-way
    elif target.stat().st_dev == path.lstat().st_dev:
        with _opened(inbox, target) as folder:
            put_back(path, folder, path.name)
    else:
        with _opened(path.parent, path.parent) as folder:
            copy_file(folder, path.name, next(target / name for name in names_for(path.name, 0) if not os.path.lexists(target / name)))
        path.unlink()
    path.with_name(fit_name(path.name, NOTE_SUFFIX)).unlink(missing_ok=True)


def _is_there(path: Path, target: Path) -> bool:
    if not os.path.lexists(target):
        return False
    found, there = path.lstat(), target.lstat()
    if os.path.samestat(found, there):
        return True
    return found.st_size == there.st_size and digest_in(None, str(path)) == digest_in(None, str(target))


@contextmanager
def _opened(root: Path, folder: Path) -> Iterator[int]:
    descriptor = open_folder(root, folder.relative_to(root).parts)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _files(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118 - many
        yield from (Path(folder, name) for name in (*names, *links))


def _message(rebuilt: Rebuilt, returned: int, left: int) -> str:
    if rebuilt.aside:
        kept = f"What was there is kept in state/{rebuilt.aside}, and a new one was built from results/: {rebuilt.records} records."
        parts = [f"The database could not be used ({rebuilt.reason}). {kept}"]
    else:
        parts = [f"The database was incomplete: {rebuilt.reason}. {rebuilt.records} came back from results/."]
    if rebuilt.skipped_lines:
        parts.append(f"{rebuilt.skipped_lines} lines of predictions.jsonl hold no record; a copy of that file lies there too.")
    if returned:
        parts.append(f"{returned} images had no record any more: they went back to the inbox and are classified again.")
    if left:
        parts.append(f"{left} images that are older than all records were left in done/ and rejected/.")
    parts.append("Check the disk.")
    return " ".join(parts)
