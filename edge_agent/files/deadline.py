"""Questions to a file system that may never be answered.

A dead server holds up its caller, and nothing in Python can interrupt the wait. So a thread asks, and the caller waits for that thread
until a deadline. A question that still waits for its answer is not asked again: it costs one thread, however long it takes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Hashable
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


class _Question(threading.Thread):
    def __init__(self, ask: Callable[[], Any]) -> None:
        super().__init__(name="question", daemon=True)
        self._ask = ask
        self._answer: Any = None
        self._fault: OSError | EdgeAgentError | None = None

    def run(self) -> None:
        try:
            self._answer = self._ask()
        except (OSError, EdgeAgentError) as fault:
            self._fault = fault

    def answer(self) -> Any:
        if self._fault is not None:
            raise self._fault
        return self._answer


_unanswered: dict[Hashable, _Question] = {}


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
        earlier.join(min(timeout_s, _ASK_AGAIN_S))
        if earlier.is_alive():
            raise NoAnswerError
        _unanswered.pop(about, None)  # its answer is old
    question = _Question(ask)
    question.start()
    question.join(timeout_s)
    if question.is_alive():
        _unanswered[about] = question
        raise NoAnswerError
    answer: _Answer = question.answer()
    return answer


def real_path(path: Path, timeout_s: float = RESOLVE_S) -> Path:
    """Resolve the symbolic links of a path; where what it leads to does not answer, give it as it is, but absolute."""
    try:
        return Path(ask_within(timeout_s, ("real path", path), lambda: os.path.realpath(path)))
    except NoAnswerError:
        return path.absolute()
