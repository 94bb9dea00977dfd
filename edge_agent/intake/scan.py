"""Listing the inbox: everything in it once, in slices, keeping the files that come first."""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Callable, Container, Iterable, Iterator
from fnmatch import translate
from os import scandir
from pathlib import Path
from typing import NamedTuple

from edge_agent.files.stamp import Order, Stamp
from edge_agent.intake.presence import ask_inbox, source_gone

_log = logging.getLogger(__name__)

BATCH_FILES = 500
SLACK = 4
"""If at most N files are wanted, up to N / SLACK more are held for a while."""
_SLICE_S = 0.02
"""The main loop does nothing else during a slice of a scan. A slow share gives few files in this time."""
_LOOKS_PER_TIME_CHECK = 16

_MAX_LOGGED_FOLDERS = 1000
_GONE = (errno.ENOENT, errno.ENOTDIR)

Seen = tuple[str, Stamp]


class IgnoreRule:
    """The shell patterns of files and folders that are never looked at, matched against the name alone, capital letters or not."""

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self._matches = re.compile("|".join(map(translate, patterns)), re.IGNORECASE).match if patterns else None

    def ignores(self, path: str) -> bool:
        """Tell whether the file, or a folder of its path, is one of those."""
        return self._matches is not None and any(self._matches(part) for part in path.split("/"))


class Unreadable:
    """Folders in which something could not be looked at. Each is logged once, for as long as that lasts."""

    def __init__(self) -> None:
        self._logged: set[str] = set()
        self._seen: set[str] = set()

    def note(self, folder: str, fault: OSError) -> None:
        """Note a fault in a folder."""
        if folder not in self._logged and len(self._logged) < _MAX_LOGGED_FOLDERS:
            code = errno.errorcode.get(fault.errno or 0, "unknown")
            _log.warning("not_readable errno=%s depth=%d advice='may the agent list this folder? it looks again'", code, folder.count("/"))
            self._logged.add(folder)
        if len(self._seen) < _MAX_LOGGED_FOLDERS:
            self._seen.add(folder)

    def end_pass(self) -> None:
        """Forget the folders in which a pass over everything met no fault."""
        self._logged, self._seen = self._seen, set()


def scan_folder(inbox: Path, rule: IgnoreRule, below: str = "", unreadable: Unreadable | None = None) -> Iterator[Seen]:
    """List the files and symbolic links below a folder, with their stamps.

    Parameters
    ----------
    inbox : Path
        The watched folder.
    rule : IgnoreRule
        What to leave out.
    below : str
        A sub-folder, relative to the inbox.
    unreadable : Unreadable, optional
        Takes note of what could not be looked at.

    Yields
    ------
    tuple of str and Stamp
        Path relative to the inbox. Folders are descended into, whatever they are called; links are not followed; pipes, sockets and
        devices are left out. What vanishes meanwhile is left out too, and so is what cannot be looked at now.

    Raises
    ------
    SourceGoneError
        If the inbox itself cannot be listed.
    """
    unreadable = Unreadable() if unreadable is None else unreadable
    folders = [below]
    while folders:
        folder = folders.pop()
        try:
            with scandir(inbox / folder) as entries:
                for entry in entries:
                    if rule.ignores(entry.name):
                        continue
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    try:
                        if entry.is_dir(follow_symlinks=False):
                            folders.append(path)
                        elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
                            yield path, Stamp.of_stat(entry.stat(follow_symlinks=False))
                    except OSError as fault:
                        if fault.errno not in _GONE:
                            unreadable.note(folder, fault)
        except OSError as fault:
            if not folder:
                raise source_gone(inbox, fault.strerror or str(fault)) from fault
            if fault.errno not in _GONE:
                unreadable.note(folder, fault)


class _Ranked(NamedTuple):
    rank: int
    path: str
    stamp: Stamp


class Listing:
    """One pass over the inbox, or over parts of it.

    However many files there are, memory holds at most a quarter more than are wanted.

    Parameters
    ----------
    inbox : Path
        The watched folder.
    rule : IgnoreRule
        What to leave out.
    order : {"newest", "oldest"}
        Which files come first.
    limit : int
        How many are wanted.
    folders : iterable of str
        What to list, relative to the inbox; "" is all of it.
    unreadable : Unreadable, optional
        Takes note of what could not be looked at.
    timeout_s : float, optional
        How long to wait for an answer, where it may never come: on a share. Such a pass costs a thread for each slice.

    Attributes
    ----------
    is_full : bool
        Whether all of the inbox is listed.
    left_out : int
        Files that nobody has a record of, as far as known, and that came after the wanted ones: a later pass finds them.
    """

    def __init__(
        self,
        inbox: Path,
        rule: IgnoreRule,
        order: Order,
        limit: int,
        folders: Iterable[str] = ("",),
        unreadable: Unreadable | None = None,
        timeout_s: float | None = None,
    ) -> None:
        self._timeout_s = timeout_s
        self._inbox = inbox
        self._unreadable = Unreadable() if unreadable is None else unreadable
        self._rule = rule
        self._order: Order = order
        self._limit = limit
        self._folders = list(folders)
        self.is_full = "" in self._folders
        self._files: Iterator[Seen] = iter(())
        self._found: list[_Ranked] = []
        self._last_rank: int | None = None
        self.left_out = 0
        self.started_s = time.monotonic()

    @property
    def kept(self) -> int:
        """How many files it holds now."""
        return len(self._found)

    def add(self, folder: str) -> None:
        """List a folder too."""
        if folder not in self._folders:
            self._folders.append(folder)

    def go_on(self, leave_out: Container[str], unknown: Callable[[list[Seen]], list[Seen]]) -> bool:
        """List a few files more.

        Parameters
        ----------
        leave_out : container of str
            Paths that are not wanted.
        unknown : callable
            Given a batch of files, returns those that have no record yet.

        Returns
        -------
        bool
            False once everything has been listed.

        Raises
        ------
        SourceGoneError
            If the inbox cannot be listed, or does not answer. This pass is over then.
        """
        seen, is_over = ask_inbox(self._inbox, self._timeout_s, "list", self._slice)
        batch = []
        for path, stamp in seen:
            if path not in leave_out:
                if self._last_rank is not None and stamp.rank(self._order) > self._last_rank:
                    self.left_out += 1
                else:
                    batch.append((path, stamp))
        if batch:
            self._found.extend(_Ranked(stamp.rank(self._order), path, stamp) for path, stamp in unknown(batch))
        if len(self._found) >= self._limit + self._limit // SLACK:
            self._drop_last()
        return not is_over

    def take_found(self) -> list[Seen]:
        """Hand over the files found so far, as many as are wanted, and forget them."""
        self._drop_last()
        found, self._found = self._found, []
        return [(each.path, each.stamp) for each in found]

    def _slice(self) -> tuple[list[Seen], bool]:
        """List a few files; tell whether they were the last."""
        until_s = time.monotonic() + _SLICE_S
        seen: list[Seen] = []
        while len(seen) < BATCH_FILES:
            each = next(self._files, None)
            if each is not None:
                seen.append(each)
            elif self._folders:
                self._files = scan_folder(self._inbox, self._rule, self._folders.pop(), self._unreadable)
            else:
                return seen, True
            if len(seen) % _LOOKS_PER_TIME_CHECK == 0 and time.monotonic() > until_s:
                break
        return seen, False

    def _drop_last(self) -> None:
        """Keep the wanted number of files. What is behind the last of them need not even be asked for: the next pass comes anyway."""
        self._found.sort()
        if len(self._found) > self._limit:
            self.left_out += len(self._found) - self._limit
            del self._found[self._limit :]
            self._last_rank = self._found[-1].rank
