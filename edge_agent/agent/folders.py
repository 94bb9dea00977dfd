"""The folders that a session works in, made where they are the agent's own and checked where they are not; and their free space."""

from __future__ import annotations

import os
import time
from pathlib import Path

from edge_agent.config import WRITTEN_FOLDERS, Config
from edge_agent.errors import ConfigError, SourceGoneError
from edge_agent.files.atomic import storage_error
from edge_agent.files.mounts import Mount
from edge_agent.intake.presence import check_present

MOUNT_NOTE = "inbox_mount"
"""The database's note of the file system that the inbox was last on."""


def make_folders(config: Config, *, is_new: bool) -> None:
    """Make the missing folders of a home. The inbox is made only in a new home: later, a missing inbox may be a share that is away.

    Raises
    ------
    StorageError
        If a folder cannot be made.
    """
    for name in (*WRITTEN_FOLDERS, "inbox") if is_new and config.intake.inbox is None else WRITTEN_FOLDERS:
        try:
            (config.home / name).mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise storage_error(fault, f"make the folder {config.home / name}") from fault


def check_inbox(inbox: Path, expected: Mount | None, *, leaves: bool) -> Mount:
    """Check that the inbox is there and can be used.

    Parameters
    ----------
    inbox : Path
        Absolute, without symbolic links.
    expected : Mount or None
        Its file system when it was last in use. None if it never was: then a fault is a mistake in the configuration, and not transient.
    leaves : bool
        Whether images leave the inbox, so that it must be writable.

    Returns
    -------
    Mount
        Its file system.

    Raises
    ------
    ConfigError, SourceGoneError
        If it cannot be used.
    """
    if expected is None and not inbox.exists():
        raise SourceGoneError(f"the inbox {inbox} does not exist: create it, mount its disk, or name another with --inbox")
    if expected is None and not inbox.is_dir():
        raise ConfigError(f"the inbox {inbox} is not a folder: name a folder with --inbox")
    mount = check_present(inbox, expected)
    if os.access(inbox, os.R_OK | os.X_OK | (os.W_OK if leaves else 0)):
        return mount
    advice = (
        f"the inbox {inbox} is not writable for the agent, so that images cannot be moved out of it: "
        'give the agent\'s user write access to the folder, or set [intake] on_done = "keep"'
    )
    raise ConfigError(advice) if expected is None else SourceGoneError(f"{advice}; work goes on by itself then")


class Watermark:
    """Tells whether enough space is free to take images.

    Parameters
    ----------
    home : Path
        As for :func:`free_space`.
    least_bytes : int
        What must stay free; 0 is no limit.
    look_s : float
        How long a measurement stays valid, in seconds.

    Attributes
    ----------
    is_short : bool
        Whether the last measurement found too little.
    next_look_s : float
        The monotonic time from which the measurement is out of date.
    """

    def __init__(self, home: Path, least_bytes: int, look_s: float) -> None:
        self._home = home
        self._least_bytes = least_bytes
        self._look_s = look_s
        self.is_short = False
        self.next_look_s = 0.0

    @property
    def is_due(self) -> bool:
        """Whether it is time to measure."""
        return self._least_bytes > 0 and time.monotonic() >= self.next_look_s

    @property
    def message(self) -> str:
        """What is wrong and what to do; always the same text, so that it is reported once."""
        return (
            f"less than {self._least_bytes / 1e6:,.0f} MB are free on a disk of {self._home}, so no image is taken: free some space; "
            "the agent then goes on by itself, and every image stays where it is"
        )

    def look(self) -> bool:
        """Measure; tell whether there is enough.

        Raises
        ------
        StorageError
            As :func:`free_space`.
        """
        self.next_look_s = time.monotonic() + self._look_s
        self.is_short = free_space(self._home) < self._least_bytes
        return not self.is_short


def free_space(home: Path) -> int:
    """Give the free bytes of the fullest file system that the agent writes to; each folder of the home may be a file system of its own.

    Parameters
    ----------
    home : Path
        Existing; a folder that is missing below it will be made on its file system.

    Returns
    -------
    int
        What a program without special rights may still use.

    Raises
    ------
    StorageError
        If the home cannot be looked at.
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
