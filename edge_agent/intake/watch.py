"""Native events of a folder and its sub-folders, through watchdog.

watchdog's public API (``Observer`` and a handler) cannot keep four promises of the agent. The first was measured with watchdog
7.1 (0.499 s); the others are read from its source:

* An event is reported at once. ``Observer`` holds back every event behind a file that leaves, for 0.5 s, in case the file was moved inside
  the folder. The agent moves each finished image out of the inbox.
* Lost events are noticed. When the kernel's queue overflows, ``Observer`` watches the folders anew and logs it; no event says so.
* A sub-folder that the kernel refuses to watch is noticed. ``Observer`` drops the error.
* An unmounted folder is noticed. ``Observer`` gives no event for it, and goes on running.

So this module uses classes behind that API:

* ``inotify_c.InotifyFD``, a thread: ``start``, ``stop``, ``join``, ``is_alive``; ``add_callback`` and ``handle_event`` are overridden.
* ``inotify_c.InotifyEvent``: ``wd``, ``is_ignored``, ``is_queue_overflow``. ``inotify_c.InotifyConstants``: ``IN_MOVED_FROM``.
* ``inotify.InotifyEmitter``: made with ``inotify_fd``; ``get_event_mask_from_filter``, ``queue_event`` and ``queue_events`` are overridden,
  ``build_and_queue_event`` and ``_inotify.read_event`` are called.
* The warning that a callback already exists.

``tests/unit/intake/test_watch.py`` fails with a watchdog that has them no longer, and ``pyproject.toml`` keeps the next major version out.
"""

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

_EVENTS: list[type[FileSystemEvent]] = [FileCreatedEvent, FileClosedEvent, DirCreatedEvent]


class PendingPaths:
    """The paths that were reported and not looked at yet: each once, however often it is reported, and no more than a limit.

    Parameters
    ----------
    notify : callable
        Called with each new path, or with None, once, when events were lost.
    limit : int
        A path beyond this number counts as lost: a scan finds it.
    """

    def __init__(self, notify: Callable[[str | None], None], limit: int) -> None:
        self._notify = notify
        self._limit = limit
        self._lock = threading.Lock()
        self._paths: set[str] = set()
        self._has_lost = False

    def __len__(self) -> int:
        return len(self._paths)

    def add(self, path: str | None) -> None:
        """Add a path, or None for lost events; from any thread."""
        with self._lock:
            if path in self._paths or self._has_lost:
                return  # a scan is on its way, and it comes after this
            if path is None or len(self._paths) >= self._limit:
                path, self._has_lost = None, True
            else:
                self._paths.add(path)
        self._notify(path)

    def remove(self, path: str) -> None:
        """Remove a path. Call this before looking at it: what is reported during the look is new."""
        with self._lock:
            self._paths.discard(path)

    def clear_loss(self) -> None:
        """Forget that events were lost. Call this before the scan."""
        with self._lock:
            self._has_lost = False


class _Inotify(InotifyFD):
    """The kernel's side. It notices lost events, sub-folders that cannot be watched, and the end of the folder itself."""

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
    """An emitter that reports at once, in its own thread, and gets no event of a file that leaves."""

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
        self._emitter = _ArrivalEmitter(str(folder), self._inotify, self._report_event)
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
        """Whether the folder was unmounted or deleted since. A folder that is back under the same name is not watched."""
        return self._inotify.has_lost_root

    def stop(self) -> None:
        """Stop reporting."""
        self._emitter.stop()
        self._emitter.join()
        self._stop_reading()

    def _report_event(self, event: FileSystemEvent) -> None:
        path = os.fsdecode(event.src_path)[self._prefix_length :]
        if path:
            self._report(path)

    def _stop_reading(self) -> None:
        self._inotify.stop()
        self._inotify.join()
