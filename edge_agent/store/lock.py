"""One agent for one home folder."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from edge_agent.errors import StorageError
from edge_agent.intake.placing import storage_error

_WAIT_S = 0.5
# For `edge-agent status`, which holds the lock for a moment when it looks whether anybody does.


class HomeLock:
    """Holds ``HOME/state/agent.lock`` for as long as this process lives; the system lets go of it however the process ends.

    Parameters
    ----------
    state : Path
        ``HOME/state``, which must exist.

    Raises
    ------
    StorageError
        If another agent holds it; the message names its process.
    """

    def __init__(self, state: Path) -> None:
        path = lock_path(state)
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as fault:
            raise storage_error(fault, f"open {path}") from fault
        deadline_s = time.monotonic() + _WAIT_S
        while not _try_lock(self._descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline_s:
                holder = _read_holder(self._descriptor)
                os.close(self._descriptor)
                raise StorageError(
                    f"another agent (process {holder or 'unknown'}) works on the home folder {state.parent}: "
                    "stop that one, or give this one a home folder of its own with --home"
                )
            time.sleep(0.02)
        try:
            length = os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
            os.ftruncate(self._descriptor, length)
        except OSError as fault:
            os.close(self._descriptor)
            raise storage_error(fault, f"write {path}") from fault

    def release(self) -> None:
        """Let the next agent in. The file stays: removing it would let two agents lock two files of the same name."""
        os.close(self._descriptor)


def lock_path(state: Path) -> Path:
    """Give the path of the lock file."""
    return state / "agent.lock"


def lock_holder(state: Path) -> int | None:
    """Tell which process runs an agent on a home folder: its number, 0 where it could not be read, None where none runs."""
    try:
        descriptor = os.open(lock_path(state), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as fault:
        raise storage_error(fault, f"read {lock_path(state)}") from fault
    try:
        return None if _try_lock(descriptor, fcntl.LOCK_SH) else _read_holder(descriptor)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_holder(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).strip()
    return int(text) if text.isdigit() else 0
