"""Questions to a file system that may never be answered.

A dead server holds up its caller, and nothing in Python can interrupt the wait. So a thread asks, and the caller waits for that thread
until a deadline. A question that still waits for its answer is not asked again: it costs one thread, however long it takes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, TypeVar

from edge_agent.errors import EdgeAgentError

_Answer = TypeVar("_Answer")

RESOLVE_S = 5.0
"""How long the links of a path may take to resolve."""
_ASK_AGAIN_S = 1.0
"""The longest wait for an answer that did not come the last time."""


class NoAnswerError(Exception):
    """Nobody answered in time."""


_unanswered: dict[Hashable, Future[Any]] = {}


def ask_within(timeout_s: float, about: Hashable, ask: Callable[[], _Answer]) -> _Answer:
    """Ask a question that may never be answered.

    Parameters
    ----------
    timeout_s : float
        How long to wait for the answer.
    about : hashable
        What the question is: two with the same are one.
    ask : callable
        Asks it, in another thread.

    Returns
    -------
    object
        What ``ask`` returns.

    Raises
    ------
    NoAnswerError
        If it takes longer. The thread goes on waiting.
    OSError, EdgeAgentError
        If ``ask`` does. It must not raise anything else.
    """
    earlier = _unanswered.get(about)
    if earlier is not None:
        wait([earlier], min(timeout_s, _ASK_AGAIN_S))
        if not earlier.done():
            raise NoAnswerError
        _unanswered.pop(about, None)  # its answer is old
    answer: Future[_Answer] = Future()
    threading.Thread(target=_answer, args=(answer, ask), name="question", daemon=True).start()
    wait([answer], timeout_s)
    if not answer.done():
        _unanswered[about] = answer
        raise NoAnswerError
    return answer.result()


def real_path(path: Path, timeout_s: float = RESOLVE_S) -> Path:
    """Resolve the symbolic links of a path; where what it leads to does not answer, give it as it is, but absolute."""
    try:
        return Path(ask_within(timeout_s, ("real path", path), lambda: os.path.realpath(path)))
    except NoAnswerError:
        return path.absolute()


def _answer(answer: Future[_Answer], ask: Callable[[], _Answer]) -> None:
    try:
        answer.set_result(ask())
    except (OSError, EdgeAgentError) as fault:
        answer.set_exception(fault)
