"""What becomes of an image after its record is durable. No image is overwritten, followed out of the inbox, or moved without a record."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from edge_agent.errors import SourceGoneError
from edge_agent.files.atomic import make_folder, replacing, storage_error, sync_file_system
from edge_agent.files.mounts import Mount, mounts_below
from edge_agent.files.names import fit_name, is_free, names_for
from edge_agent.files.open_beneath import open_folder
from edge_agent.files.stamp import Stamp
from edge_agent.files.transfer import SourceFault, copy_file, digest_in, lstat_in, put_back, writing
from edge_agent.intake.presence import AWAY_ERRNOS, check_present
from edge_agent.records import Arrival, Record

OnDone = Literal["move", "keep", "delete"]

DisposalOutcome = Literal["kept", "moved", "deleted", "gone", "replaced", "refused"]
"""``gone``: nothing is at the path any more. ``replaced``: another file is, and it stays there to be taken as new. ``refused``: the inbox's
file system does not let the file go, or is away itself; the file stays, known by its record, and is tried again at every scan and start."""

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
        try:
            self._stood_on: Mount | None = check_present(inbox, None)
        except SourceGoneError:
            self._stood_on = None
        # What was mounted inside the inbox when something was last taken from it.
        self._mounted: set[str] = set()

    def secure(self, records: Sequence[Record]) -> None:
        """Wait until the disk has the images that are about to be recorded.

        Few programs that drop an image wait for the disk, which may take half a minute. If the power failed in between, the record would
        be there and its image an empty file. One call for a group of images empties the disk's cache once; a fsync of each does for each.

        Raises
        ------
        StorageError
            If the disk did not take something.
        """
        if self._is_remote() or (self._on_done == "delete" and all(record.status == "done" for record in records)):
            return  # what others wrote to a share is not in this machine's cache
        try:
            sync_file_system(self._inbox)
        except FileNotFoundError:
            return  # the inbox is away, and its images with it
        except OSError as fault:
            if fault.errno in AWAY_ERRNOS and self._is_away():
                return
            raise storage_error(fault, f"write to the disk of {self._inbox}") from fault

    def dispose(self, record: Record, arrival: Arrival, *, resume: bool = False) -> DisposalOutcome:
        """Move, delete or keep one image, as the configuration says.

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
        DisposalOutcome
            What happened.

        Raises
        ------
        StorageError
            If the home folder cannot be written. The image is still in the inbox, or whole in its new place.
        """
        if self._is_remote() and self._is_away():
            return "refused"  # asked with a deadline: a server that died would hold up what follows
        if resume:
            self._finish_leaving(record.id or 0, arrival)
        path = PurePosixPath(arrival.path)
        try:
            folder = open_folder(self._inbox, path.parts[:-1])
        except OSError as fault:
            return self._missing(path, fault)
        try:
            return self._dispose_in(folder, path, record, arrival, resume=resume)
        except FileNotFoundError as fault:
            return self._missing(path, fault)
        finally:
            os.close(folder)

    def find(self, record: Record, arrival: Arrival) -> Arrival | None:
        """Look for the file of a record, also where its disk came back and numbers its files anew.

        Returns
        -------
        Arrival or None
            With the stamp that the file has now; None where it is not there, or another file is.
        """
        path = PurePosixPath(arrival.path)
        try:
            folder = open_folder(self._inbox, path.parts[:-1])
        except OSError:
            return None
        try:
            found = lstat_in(folder, path.name)
            return None if found is None else _recognise(found, path.name, folder, record, arrival)
        except OSError:
            return None
        finally:
            os.close(folder)

    def _dispose_in(self, folder: int, path: PurePosixPath, record: Record, arrival: Arrival, *, resume: bool) -> DisposalOutcome:
        try:
            device = os.fstat(folder).st_dev
            self._note_mounted(device)
            found = lstat_in(folder, path.name)
            if found is not None and resume:
                arrival = _recognise(found, path.name, folder, record, arrival) or arrival
        except OSError:
            return "refused"
        if found is None:
            return self._missing(path)
        if not _is_same(found, arrival):
            return "replaced"
        record_id, rejected = record.id or 0, record.status == "rejected"
        note = _note(record) if rejected else None
        if self._on_done == "keep":
            if note is not None:
                self._place(self._rejected, path, record_id, note)
            return "kept"
        if self._on_done == "delete" and not rejected:
            return self._delete(path.name, folder, record_id, arrival)
        # Of a try that came half-way, a copy may lie on another file system already. A rename is never half done.
        sha256 = record.sha256 if resume else ""
        target = self._place(self._rejected if rejected else self._done, path, record_id, note, (device, sha256))
        return self._move(path.name, folder, target, arrival)

    def _note_mounted(self, device: int) -> None:
        if self._stood_on is not None and not self._stood_on.has_device(device):
            self._mounted |= mounts_below(self._inbox).keys()

    def _missing(self, path: PurePosixPath, fault: OSError | None = None) -> DisposalOutcome:
        """Say of a file that cannot be found whether it was taken away, or is only out of reach until its disk or share is back."""
        if fault is not None and fault.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return "refused"
        if self._is_away():
            return "refused"
        if self._mounted:
            lost = self._mounted - {point for point, mount in mounts_below(self._inbox).items() if not mount.is_pulled}
            if any(path.is_relative_to(point) for point in lost):
                return "refused"
        return "gone"

    def _is_remote(self) -> bool:
        return self._stood_on is not None and self._stood_on.is_remote

    def _is_away(self) -> bool:
        try:
            check_present(self._inbox, self._stood_on)
        except SourceGoneError:
            return True
        return False

    def _place(self, root: Path, path: PurePosixPath, record_id: int, note: str | None, copy_of: tuple[int, str] = (0, "")) -> Path:
        """Choose a free name, and write the note beside it.

        ``copy_of`` is the device that the image lies on and its SHA-256, where an earlier try may have copied it to another file system and
        not removed the original: the name of such a copy is as good as free.
        """
        folder = make_folder(root, path.parts[:-1])
        device, copied_sha256 = copy_of
        if copied_sha256 and folder.stat().st_dev == device:
            copied_sha256 = ""  # a file with these bytes is another image
        for name in names_for(path.name, record_id):
            target = folder / name
            if os.path.lexists(target) and not (copied_sha256 and _is_copy(target, copied_sha256)):
                continue
            if note is None:
                break
            beside = folder / fit_name(name, NOTE_SUFFIX)
            if is_free(beside):
                with replacing(beside, durable=True, called="a note in rejected") as file:  # nobody writes it again after a power cut
                    file.write(note.encode())
                break
            if _is_text(beside, note):  # from a try that came half-way
                break
        return target

    def _move(self, name: str, folder: int, target: Path, arrival: Arrival) -> DisposalOutcome:
        try:
            if not os.path.lexists(target):
                os.rename(name, target, src_dir_fd=folder)
                return self._check_moved(target, folder, name, arrival)
        except FileNotFoundError:
            raise
        except OSError as fault:
            if fault.errno != errno.EXDEV:
                return _refused(fault, target.parent, self._done if target.is_relative_to(self._done) else self._rejected)
        return self._copy(name, folder, target, arrival)

    def _check_moved(self, target: Path, folder: int, name: str, arrival: Arrival) -> DisposalOutcome:
        """See what was moved: between the last look and the rename somebody may have put another file there."""
        if _is_same(os.lstat(target), arrival):
            return "moved"
        put_back(target, folder, name)
        return "replaced"

    def _copy(self, name: str, folder: int, target: Path, arrival: Arrival) -> DisposalOutcome:
        """Move to another file system: the copy is whole and on the disk before the original goes."""
        try:
            if not os.path.lexists(target):
                copy_file(folder, name, target)
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            raise
        except (OSError, SourceFault):
            return "refused"
        if not _is_same(found, arrival):
            with suppress(OSError):
                target.unlink()
            return "replaced"
        return _unlink(name, folder, "moved")

    def _delete(self, name: str, folder: int, record_id: int, arrival: Arrival) -> DisposalOutcome:
        """Take the file out of the inbox first and look at it once more: what was put there in the last moment must not be deleted."""
        leaving = make_folder(self._leaving, ()) / str(record_id)
        try:
            os.rename(name, leaving, src_dir_fd=folder)
        except FileNotFoundError:
            raise
        except OSError as fault:
            if fault.errno != errno.EXDEV:
                return _refused(fault, leaving.parent, leaving.parent)
            return _unlink(name, folder, "deleted")
        outcome = self._check_moved(leaving, folder, name, arrival)
        if outcome != "moved":
            return outcome
        with writing(f"to {leaving.parent}"):
            leaving.unlink()
        return "deleted"

    def _finish_leaving(self, record_id: int, arrival: Arrival) -> None:
        leaving = self._leaving / str(record_id)
        if not os.path.lexists(leaving):
            return
        if _is_same(os.lstat(leaving), arrival):
            leaving.unlink()
            return
        try:
            folder = open_folder(self._inbox, ())
        except OSError:
            return  # the inbox is away; what lies here waits for it
        try:
            put_back(leaving, folder, PurePosixPath(arrival.path).name)
        finally:
            os.close(folder)


def _is_same(found: os.stat_result, arrival: Arrival) -> bool:
    return Stamp.of_stat(found).same_content(Stamp.of_arrival(arrival))


def _recognise(found: os.stat_result, name: str, folder: int, record: Record, arrival: Arrival) -> Arrival | None:
    """Tell whether a file is the recorded one although its inode is another: its disk was restored, or was plugged in again."""
    if not _is_same(found, arrival):
        if record.sha256 and digest_in(folder, name) != record.sha256:
            return None
        if not record.sha256 and (found.st_size, found.st_mtime_ns) != (arrival.size_bytes, arrival.mtime_ns):
            return None
    return msgspec.structs.replace(arrival, **Stamp.of_stat(found)._asdict())


def _unlink(name: str, folder: int, outcome: DisposalOutcome) -> DisposalOutcome:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError:
        return "refused"
    return outcome


def _refused(fault: OSError, target: Path, root: Path) -> DisposalOutcome:
    """Whose fault is it? Where we may write to the target, the inbox does not let go of the file.

    ``root`` is what the message names: the folders below bear the names of the inbox's.
    """
    if (fault.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY) or fault.errno in AWAY_ERRNOS) and os.access(
        target, os.W_OK | os.X_OK
    ):
        return "refused"
    raise storage_error(fault, f"move an image to {root}") from fault


def _is_copy(path: Path, sha256: str) -> bool:
    with suppress(OSError):
        return digest_in(None, str(path)) == sha256
    return False


def _is_text(path: Path, text: str) -> bool:
    with suppress(OSError):
        return path.read_bytes() == text.encode()
    return False


def _note(record: Record) -> str:
    reason = record.reason.message if record.reason else ""
    name = PurePosixPath(record.path).name
    return f"{name}\nwas not classified on {record.finished_at:%Y-%m-%d at %H:%M:%S} UTC (record {record.id}).\n\n{reason}\n"
