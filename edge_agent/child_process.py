"""A Python module in a process of its own: a crash or a hang takes nothing else with it. How it ended is described in words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import IO, Self

_KEPT_BYTES = 65536
"""How much of the end of a child's standard error is read."""


@dataclass(frozen=True)
class ChildExit:
    """How a child process ended.

    Attributes
    ----------
    exit_code : int or None
        Negative where a signal killed it, as :mod:`subprocess` and :mod:`multiprocessing` give it. None where it had not ended in time and
        was killed.
    last_line : str
        The last line that it wrote to standard error; empty where it wrote nothing.
    timeout_s : float
        How long it was waited for.
    """

    exit_code: int | None
    last_line: str = ""
    timeout_s: float = 0.0

    @property
    def signal_name(self) -> str:
        """The signal that killed it, such as ``SIGSEGV``; empty where it ended by itself or was killed for being late."""
        if self.exit_code is None or self.exit_code >= 0:
            return ""
        try:
            return signal.Signals(-self.exit_code).name
        except ValueError:  # one of the real-time signals, most of which have no name
            return f"signal {-self.exit_code}"

    def __str__(self) -> str:
        """Say it in words that follow a subject, such as ``was killed by SIGSEGV``."""
        if self.exit_code is None:
            return f"did not end within {self.timeout_s:g} s"
        if self.signal_name:
            return f"was killed by {self.signal_name}"
        return f"ended with exit code {self.exit_code}: {self.last_line or 'it wrote nothing'}"


class PythonChild:
    """``python -m MODULE`` in a new process. Use it as a context manager: a child that still runs at its end is killed.

    The child gets a process group of its own, so that its own children are killed with it; Ctrl-C in the terminal does not reach it. Its
    standard output is dropped, because model runtimes print on it as they like. What it reads and writes is kept in memory: the disk may be
    full.

    Parameters
    ----------
    module : str
        Its full name.
    *arguments : str
        Its arguments.
    given : bytes
        What it reads from standard input.
    answers : bool
        Whether it writes an answer to a file descriptor, whose number it gets as its last argument.

    Raises
    ------
    OSError
        If Python cannot be started.
    """

    def __init__(self, module: str, *arguments: str, given: bytes = b"", answers: bool = False) -> None:
        with ExitStack() as files, _memory_file() as stdin:
            self._stderr = files.enter_context(_memory_file())
            self._answer = files.enter_context(_memory_file())
            stdin.write(given)
            stdin.seek(0)
            passed = [self._answer.fileno()] if answers else []
            # -P: Python would look for modules in the current folder first, which may be the stick that a model came on.
            command = [sys.executable, "-P", "-m", module, *arguments, *map(str, passed)]
            self._process = subprocess.Popen(  # noqa: S603  the arguments are ours
                command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=self._stderr, pass_fds=passed, process_group=0
            )
            self._files = files.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill it where it still runs, and forget what it wrote."""
        self._kill()
        self._files.close()

    @property
    def pid(self) -> int:
        """Its process, which leads its process group."""
        return self._process.pid

    @property
    def answer(self) -> bytes:
        """What it has written to the descriptor of its answer so far."""
        return _end_of(self._answer)

    @property
    def last_line(self) -> str:
        """The last line that it has written to standard error so far; empty where there is none."""
        lines = _end_of(self._stderr, _KEPT_BYTES).decode("utf-8", "replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def poll(self) -> ChildExit | None:
        """Give how it ended; None while it runs."""
        code = self._process.poll()
        return None if code is None else ChildExit(code, self.last_line)

    def wait(self, timeout_s: float) -> ChildExit:
        """Wait for its end. A child that has not ended after ``timeout_s`` is killed."""
        try:
            return ChildExit(self._process.wait(timeout_s), self.last_line, timeout_s)
        except subprocess.TimeoutExpired:
            self._kill()
            return ChildExit(None, self.last_line, timeout_s)

    def terminate(self, timeout_s: float) -> ChildExit:
        """Ask it to end by SIGTERM, and wait for its end."""
        self._process.terminate()
        return self.wait(timeout_s)

    def _kill(self) -> None:
        # Only before its number is given back to the system, where it might name somebody else's group.
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _memory_file() -> IO[bytes]:
    return os.fdopen(os.memfd_create("child"), "w+b", buffering=0)


def _end_of(file: IO[bytes], most_bytes: int | None = None) -> bytes:
    """Read without a seek: the child writes at the same position."""
    size_bytes = os.fstat(file.fileno()).st_size
    start = 0 if most_bytes is None else max(0, size_bytes - most_bytes)
    return os.pread(file.fileno(), size_bytes - start, start)
