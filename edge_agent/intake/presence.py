"""Whether the inbox is there: the very file system on which it stood, mounted and answering.

A share that is not mounted leaves its mount point behind, an empty folder like any other. Taken for an empty inbox it would be a silent
stop, and an image that waits to be moved would seem to have been taken away. So the agent remembers what the inbox stood on.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edge_agent.errors import SourceGoneError
from edge_agent.files.deadline import NoAnswerError, ask_within
from edge_agent.files.mounts import Mount, mount_of_open

_Answer = TypeVar("_Answer")

AWAY_ERRNOS = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM, errno.EREMOTEIO, errno.ETIMEDOUT),
        *(errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.ESHUTDOWN),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    }
)
"""What the kernel says when a disk was pulled or a server does not answer; a healthy file system says none of it."""
ANSWER_S = 10.0
"""How long to wait for an answer of the inbox: well below the time after which systemd's watchdog ends the agent."""


def check_present(inbox: Path, expected: Mount | None, *, answer_s: float | None = None) -> Mount:
    """Check that the inbox is there, can be listed, and is on the same file system as before.

    A server that died may never answer, so the inbox is asked with a deadline: see :func:`edge_agent.files.deadline.ask_within`.

    Parameters
    ----------
    inbox : Path
        Absolute, without symbolic links.
    expected : Mount or None
        What it stood on when it was last in use; None where that is not known.
    answer_s : float, optional
        How long to wait for its answer; :data:`ANSWER_S` where not given.

    Returns
    -------
    Mount
        What it stands on now.

    Raises
    ------
    SourceGoneError
        If the folder is missing, is no folder, cannot be listed or does not answer, if its disk was pulled, or if the mount on which it
        stood is not there any more.
    """
    try:
        found = ask_inbox(inbox, ANSWER_S if answer_s is None else answer_s, "look", lambda: _look_at(inbox))
    except OSError as fault:
        raise source_gone(inbox, _reason(fault)) from fault
    if found.is_pulled:
        raise source_gone(inbox, "its disk was pulled out")
    if expected is not None:
        is_shorter = len(found.point) < len(expected.point) and Path(expected.point).is_relative_to(found.point)
        if is_shorter or (found.kind == "autofs" and expected.kind != "autofs"):
            raise source_gone(inbox, f"{expected.source or expected.kind} is not mounted on {expected.point}")
    return found


def ask_inbox(inbox: Path, timeout_s: float | None, question: str, ask: Callable[[], _Answer]) -> _Answer:
    """Ask the file system of the inbox.

    Parameters
    ----------
    inbox : Path
        The watched folder.
    timeout_s : float or None
        How long to wait for the answer; None for a local disk, which is asked in this thread.
    question : str
        What is asked: see :func:`edge_agent.files.deadline.ask_within`.
    ask : callable
        Asks it.

    Raises
    ------
    SourceGoneError
        If there is no answer in time.
    OSError
        If ``ask`` does.
    """
    if timeout_s is None:
        return ask()
    try:
        return ask_within(timeout_s, (question, inbox), ask)
    except NoAnswerError:
        raise source_gone(inbox, "its disk or server does not answer") from None


def source_gone(inbox: Path, reason: str) -> SourceGoneError:
    """Say that the inbox is away, why, and what to do."""
    return SourceGoneError(
        f"the inbox {inbox} is away ({reason}): plug in or mount its disk or share, or create the folder; "
        "no image is lost, and work goes on when it is back"
    )


def _look_at(inbox: Path) -> Mount:
    descriptor = os.open(inbox, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with os.scandir(descriptor) as entries:
            next(entries, None)
        # A listing may come from the kernel's memory for half a minute after the server died; this question goes to the server.
        os.statvfs(descriptor)
        return mount_of_open(descriptor)
    finally:
        os.close(descriptor)


def _reason(fault: OSError) -> str:
    match fault.errno:
        case errno.ENOENT:
            return "there is no such folder"
        case errno.ENOTDIR | errno.ELOOP:
            return "it is not a folder"
        case errno.EACCES | errno.EPERM:
            return "the agent is not allowed to list it"
        case _:
            return fault.strerror or str(fault)
