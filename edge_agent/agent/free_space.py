"""How much room is left where the agent writes."""

from __future__ import annotations

import os
import time
from pathlib import Path

from edge_agent.config import WRITTEN_FOLDERS
from edge_agent.files.atomic import storage_error

LOOK_S = 1.0
"""So long what was found is believed."""


class Watermark:
    """Tells whether so much is free that images may be taken.

    Parameters
    ----------
    home : Path
        As for :func:`free_space`.
    least_bytes : int
        What is to stay free; 0 is no limit.

    Attributes
    ----------
    is_short : bool
        What the last look found.
    next_look_s : float
        The monotonic time from which it is worth looking again.
    """

    def __init__(self, home: Path, least_bytes: int) -> None:
        self._home = home
        self._least_bytes = least_bytes
        self.is_short = False
        self.next_look_s = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is time to look."""
        return self._least_bytes > 0 and time.monotonic() >= self.next_look_s

    @property
    def message(self) -> str:
        """What is wrong where it is short, and what to do; always the same words, so that it is news only once."""
        return (
            f"less than {self._least_bytes / 1e6:,.0f} MB are free on a disk of {self._home}, so no image is taken: free some space; "
            "the agent then goes on by itself, and every image stays where it is"
        )

    def look(self) -> bool:
        """Look; tell whether there is room.

        Raises
        ------
        StorageError
            As :func:`free_space`.
        """
        self.next_look_s = time.monotonic() + LOOK_S
        self.is_short = free_space(self._home) < self._least_bytes
        return not self.is_short


def free_space(home: Path) -> int:
    """Give the free bytes of the fullest file system that the agent writes to: each folder of the home may be one of its own.

    Parameters
    ----------
    home : Path
        Existing; a folder below it that is not there is made on the home's own file system.

    Returns
    -------
    int
        What a program without special rights may still use.

    Raises
    ------
    StorageError
        If the home can not be looked at.
    """
    found = []
    for folder in (home, *(home / name for name in WRITTEN_FOLDERS)):
        try:
            space = os.statvfs(folder)
        except OSError as fault:
            if folder != home and isinstance(fault, FileNotFoundError):
                continue
            raise storage_error(fault, f"look at {folder}") from fault
        found.append(space.f_bavail * space.f_frsize)
    return min(found)
