"""What other threads and signal handlers tell the main loop of a session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Literal

from edge_agent.agent.worker import Outcome
from edge_agent.outbox.results import Mark


@dataclass(frozen=True)
class EndRequest:
    """Somebody wants the session to end, or to look whether another configuration waits."""

    ending: Ending


@dataclass(frozen=True)
class LookAgain:
    """Events were lost: only a scan can tell what is in the inbox."""


Message = str | Outcome | Mark | Exception | EndRequest | LookAgain
"""A path where something happened, a worker's outcome, a finished sync, a fault of another thread, a wish."""


class MessageQueue:
    """Takes messages from any thread, also from a signal handler, for the one that waits."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Message] = SimpleQueue()

    def put(self, message: Message) -> None:
        """Leave a message."""
        self._queue.put(message)

    def take(self, timeout_s: float) -> Iterator[Message]:
        """Wait so long for a message, then give all that are there: what came together is dealt with together."""
        with suppress(Empty):
            yield self._queue.get(timeout=timeout_s)
            while True:
                yield self._queue.get_nowait()


Ending = Literal["stop", "reload", "finished"]
"""Why a session ended without a fault: somebody asked, another configuration or model waits, or (``once``) nothing is left to do."""
