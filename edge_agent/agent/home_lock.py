"""One agent for one home folder."""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from edge_agent.errors import ReadOnlyError, StorageError
from edge_agent.files.atomic import storage_error

_WAIT_S = 0.5
"""How long to wait for the lock: ``edge-agent status`` holds it for a moment to see whether an agent does."""


class HomeLock:
    """Holds ``HOME/state/agent.lock`` for as long as this process lives; the system lets go of it however the process ends.

    On a disk that is mounted read-only the lock works too, but our process number cannot be written; :meth:`sign` tries again.

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
        self._path = lock_path(state)
        self._descriptor = _open(self._path)
        self._is_signed = False
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
            self.sign()
        except ReadOnlyError:
            pass
        except StorageError:
            os.close(self._descriptor)
            raise

    def sign(self) -> None:
        """Write the number of this process into the lock file, once.

        Raises
        ------
        StorageError
            If it cannot be written.
        """
        if self._is_signed:
            return
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
            try:
                length = os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                os.ftruncate(descriptor, length)
            finally:
                os.close(descriptor)
        except OSError as fault:
            raise storage_error(fault, f"write {self._path}") from fault
        self._is_signed = True

    def release(self) -> None:
        """Release the lock. The file stays: if it were removed, two agents could lock two files of the same name."""
        os.close(self._descriptor)


def lock_path(state: Path) -> Path:
    """Give the path of the lock file."""
    return state / "agent.lock"


def lock_holder(state: Path) -> int | None:
    """Give the number of the process that runs an agent on a home folder; 0 if it could not be read, None if none runs."""
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


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as fault:
        error = storage_error(fault, f"open {path}")
        if isinstance(error, ReadOnlyError):
            with suppress(FileNotFoundError):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raise error from fault


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_holder(descriptor: int) -> int:
    text = os.pread(descriptor, 32, 0).strip()
    pid = int(text) if text.isdigit() else 0
    is_read_only = os.fstatvfs(descriptor).f_flag & os.ST_RDONLY
    # There an agent cannot write its number: the file may hold that of an earlier one.
    return 0 if is_read_only and not Path(f"/proc/{pid}").exists() else pid
