"""Native events of a folder and its sub-folders, through watchdog."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path

from watchdog.events import DirCreatedEvent, FileClosedEvent, FileCreatedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter
from watchdog.observers.inotify_c import InotifyConstants, Mask

# Their servers do not tell a client what other clients did.
_NETWORK_FILE_SYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "ncpfs",
    "vboxsf",
    "fuse.sshfs",
    "fuse.rclone",
    "virtiofs",
}


def has_native_events(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> bool:
    """Tell whether the kernel sees every change of a folder: False on network shares, where others write past it.

    Parameters
    ----------
    folder : Path
        Absolute, without symbolic links.
    mounts : Path
        The table of mounts, as proc(5) has it.
    """
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return True
    best, kind = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split(" ")[4])
        # The last mount on a place hides those before it.
        if folder.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), after.split(" ")[0]
    return kind not in _NETWORK_FILE_SYSTEMS


class _ArrivalEmitter(InotifyEmitter):
    """An emitter that is not told of files leaving.

    watchdog holds each such event back for 0.5 s, in case it is half of a move inside the folder, and with it every event behind it.
    The agent moves each finished image out of the inbox: every other arrival would be seen half a second late.
    """

    def get_event_mask_from_filter(self) -> Mask:
        return Mask(super().get_event_mask_from_filter() & ~InotifyConstants.IN_MOVED_FROM)


class _LossNotice(logging.Handler):
    """watchdog says that events were lost in its log, and nowhere else."""

    def __init__(self, notify: Callable[[str | None], None]) -> None:
        super().__init__(logging.WARNING)
        self._notify = notify

    def emit(self, record: logging.LogRecord) -> None:
        self._notify(None)


class FolderWatch(FileSystemEventHandler):
    """Reports every path below a folder where a file was created, moved to, or closed after writing, and every new folder.

    Parameters
    ----------
    folder : Path
        Absolute; the paths reported are relative to it.
    notify : callable
        Called from watchdog's thread with a path, or None where events were lost and only a scan can tell.

    Raises
    ------
    OSError
        If the kernel refuses the watch.
    """

    def __init__(self, folder: Path, notify: Callable[[str | None], None]) -> None:
        self._prefix_length = len(str(folder).rstrip("/")) + 1
        self._notify = notify
        # A folder renamed inside the inbox is, without the event of its leaving, watched again under its new name: that is meant.
        warnings.filterwarnings("ignore", r"Callback with id .* already exists", RuntimeWarning)
        self._notice = _LossNotice(notify)
        logging.getLogger("watchdog.observers").addHandler(self._notice)
        self._observer = BaseObserver(_ArrivalEmitter)
        self._observer.schedule(self, str(folder), recursive=True, event_filter=[FileCreatedEvent, FileClosedEvent, DirCreatedEvent])
        try:
            self._observer.start()
        except OSError:
            logging.getLogger("watchdog.observers").removeHandler(self._notice)
            raise

    def dispatch(self, event: FileSystemEvent) -> None:
        """Report one event; watchdog calls this."""
        path = os.fsdecode(event.src_path)[self._prefix_length :]
        if path:
            self._notify(path)

    def stop(self) -> None:
        """Stop reporting."""
        logging.getLogger("watchdog.observers").removeHandler(self._notice)
        self._observer.stop()
        self._observer.join()
