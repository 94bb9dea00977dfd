"""What becomes of an image after its record is durable. No image is overwritten, followed out of the inbox, or moved without a record."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from edge_agent.intake.placing import fit_name, is_free, make_folder, names_for, replacing, storage_error, sync_file_system, sync_folder
from edge_agent.intake.reading import open_folder
from edge_agent.intake.settle import Stamp
from edge_agent.records import Arrival, Record

OnDone = Literal["move", "keep", "delete"]

Outcome = Literal["kept", "moved", "deleted", "gone", "replaced", "refused"]
"""``gone``: nothing is at the path any more. ``replaced``: another file is, and it stays there to be taken as new. ``refused``: the inbox's
file system does not let the file go; it stays, known by its record, and is tried again at every scan."""

NOTE_SUFFIX = ".reason.txt"


class Disposal:
    """Moves finished images to ``done/``, unreadable ones to ``rejected/`` with a note, or as the configuration says.

    Parameters
    ----------
    inbox, home : Path
        Existing folders.
    on_done : {"move", "keep", "delete"}
        What becomes of a classified image. A rejected one is never deleted; with "keep" it too stays in the inbox, and only the note is
        written.
    """

    def __init__(self, inbox: Path, home: Path, on_done: OnDone) -> None:
        self._inbox = inbox
        self._done = home / "done"
        self._rejected = home / "rejected"
        self._leaving = home / "state" / "leaving"
        self._on_done = on_done

    def secure(self, records: Sequence[Record]) -> None:
        """Wait until the disk has the images that are about to be recorded.

        Few programs that drop an image wait for the disk, which may take half a minute. If the power failed in between, the record would
        be there and its image an empty file. One call for a group of images empties the disk's cache once; a fsync of each does for each.

        Raises
        ------
        StorageError
            If the disk did not take something.
        """
        if self._on_done == "delete" and all(record.status == "done" for record in records):
            return
        try:
            sync_file_system(self._inbox)
        except FileNotFoundError:
            return  # the inbox is away, and its images with it
        except OSError as fault:
            raise storage_error(fault, f"write to the disk of {self._inbox}") from fault

    def dispose(self, record: Record, arrival: Arrival, *, resume: bool = False) -> Outcome:
        """Do with one image what is to be done.

        Parameters
        ----------
        record : Record
            Durable, with its ``id``.
        arrival : Arrival
            The file that the record is about; a file that is not that one is left alone.
        resume : bool
            Whether an earlier try may have come half-way.

        Returns
        -------
        Outcome
            What happened.

        Raises
        ------
        StorageError
            If the home folder can not be written. The image is still in the inbox, or whole in its new place.
        """
        record_id = record.id or 0
        rejected = record.status == "rejected"
        if resume:
            self._finish_leaving(record_id, arrival)
        path = PurePosixPath(arrival.path)
        try:
            folder = open_folder(self._inbox, path.parts[:-1])
        except OSError:
            return "gone"
        try:
            found = _lstat(path.name, folder)
            if found is None:
                return "gone"
            if not _is_same(found, arrival):
                # A disk restored from a copy: other inodes, same image.
                if not (resume and record.sha256 and _digest(path.name, folder) == record.sha256):
                    return "replaced"
                arrival = msgspec.structs.replace(arrival, inode=found.st_ino, size_bytes=found.st_size, mtime_ns=found.st_mtime_ns)
            note = _note(record) if rejected else None
            if self._on_done == "keep":
                if note is not None:
                    self._place(self._rejected, path, record_id, note)
                return "kept"
            if self._on_done == "delete" and not rejected:
                return self._delete(path.name, folder, record_id, arrival)
            target = self._place(self._rejected if rejected else self._done, path, record_id, note, record.sha256 if resume else "")
            return self._move(path.name, folder, target, arrival)
        except FileNotFoundError:
            return "gone"
        finally:
            os.close(folder)

    def _place(self, root: Path, path: PurePosixPath, record_id: int, note: str | None, copied_sha256: str = "") -> Path:
        """Choose a free name, and write the note beside it.

        ``copied_sha256`` is given where an earlier try may have copied the image to another file system and not removed the original: the
        name of such a copy is as good as free.
        """
        folder = make_folder(root, path.parts[:-1])
        if folder.stat().st_dev == self._inbox.stat().st_dev:
            copied_sha256 = ""  # a rename is never half done: a file with these bytes is another image
        for name in names_for(path.name, record_id):
            target = folder / name
            if os.path.lexists(target) and not (copied_sha256 and _digest(str(target)) == copied_sha256):
                continue
            if note is None:
                break
            beside = folder / fit_name(name, NOTE_SUFFIX)
            if is_free(beside):
                with replacing(beside, durable=True) as file:  # nobody writes it again after a power cut
                    file.write(note.encode())
                break
            if _is_text(beside, note):  # from a try that came half-way
                break
        return target

    def _move(self, name: str, folder: int, target: Path, arrival: Arrival) -> Outcome:
        try:
            if not os.path.lexists(target):
                os.rename(name, target, src_dir_fd=folder)
                return self._check_moved(target, folder, name, arrival)
        except FileNotFoundError:
            raise
        except OSError as fault:
            if fault.errno != errno.EXDEV:
                return _refused(fault, target.parent)
        return self._copy(name, folder, target, arrival)

    def _check_moved(self, target: Path, folder: int, name: str, arrival: Arrival) -> Outcome:
        """See what was moved: between the last look and the rename somebody may have put another file there."""
        if _is_same(os.lstat(target), arrival):
            return "moved"
        _put_back(target, folder, name)
        return "replaced"

    def _copy(self, name: str, folder: int, target: Path, arrival: Arrival) -> Outcome:
        """Move to another file system: the copy is whole and on the disk before the original goes."""
        if not os.path.lexists(target):
            with _writing(target.parent):
                if stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    os.symlink(os.readlink(name, dir_fd=folder), target)  # noqa: PTH211 - relative to an open folder
                else:
                    _copy_file(name, folder, target)
                    sync_folder(target.parent)
        found = _lstat(name, folder)
        if found is None:
            return "gone"
        if not _is_same(found, arrival):
            with suppress(OSError):
                target.unlink()
            return "replaced"
        return _unlink(name, folder, "moved")

    def _delete(self, name: str, folder: int, record_id: int, arrival: Arrival) -> Outcome:
        """Take the file out of the inbox first and look at it once more: what was put there in the last moment must not be deleted."""
        leaving = make_folder(self._leaving, ()) / str(record_id)
        try:
            os.rename(name, leaving, src_dir_fd=folder)
        except FileNotFoundError:
            raise
        except OSError as fault:
            if fault.errno != errno.EXDEV:
                return _refused(fault, leaving.parent)
            return _unlink(name, folder, "deleted")
        outcome = self._check_moved(leaving, folder, name, arrival)
        if outcome != "moved":
            return outcome
        with _writing(leaving.parent):
            leaving.unlink()
        return "deleted"

    def _finish_leaving(self, record_id: int, arrival: Arrival) -> None:
        leaving = self._leaving / str(record_id)
        if not os.path.lexists(leaving):
            return
        if _is_same(os.lstat(leaving), arrival):
            leaving.unlink()
            return
        folder = os.open(self._inbox, os.O_PATH | os.O_DIRECTORY)
        try:
            _put_back(leaving, folder, PurePosixPath(arrival.path).name)
        finally:
            os.close(folder)


def _is_same(found: os.stat_result, arrival: Arrival) -> bool:
    return Stamp.of_stat(found).same_content(Stamp.of_arrival(arrival))


def _lstat(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None


def _unlink(name: str, folder: int, outcome: Outcome) -> Outcome:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError:
        return "refused"
    return outcome


def _refused(fault: OSError, target: Path) -> Outcome:
    """Whose fault is it? Where we may write to the target, the inbox does not let go of the file."""
    if fault.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY, errno.EIO) and os.access(target, os.W_OK | os.X_OK):
        return "refused"
    raise storage_error(fault, f"move an image to {target}") from fault


def _put_back(source: Path, folder: int, name: str) -> None:
    """Give a file back to the inbox, under a name that is free there."""
    for candidate in names_for(name, 0):
        try:
            os.link(source, candidate, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            continue
        except OSError:
            # No hard links here (FAT, or another owner's file under fs.protected_hardlinks).
            if _lstat(candidate, folder) is not None:
                continue
            os.rename(source, candidate, dst_dir_fd=folder)
        else:
            source.unlink()
        return


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise  # the image went away meanwhile: nobody's fault
    except OSError as fault:
        raise storage_error(fault, f"move an image to {folder}") from fault


def _copy_file(name: str, folder: int, target: Path) -> None:
    source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(source, "rb") as original, replacing(target, durable=True) as copy:
        shutil.copyfileobj(original, copy, 1024 * 1024)
        copy.flush()
        found = os.fstat(source)
        os.utime(copy.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))


def _digest(name: str, folder: int | None = None) -> str:
    """SHA-256 of a file, not followed; empty where it can not be read."""
    with (
        suppress(OSError),
        os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder), "rb") as file,
    ):
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


def _is_text(path: Path, text: str) -> bool:
    with suppress(OSError):
        return path.read_bytes() == text.encode()
    return False


def _note(record: Record) -> str:
    reason = record.reason.message if record.reason else ""
    name = PurePosixPath(record.path).name
    return f"{name}\nwas not classified on {record.finished_at:%Y-%m-%d at %H:%M:%S} UTC (record {record.id}).\n\n{reason}\n"
