"""Native events of a folder and its sub-folders, through watchdog."""

from __future__ import annotations

import errno
import os
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

from watchdog.events import DirCreatedEvent, FileClosedEvent, FileCreatedEvent, FileSystemEvent
from watchdog.observers.api import EventQueue, ObservedWatch
from watchdog.observers.inotify import InotifyEmitter
from watchdog.observers.inotify_c import CallbackId, InotifyConstants, InotifyEvent, InotifyFD, Mask, WatchCallback, WatchDescriptor

MAX_PENDING_PATHS = 2_000
"""More paths than this do not wait to be looked at: a scan finds them."""

_EVENTS: list[type[FileSystemEvent]] = [FileCreatedEvent, FileClosedEvent, DirCreatedEvent]


class PendingPaths:
    """What was told of and nobody has looked at yet: each path once, however often it is told, and not more than a limit.

    Parameters
    ----------
    notify : callable
        Called with each path that is news, or with None, once, where something was lost.
    """

    def __init__(self, notify: Callable[[str | None], None]) -> None:
        self._notify = notify
        self._lock = threading.Lock()
        self._paths: set[str] = set()
        self._has_lost = False

    def __len__(self) -> int:
        return len(self._paths)

    def tell(self, path: str | None) -> None:
        """Tell of a path, or of a loss; from any thread."""
        with self._lock:
            if path in self._paths or self._has_lost:
                return  # a scan is on its way, and it comes after this
            if path is None or len(self._paths) >= MAX_PENDING_PATHS:
                path, self._has_lost = None, True
            else:
                self._paths.add(path)
        self._notify(path)

    def looked_at(self, path: str) -> None:
        """Forget a path. To be called before the look: what is told during the look is news."""
        with self._lock:
            self._paths.discard(path)

    def scanned(self) -> None:
        """Forget the loss. To be called before the scan."""
        with self._lock:
            self._has_lost = False


class _Inotify(InotifyFD):
    """The kernel's side, which says what watchdog keeps quiet about: events that were lost, and sub-folders that can not be watched."""

    def __init__(self, report: Callable[[str | None], None]) -> None:
        super().__init__()
        self._report = report
        self._root: WatchDescriptor | None = None
        self.has_refused = False
        self.has_lost_root = False

    def add_callback(self, path: bytes, mask: Mask, callback: WatchCallback, id_: CallbackId) -> WatchDescriptor:
        try:
            watch = super().add_callback(path, mask, callback, id_)
        except OSError as fault:
            self.has_refused = self.has_refused or fault.errno in (errno.ENOSPC, errno.ENOMEM)
            raise
        self._root = watch if self._root is None else self._root  # the folder itself comes first
        return watch

    def handle_event(self, event: InotifyEvent) -> None:
        super().handle_event(event)
        if event.is_ignored and event.wd == self._root:
            self.has_lost_root = True
            self._report(None)
        if event.is_queue_overflow:
            # Only now: watchdog has watched every folder anew, and what came before that is found by the scan that this leads to.
            self._report(None)


class _ArrivalEmitter(InotifyEmitter):
    """An emitter that reports at once, in its own thread, and is not told of files leaving.

    watchdog holds each such event back for 0.5 s, in case it is half of a move inside the folder, and with it every event behind it.
    The agent moves each finished image out of the inbox: every other arrival would be seen half a second late.
    """

    def __init__(self, folder: str, inotify: InotifyFD, report: Callable[[FileSystemEvent], None]) -> None:
        watch = ObservedWatch(folder, recursive=True, event_filter=_EVENTS)
        super().__init__(EventQueue(), watch, event_filter=_EVENTS, inotify_fd=inotify)
        self._report = report

    def get_event_mask_from_filter(self) -> Mask:
        return Mask(super().get_event_mask_from_filter() & ~InotifyConstants.IN_MOVED_FROM)

    def queue_event(self, event: FileSystemEvent) -> None:
        if isinstance(event, tuple(_EVENTS)):
            self._report(event)

    def queue_events(self, timeout: float, *, full_events: bool = False) -> None:
        # As watchdog does it, without the error that it logs where the thread is stopped between two lines of it.
        group = self._inotify
        event = None if group is None else group.read_event()
        if event is not None and self.should_keep_running():
            self.build_and_queue_event(event, full_events=full_events)


class FolderWatch:
    """Reports every path below a folder where a file was created, moved to, or closed after writing, and every new folder.

    Parameters
    ----------
    folder : Path
        Absolute; the paths reported are relative to it.
    report : callable
        Called from watchdog's thread with a path, or None where events were lost and only a scan can tell.

    Raises
    ------
    OSError
        If the kernel refuses the watch.
    """

    def __init__(self, folder: Path, report: Callable[[str | None], None]) -> None:
        self._prefix_length = len(str(folder).rstrip("/")) + 1
        self._report = report
        # A folder renamed inside the inbox is, without the event of its leaving, watched again under its new name: that is meant.
        warnings.filterwarnings("ignore", r"Callback with id .* already exists", RuntimeWarning)
        self._inotify = _Inotify(report)
        self._emitter = _ArrivalEmitter(str(folder), self._inotify, self._tell)
        self._inotify.start()
        try:
            self._emitter.start()
        except OSError:
            self._stop_reading()
            raise

    @property
    def is_complete(self) -> bool:
        """Whether it still works, and the kernel let it watch every sub-folder."""
        return self._inotify.is_alive() and self._emitter.is_alive() and not self._inotify.has_refused

    @property
    def has_ended(self) -> bool:
        """Whether the folder was unmounted or deleted since. One that is back under its name, the same to look at, is not watched."""
        return self._inotify.has_lost_root

    def stop(self) -> None:
        """Stop reporting."""
        self._emitter.stop()
        self._emitter.join()
        self._stop_reading()

    def _tell(self, event: FileSystemEvent) -> None:
        path = os.fsdecode(event.src_path)[self._prefix_length :]
        if path:
            self._report(path)

    def _stop_reading(self) -> None:
        self._inotify.stop()
        self._inotify.join()
