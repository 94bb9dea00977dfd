"""The inbox: which files are there, which are new, and when each may be taken."""

from __future__ import annotations

import logging
import math
import os
import stat
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from edge_agent.config import IntakeConfig
from edge_agent.files.mounts import Mount, mounts_below
from edge_agent.files.stamp import Stamp
from edge_agent.intake import presence
from edge_agent.intake.presence import AWAY_ERRNOS, ask_inbox, check_present, source_gone
from edge_agent.intake.scan import SLACK, IgnoreRule, Listing, Seen, Unreadable
from edge_agent.intake.settle import ObservedClock, SettleTable
from edge_agent.records import Arrival

if TYPE_CHECKING:
    from edge_agent.intake.watch import FolderWatch, PendingPaths

_log = logging.getLogger(__name__)

_LISTING_LOAD = 20
"""Passes take at most 1/20 of the time, however slow the share is."""
_LONGEST_GAP_S = 0.5
"""A file that was looked at less often than this was not watched while it settled."""


class Limits(NamedTuple):
    """How much of an inbox is in hand at once.

    Attributes
    ----------
    waiting_files : int
        The most files that one pass over the inbox keeps, and that wait their turn. The next pass finds the others.
    pending_paths : int
        The most reported paths that wait to be looked at. A scan finds the others.
    taken_files : int
        Files handed out at once. They are taken before whatever arrives later, so they are few.
    order_wait_s : float
        A pass holds back what it finds for this long, so that the files are taken in their order and not as they are listed.
    """

    waiting_files: int = 2000
    pending_paths: int = 2000
    taken_files: int = 64
    order_wait_s: float = 2.0

    @property
    def held_files(self) -> int:
        """The most files in memory: those that wait and those of a pass, with the slack that spares sorting them for each new file."""
        return 2 * (self.waiting_files + self.waiting_files // SLACK)


LIMITS = Limits()
"""What an intake keeps to unless it is given others."""


class FolderIntake:
    """Knows every file of the inbox that has no record yet, from the first sight to its disposal.

    Not thread-safe: all methods belong to the agent's main thread; the watch reports through ``notify``.

    Parameters
    ----------
    inbox : Path
        An existing folder, without symbolic links in its own path.
    config : IntakeConfig
        Settle time, names to ignore, order, and how new files are noticed.
    unknown : callable
        Given a batch of files, returns those that have no record yet. The agent asks the database.
    limits : Limits, optional
        :data:`LIMITS` if not given.

    Raises
    ------
    SourceGoneError
        If the inbox is not there.
    """

    def __init__(
        self, inbox: Path, config: IntakeConfig, unknown: Callable[[list[Seen]], list[Seen]], limits: Limits | None = None
    ) -> None:
        from edge_agent.intake.camera import is_camera_file  # here, because it brings NumPy, which listing an inbox does not need

        self._is_camera_file = is_camera_file
        self._inbox = inbox
        self._config = config
        self._limits = limits or LIMITS
        self._mount = check_present(inbox, None)
        self._root = self._stat_root()
        self._rule = IgnoreRule(config.ignore)
        self._unreadable = Unreadable()
        self._unknown = unknown
        self._clock = ObservedClock(min(_LONGEST_GAP_S, config.settle_time_s / 2))
        self._table = SettleTable(config.settle_time_s, config.order)
        # Paths given out by settled(), and whether something happened to them since.
        self._in_flight: dict[str, bool] = {}
        self._watch: FolderWatch | None = None
        self._has_all_events = False
        self._pending: PendingPaths | None = None
        self._listing: Listing | None = None
        self._wants_full = True
        self._left_out = 0
        self._rescan_at_s = 0.0
        # Sub-folders on file systems of their own. The kernel's events of what lies below a mount may not reach the watch.
        self._mounted: list[str] = []
        self._poll_at_s = math.inf
        # How long to wait for the server of a share; None on a local disk, which answers.
        self._answer_s: float | None = None

    def start(self, notify: Callable[[str | None], None]) -> None:
        """Watch the inbox and begin the first full pass. The watch comes first, so that nothing falls between the two.

        Parameters
        ----------
        notify : callable
            Called from another thread with a path for :meth:`touch`, or with None when events were lost, for :meth:`rescan`. Each path is
            reported once until it is touched, and only a limited number of paths is.
        """
        from edge_agent.intake.watch import FolderWatch, PendingPaths

        self._pending = PendingPaths(notify, self._limits.pending_paths)
        if _has_events(self._config, self._mount):
            try:
                self._watch = FolderWatch(self._inbox, self._pending.add)
                self._has_all_events = True
            except OSError as fault:
                self._log_refusal(fault.strerror)
        _log.info("watching mode=%s file_system=%s", "native" if self._watch else "polling", self._mount.kind or "unknown")
        self._note_mounted()
        self.rescan()

    def stop(self) -> None:
        """Stop watching."""
        if self._watch is not None:
            self._watch.stop()
            self._watch = None

    @property
    def held(self) -> int:
        """Files seen and not taken yet that are in memory, at most :attr:`Limits.held_files`."""
        return len(self._table) + (self._listing.kept if self._listing else 0)

    @property
    def waiting(self) -> int:
        """Files seen and not taken yet, as far as they were counted."""
        return self.held + self._left_out

    @property
    def is_quiet(self) -> bool:
        """Whether everything seen and reported has been taken, dealt with and released, and no pass is under way or needed."""
        return not (self._table or self._in_flight or self._listing or self._wants_full or self._left_out)

    def rescan(self) -> None:
        """Have the whole inbox listed; where that is under way, once more after it."""
        if self._pending is not None:
            self._pending.clear_loss()
        self._wants_full = True

    def scan_some(self) -> None:
        """Go on with the pass that is under way, or begin the next one where its time has come.

        Raises
        ------
        SourceGoneError
            If the inbox is gone.
        """
        self._listing = listing = self._listing or self._begin_pass()
        if listing is None:
            return
        is_over = not listing.go_on(self._in_flight, self._new_files)
        now_s = time.monotonic()
        if is_over or now_s - listing.started_s > self._limits.order_wait_s:
            now_ns = self._clock.look_ns()
            for path, stamp in listing.take_found():
                self._table.observe(path, stamp, now_ns)
        if is_over:
            self.check_root()  # an empty mount point was listed as an empty inbox
            self._end_pass(listing, now_s)
        self._bound_table()

    def touch(self, path: str) -> None:
        """Look at one path that an event reported: a file is observed, a folder will be listed, what is gone is forgotten."""
        if self._pending is not None:
            self._pending.remove(path)
        if self._rule.ignores(path):
            return
        if path in self._in_flight:
            self._in_flight[path] = True
            return
        [found] = self._look_at([path])
        if isinstance(found, OSError):
            self._note_fault(path, found)
        elif found is None:
            self._table.forget(path)
        elif stat.S_ISDIR(found.st_mode):
            self._list_too(path)
        else:
            self._table.observe(path, Stamp.of_stat(found), self._clock.look_ns())
            self._bound_table()

    def settled(self) -> list[Arrival]:
        """Return a few files whose settle time is over, first those that come first. Each must be given back with :meth:`release`.

        Raises
        ------
        SourceGoneError
            If the inbox is gone.
        """
        due = self._table.take_due(self._clock.look_ns(), self._limits.taken_files)
        if not due:
            return []
        still: list[Seen] = []
        are_missing = False
        for (path, stamp), found in zip(due, self._look_at([path for path, _ in due]), strict=True):
            if isinstance(found, OSError):
                self._note_fault(path, found)
            elif found is not None and not stat.S_ISDIR(found.st_mode):
                now = Stamp.of_stat(found)
                if now.same_content(stamp):
                    still.append((path, now))
                else:
                    self._table.observe(path, now, self._clock.look_ns())
            else:
                are_missing = True
        if are_missing:
            self.check_root()  # taken away one by one, or all of them with their disk?
        arrivals = [self._arrival(path, stamp) for path, stamp in (self._unknown(still) if still else ())]
        self._in_flight.update((arrival.path, False) for arrival in arrivals)
        return arrivals

    def release(self, path: str, *, look_again: bool = False) -> None:
        """Give back a path after its disposal; ``look_again`` where another file is known to be there."""
        touched = self._in_flight.pop(path, False)
        if touched or look_again:
            self.touch(path)

    def wake_at_s(self) -> float:
        """The monotonic time at which :meth:`settled` or :meth:`scan_some` next has something to do."""
        if self._listing or self._needs_full_pass(time.monotonic()) or self._table.has_settled:
            return 0.0
        wake_at_s = min(self._rescan_at_s, self._poll_at_s)
        due_ns = self._table.next_due_ns()
        if due_ns is not None:
            wake_at_s = min(wake_at_s, self._clock.monotonic_s(due_ns), self._clock.next_look_s())
        return wake_at_s

    def check_root(self) -> None:
        """Notice an inbox that was deleted, renamed or unmounted, and what was mounted inside it.

        Raises
        ------
        SourceGoneError
            If the path does not lead to what it led to at the start.
        """
        self._mount = check_present(self._inbox, self._mount)
        if self._watch is not None:
            now = self._stat_root()
            if (now.st_dev, now.st_ino) != (self._root.st_dev, self._root.st_ino):
                raise source_gone(self._inbox, "another folder is in its place")  # the kernel reports nothing of it to this watch
            if self._watch.has_ended:
                raise source_gone(self._inbox, "it was away for a moment")
            if self._has_all_events and not self._watch.is_complete:
                self._has_all_events = False
                self._log_refusal("not every sub-folder can be watched")
                self._wants_full = True
        self._note_mounted()

    def _stat_root(self) -> os.stat_result:
        try:
            return self._inbox.stat()
        except OSError as fault:  # it went away since the question before
            raise source_gone(self._inbox, fault.strerror or str(fault)) from fault

    # Passes over the inbox

    def _needs_full_pass(self, now_s: float) -> bool:
        is_running_low = self._left_out > 0 and len(self._table) <= self._limits.waiting_files // 4  # the workers stay busy meanwhile
        return self._wants_full or is_running_low or now_s >= self._rescan_at_s

    def _begin_pass(self) -> Listing | None:
        now_s = time.monotonic()
        if self._needs_full_pass(now_s):
            self._wants_full = False
            return self._new_listing([""])
        return self._new_listing(self._mounted) if now_s >= self._poll_at_s else None

    def _new_listing(self, folders: list[str]) -> Listing:
        return Listing(self._inbox, self._rule, self._config.order, self._limits.waiting_files, folders, self._unreadable, self._answer_s)

    def _new_files(self, seen: list[Seen]) -> list[Seen]:
        """Leave out what waits already, and what has a record."""
        new = [(path, stamp) for path, stamp in seen if not self._table.holds(path, stamp)]
        return self._unknown(new) if new else new

    def _list_too(self, folder: str) -> None:
        if self._listing is None:
            self._listing = self._new_listing([folder])
        else:
            self._listing.add(folder)

    def _end_pass(self, listing: Listing, now_s: float) -> None:
        self._listing = None
        duration_s = now_s - listing.started_s
        if listing.is_full:
            self._unreadable.end_pass()
            interval_s = self._config.rescan_interval_s if self._has_all_events else self._config.poll_interval_s
            self._rescan_at_s = now_s + max(interval_s, _LISTING_LOAD * duration_s)
            self._left_out = listing.left_out
        else:
            self._left_out += listing.left_out
        if self._mounted:
            self._poll_at_s = now_s + max(self._config.poll_interval_s, _LISTING_LOAD * duration_s)

    def _bound_table(self) -> None:
        limit = self._limits.waiting_files
        if len(self._table) > limit + limit // SLACK:
            self._left_out += self._table.keep_first(limit)

    def _note_mounted(self) -> None:
        """Have listed again and again what is mounted inside the inbox, unless that is done with all of it, or is not wanted."""
        inside = {path: mount for path, mount in mounts_below(self._inbox).items() if not self._rule.ignores(path)}
        is_remote = self._mount.is_remote or any(mount.is_remote for mount in inside.values())
        self._answer_s = presence.ANSWER_S if is_remote else None
        if not self._has_all_events or self._config.watch == "native":
            self._mounted, self._poll_at_s = [], math.inf
            return
        mounted = sorted(inside)
        if mounted != self._mounted:
            _log.info("polling_inside file_systems=%d", len(mounted))
            self._mounted = mounted
            self._poll_at_s = time.monotonic() if mounted else math.inf

    def _log_refusal(self, reason: str | None) -> None:
        _log.warning("watch_refused reason=%r poll_s=%g advice='raise fs.inotify.max_user_watches'", reason, self._config.poll_interval_s)

    # Some files

    def _look_at(self, paths: list[str]) -> list[os.stat_result | OSError | None]:
        """Look at files; see :func:`_look`."""
        return ask_inbox(self._inbox, self._answer_s, "files", lambda: [_look(self._inbox / path) for path in paths])

    def _note_fault(self, path: str, fault: OSError) -> None:
        """Take note of a file that nobody can look at now; the next pass looks again."""
        if fault.errno in AWAY_ERRNOS:
            self.check_root()
        self._unreadable.note(path.rpartition("/")[0], fault)

    def _arrival(self, path: str, stamp: Stamp) -> Arrival:
        return Arrival(
            source="camera" if self._is_camera_file(PurePosixPath(path).name) else "folder",
            path=path,
            **stamp._asdict(),
            received_at=datetime.now(UTC),
            settled_ns=time.monotonic_ns(),
        )


def _has_events(config: IntakeConfig, mount: Mount) -> bool:
    return config.watch == "native" or (config.watch == "auto" and not mount.is_remote)


def _look(path: Path) -> os.stat_result | OSError | None:
    """``lstat`` of a file, folder or link; None for what is gone or is none of these, the fault where nobody can tell."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as fault:
        return fault
    mode = found.st_mode
    return found if stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode) else None
