"""What other threads and signal handlers put into the queue of a session's main loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Literal

from edge_agent.agent.worker import Outcome
from edge_agent.outbox.results import Mark


@dataclass(frozen=True)
class Request:
    """Somebody asks the session to stop, or to read the configuration again."""

    kind: Literal["stop", "reload"]


@dataclass(frozen=True)
class LookAgain:
    """Events were lost: only a scan shows what is in the inbox."""


Message = str | Outcome | Mark | Exception | Request | LookAgain
"""A path where something happened, a worker's outcome, a finished sync, a fault of another thread, a request, or lost events."""


class MessageQueue:
    """Takes messages from any thread, also from a signal handler, for the one that waits."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[Message] = SimpleQueue()

    def put(self, message: Message) -> None:
        """Leave a message."""
        self._queue.put(message)

    def take(self, timeout_s: float) -> Iterator[Message]:
        """Wait for a message, at most ``timeout_s``; then give all that are there, so that they are handled together."""
        with suppress(Empty):
            yield self._queue.get(timeout=timeout_s)
            while True:
                yield self._queue.get_nowait()


Ending = Literal["stop", "reload", "finished"]
"""Why a session ended without a fault: on request, because of another configuration or model, or (``once``) because nothing is left."""
