"""Processes that start in a few milliseconds: forked from one that has everything loaded. What they do is up to the caller.

A test that kills an agent two hundred times would spend its time on Python's start-up otherwise. The loaded process (``serve``) has no
thread, so that forking it is safe; its children die with it.
"""

from __future__ import annotations

import atexit
import ctypes
import io
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

_PR_SET_PDEATHSIG = 1
_REQUEST_MAX_BYTES = 64 * 1024


class ForkedProcess:
    """A child of the loaded process, with as much of :class:`subprocess.Popen` as tests use. Leaving ``with`` on a fault kills it.

    Attributes
    ----------
    pid : int
        Its process number.
    stderr : text file
        What it says; its standard output is thrown away.
    returncode : int or None
        As Popen has it: negative is the signal that ended it.
    """

    def __init__(self, server: socket.socket, request: dict[str, Any]) -> None:
        reading, writing = os.pipe()
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            socket.send_fds(server, [json.dumps(request).encode()], [theirs.fileno(), writing])
        finally:
            theirs.close()
            os.close(writing)
        self.stderr = io.open(reading, encoding="utf-8", errors="replace")  # noqa: SIM115, UP020 - a pipe that lives as long as this
        self.returncode: int | None = None
        self.pid = int(self._line.recv(64))

    def poll(self) -> int | None:
        """Give the exit code; None while it runs."""
        if self.returncode is None:
            self._line.setblocking(False)
            try:
                self._take_code()
            except BlockingIOError:
                pass
            finally:
                self._line.setblocking(True)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises
        ------
        subprocess.TimeoutExpired
            If it does not end in so many seconds.
        """
        if self.returncode is None:
            self._line.settimeout(timeout)
            try:
                self._take_code()
            except TimeoutError:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0) from None
        assert self.returncode is not None
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        """Wait for its end; gives nothing and what it said since the last look.

        Raises
        ------
        subprocess.TimeoutExpired
            If it does not end in so many seconds.
        """
        said: list[str] = []
        reading = threading.Thread(target=lambda: said.append(self.stderr.read()), daemon=True)
        reading.start()  # or a full pipe would hold the child up
        self.wait(timeout)
        reading.join()
        return None, "".join(said)

    def send_signal(self, number: int) -> None:
        """Send a signal; nothing where it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self.send_signal(signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.kill()
        self.wait()
        self.stderr.close()
        self._line.close()

    def _take_code(self) -> None:
        answer = self._line.recv(64)
        if not answer:
            raise RuntimeError("the process that forks agents is gone")
        self.returncode = int(answer)


class ForkServer:
    """Starts the loaded process with the first request; it ends with this one.

    Parameters
    ----------
    script : Path
        Run with the number of a socket as its argument; it calls :func:`serve`.
    """

    def __init__(self, script: Path) -> None:
        self._script = script
        self._server: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, request: dict[str, Any]) -> ForkedProcess:
        """Fork a child for a request."""
        if self._server is None:
            self._server, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                # A session of its own: Ctrl-C in the terminal is for the tests, which end it by ending.
                self._process = subprocess.Popen(
                    [sys.executable, str(self._script), "--serve", str(theirs.fileno())], pass_fds=[theirs.fileno()], start_new_session=True
                )
            atexit.register(self.stop)
        return ForkedProcess(self._server, request)

    def stop(self) -> None:
        """End the loaded process, and with it all that it forked."""
        if self._server is not None and self._process is not None:
            self._server.close()
            self._process.wait()
            self._server = None


def serve(descriptor: int, work: Callable[[dict[str, Any]], int]) -> None:
    """Fork a child for each request that comes, until the other side is gone. ``work`` gives the child's exit code."""
    requests = socket.socket(fileno=descriptor)
    with selectors.DefaultSelector() as selector:
        selector.register(requests, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is requests:
                    content, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_MAX_BYTES, 2)
                    if not content:
                        return
                    line, said = descriptors
                    ended = _fork(line, said, json.loads(content), work)
                    selector.register(ended, selectors.EVENT_READ, (socket.socket(fileno=line), ended))
                else:
                    _report(selector, *key.data)


def _fork(line: int, said: int, request: dict[str, Any], work: Callable[[dict[str, Any]], int]) -> int:
    """Fork; gives a descriptor that becomes readable when the child has ended."""
    pid = os.fork()
    if pid == 0:
        _be_child(line, said, request, work)
    os.close(said)
    os.write(line, str(pid).encode())
    return os.pidfd_open(pid)


def _be_child(line: int, said: int, request: dict[str, Any], work: Callable[[dict[str, Any]], int]) -> None:
    code = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.dup2(said, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.close(said)
        os.close(line)
        code = work(request)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)  # not through the server's own ends


def _report(selector: selectors.BaseSelector, line: socket.socket, ended: int) -> None:
    selector.unregister(ended)
    result = os.waitid(os.P_PIDFD, ended, os.WEXITED)
    os.close(ended)
    assert result is not None
    code = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
    with line:
        try:
            line.send(str(code).encode())
        except OSError:
            return  # nobody waits for it
