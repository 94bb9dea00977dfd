"""What an agent is doing, in one small file of the home folder, which ``edge-agent status`` and ``doctor`` read."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

PAGE_BYTES = 4096
"""The file's fixed size. It is made once and then overwritten in place, which works on a full disk too."""

Doing = Literal["starting", "working", "waiting", "stopping"]


class AgentState(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's state.

    ``code`` names what a "waiting" agent waits for: ``low_space``, ``disk_full``, ``read_only``, ``database_locked``, ``storage_error`` or
    ``inbox_away``; else it is empty. ``message`` is for the technician and names the next step. ``since`` is when this state began.
    """

    pid: int
    doing: Doing
    code: str = ""
    message: str = ""
    since: datetime


def state_path(state: Path) -> Path:
    """Give the path of the state file below ``HOME/state``."""
    return state / "agent.state"


def read_state(state: Path) -> AgentState | None:
    """Read what the agent of a home folder last said; None where nothing readable is there.

    It is news only while that agent runs: compare ``pid`` with :func:`edge_agent.agent.home_lock.lock_holder`.
    """
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(state_path(state).read_bytes().rstrip(b"\0 \n"), type=AgentState)
    return None


class StateFile:
    """Writes :class:`AgentState` in place.

    A state that cannot be written is not worth stopping for: on a read-only disk ``edge-agent status`` sees the disk itself.

    Parameters
    ----------
    state : Path
        ``HOME/state``, which must exist.
    """

    def __init__(self, state: Path) -> None:
        self._path = state_path(state)
        self._shown: tuple[Doing, str, str] | None = None

    def show(self, doing: Doing, code: str = "", message: str = "") -> bool:
        """Write a state; one that stands there already is left alone.

        Returns
        -------
        bool
            Whether it is news.
        """
        if self._shown == (doing, code, message):
            return False
        self._shown = (doing, code, message)
        said = AgentState(pid=os.getpid(), doing=doing, code=code, message=message[:2000], since=datetime.now(UTC))
        page = msgspec.json.encode(said).ljust(PAGE_BYTES, b" ")[:PAGE_BYTES]
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.pwrite(descriptor, page, 0)
            finally:
                os.close(descriptor)
        return True
