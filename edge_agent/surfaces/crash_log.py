"""The stacks of a process that a signal killed: for the next start, and for the person who looks for the fault."""

from __future__ import annotations

import faulthandler
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, Self

CRASH_NAME = "crash.txt"
KEPT_NAME = "crash-last.txt"


class CrashLog:
    """Lets Python write into ``HOME/state/crash.txt`` when a codec kills the process (SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT).

    systemd's watchdog ends a stuck agent by SIGABRT, so that this tells too where it was stuck. ``kill -9``, a lack of memory and a power
    cut leave nothing. The file holds function names and lines of code; no image and no name of one.

    Parameters
    ----------
    state : Path
        ``HOME/state``, which must exist; nobody else works on it.

    Attributes
    ----------
    last : str
        What the last run left, empty where it did not die so. The text is kept as ``crash-last.txt``.

    References
    ----------
    Python's ``faulthandler``.
    """

    def __init__(self, state: Path) -> None:
        self._path = state / CRASH_NAME
        self._file: IO[bytes] | None = None
        self.last = ""
        with suppress(OSError):
            self.last = self._path.read_bytes().decode("utf-8", "replace").strip()
            if self.last:
                self._path.replace(state / KEPT_NAME)

    def __enter__(self) -> Self:
        self._was_enabled = faulthandler.is_enabled()
        self.begin()
        return self

    def begin(self) -> None:
        """Open the file, unless it is open; where the disk is read-only now, call this again later."""
        if self._file is None:
            with suppress(OSError):  # the agent has more to say about that than this file
                self._file = self._path.open("wb", buffering=0)
                faulthandler.enable(self._file)

    def __exit__(self, *_: object) -> None:
        if self._file is None:
            return
        faulthandler.disable()
        if self._was_enabled and sys.__stderr__ is not None:
            faulthandler.enable(sys.__stderr__)
        self._file.close()
        with suppress(OSError):
            if self._path.stat().st_size == 0:
                self._path.unlink()

    def was_in(self, module: str) -> bool:
        """Tell whether the thread that the last run died of stood in a module, such as ``inference/interpreter.py``."""
        _, _, stack = self.last.partition("Current thread ")
        return module in stack.partition("\n\n")[0]

    def note(self, text: str) -> None:
        """Write down why the process is about to end by a fault of its own, for the count of what was in hand."""
        if self._file is not None:
            with suppress(OSError):
                os.write(self._file.fileno(), f"{text}\n".encode())

    def clear(self) -> None:
        """Take back what was noted: the process goes on after all."""
        if self._file is not None:
            with suppress(OSError):
                self._file.seek(0)
                self._file.truncate()
