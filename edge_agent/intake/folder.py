"""The inbox: which files are there, which are new, and when each may be taken."""

from __future__ import annotations

import errno
import logging
import math
import os
import re
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from fnmatch import translate
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edge_agent.errors import SourceGoneError
from edge_agent.intake.settle import SettleTable, Stamp
from edge_agent.records import Arrival

if TYPE_CHECKING:
    from edge_agent.intake.watch import FolderWatch

_log = logging.getLogger(__name__)

BATCH_FILES = 500
MAX_WAITING_FILES = 5000
"""A scan pauses while so many files wait, so that a hundred thousand dropped at once do not all stand in memory."""
RESCAN_S = 300.0
"""The net below the native events: an event that was lost is made up for after so long."""
POLL_S = 2.0
"""The same where there are no native events."""
_POLL_LOAD = 20
# Scans of a slow share take at most 1/20 of the time.

Seen = tuple[str, Stamp]


class IgnoreRule:
    """The shell patterns of files and folders that are never looked at, matched against the name alone."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._matches = re.compile("|".join(map(translate, patterns))).match if patterns else None

    def ignores(self, path: str) -> bool:
        """Tell whether the file, or a folder of its path, is one of those."""
        return self._matches is not None and any(self._matches(part) for part in path.split("/"))


def scan_folder(inbox: Path, rule: IgnoreRule, below: str = "") -> Iterator[Seen]:
    """List the files and symbolic links below a folder, with their stamps.

    Parameters
    ----------
    inbox : Path
        The watched folder.
    rule : IgnoreRule
        What to leave out.
    below : str
        A sub-folder, relative to the inbox.

    Yields
    ------
    tuple of str and Stamp
        Path relative to the inbox. Folders are descended into, whatever they are called; links are not followed; pipes, sockets and
        devices are left out. What vanishes meanwhile is left out too.

    Raises
    ------
    SourceGoneError
        If the inbox itself can not be listed.
    """
    folders = [below]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(inbox / folder) as entries:
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if rule.ignores(entry.name):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(path)
                    elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                        with suppress(FileNotFoundError):
                            yield path, Stamp.of_stat(entry.stat(follow_symlinks=False))
        except OSError as fault:
            if not folder:
                raise source_gone(inbox) from fault
            if fault.errno not in (errno.ENOENT, errno.ENOTDIR):
                _log.warning("folder_not_readable errno=%s", errno.errorcode.get(fault.errno or 0))


def source_gone(inbox: Path) -> SourceGoneError:
    """Say that the inbox is not there any more."""
    return SourceGoneError(f"the inbox {inbox} is gone or can not be read; mount or create it, then start the agent again")


class FolderIntake:
    """Knows every file of the inbox that has no record yet, from the first sight to its disposal.

    Not thread-safe: all methods belong to the agent's main thread; the watch tells it through ``notify``.

    Parameters
    ----------
    inbox : Path
        An existing folder, without symbolic links in its own path.
    settle_time_s : float
        See :class:`SettleTable`.
    ignore : tuple of str
        Shell patterns of names.
    unknown : callable
        Given a batch of files, returns those that have no record yet. The agent asks the database.
    """

    def __init__(self, inbox: Path, settle_time_s: float, ignore: tuple[str, ...], unknown: Callable[[list[Seen]], list[Seen]]) -> None:
        from edge_agent.intake.camera import is_camera_file  # here, because it brings NumPy, which listing an inbox does not need

        self._is_camera_file = is_camera_file
        self._inbox = inbox
        self._root = inbox.stat()
        self._rule = IgnoreRule(ignore)
        self._unknown = unknown
        self._table = SettleTable(settle_time_s)
        # Paths given out by settled(), and whether something happened to them since.
        self._in_flight: dict[str, bool] = {}
        self._watch: FolderWatch | None = None
        self._scan: Iterator[Seen] | None = None
        self._scan_started_s = 0.0
        self._rescan_at_s = 0.0
        self._rescan_s = RESCAN_S

    def start(self, notify: Callable[[str | None], None]) -> None:
        """Watch the inbox and begin the first full scan. The watch comes first, so that nothing falls between the two.

        Parameters
        ----------
        notify : callable
            Called from another thread with a path that wants :meth:`touch`, or None where events were lost (:meth:`rescan`).
        """
        from edge_agent.intake.watch import FolderWatch, has_native_events

        if has_native_events(self._inbox):
            try:
                self._watch = FolderWatch(self._inbox, notify)
            except OSError as fault:
                _log.warning("watch_refused reason=%r poll_s=%g advice='raise fs.inotify.max_user_watches'", fault.strerror, POLL_S)
        if self._watch is None:
            self._rescan_s = POLL_S
        self.rescan()

    def stop(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    @property
    def waiting(self) -> int:
        """Files seen that have not settled yet."""
        return len(self._table)

    @property
    def is_quiet(self) -> bool:
        """Whether everything seen has been taken, dealt with and released, and no scan is under way."""
        return not self._table and not self._in_flight and self._scan is None

    def rescan(self) -> None:
        """Begin a full scan; one that is under way starts again."""
        self._scan = scan_folder(self._inbox, self._rule)
        self._scan_started_s = time.monotonic()

    def scan_some(self) -> None:
        """Go on with the scan by one batch, or begin the next scan where its time has come. Does nothing while too many files wait.

        Raises
        ------
        SourceGoneError
            If the inbox is gone.
        """
        scan = self._scan
        if len(self._table) >= MAX_WAITING_FILES:
            return
        if scan is None:
            if time.monotonic() >= self._rescan_at_s:
                self.rescan()
            return
        batch = []
        for seen in scan:
            if seen[0] not in self._in_flight:
                batch.append(seen)
            if len(batch) == BATCH_FILES:
                break
        else:
            self._scan = None
            now_s = time.monotonic()
            self._rescan_at_s = now_s + max(self._rescan_s, _POLL_LOAD * (now_s - self._scan_started_s))
        now_ns = time.monotonic_ns()
        for path, stamp in self._unknown(batch) if batch else ():
            self._table.observe(path, stamp, now_ns)

    def touch(self, path: str) -> None:
        """Look at one path of which an event told: a file is observed, a folder is searched, what is gone is forgotten."""
        if self._rule.ignores(path):
            return
        if path in self._in_flight:
            self._in_flight[path] = True
            return
        found = self._look(path)
        if found is not None and stat.S_ISDIR(found.st_mode):
            for inner, stamp in scan_folder(self._inbox, self._rule, path):
                if inner not in self._in_flight:
                    self._table.observe(inner, stamp, time.monotonic_ns())
        elif found is not None:
            self._table.observe(path, Stamp.of_stat(found), time.monotonic_ns())
        else:
            self._table.forget(path)

    def settled(self) -> list[Arrival]:
        """Return files whose settle time is over, oldest first, a batch at most. Each must be given back with :meth:`release`."""
        due = self._table.take_due(time.monotonic_ns(), BATCH_FILES)
        if not due:
            return []
        still: list[Seen] = []
        for path, stamp in due:
            found = self._look(path)
            if found is None or stat.S_ISDIR(found.st_mode):
                continue
            now = Stamp.of_stat(found)
            if now.same_content(stamp):
                still.append((path, now))
            else:
                self._table.observe(path, now, time.monotonic_ns())
        arrivals = [self._arrival(path, stamp) for path, stamp in (self._unknown(still) if still else ())]
        self._in_flight.update((arrival.path, False) for arrival in arrivals)
        return arrivals

    def release(self, path: str, *, look_again: bool = False) -> None:
        """Give back a path after its disposal; ``look_again`` where something is known to be there that wants to be taken."""
        touched = self._in_flight.pop(path, False)
        if touched or look_again:
            self.touch(path)

    def wake_at_s(self) -> float:
        """The monotonic time at which :meth:`settled` or :meth:`scan_some` next has something to do."""
        due_ns = self._table.next_due_ns()
        due_s = math.inf if due_ns is None else due_ns / 1e9
        if len(self._table) >= MAX_WAITING_FILES:
            return due_s
        return min(due_s, self._rescan_at_s if self._scan is None else 0.0)

    def check_root(self) -> None:
        """Notice an inbox that was deleted, renamed or unmounted.

        Raises
        ------
        SourceGoneError
            If the path does not lead to the folder that it led to at the start.
        """
        try:
            now = self._inbox.stat()
        except OSError as fault:
            raise source_gone(self._inbox) from fault
        if (now.st_dev, now.st_ino) != (self._root.st_dev, self._root.st_ino):
            raise source_gone(self._inbox)

    def _look(self, path: str) -> os.stat_result | None:
        """``lstat`` of a file, folder or link; None for what is gone or is none of these."""
        try:
            found = os.lstat(self._inbox / path)
        except OSError:
            return None  # gone; or its folder became unreadable, which the next scan logs
        mode = found.st_mode
        return found if stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode) else None

    def _arrival(self, path: str, stamp: Stamp) -> Arrival:
        return Arrival(
            source="camera" if self._is_camera_file(PurePosixPath(path).name) else "folder",
            path=path,
            size_bytes=stamp.size_bytes,
            mtime_ns=stamp.mtime_ns,
            ctime_ns=stamp.ctime_ns,
            inode=stamp.inode,
            received_at=datetime.now(UTC),
            settled_ns=time.monotonic_ns(),
        )
