"""How much room is left where the agent writes."""

from __future__ import annotations

import os
from pathlib import Path

from edge_agent.config import WRITTEN_FOLDERS
from edge_agent.intake.placing import storage_error


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
