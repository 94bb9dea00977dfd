"""What the agent and its sessions know of each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol

from edge_agent.agent.classify import SupportsClassify
from edge_agent.config import Config
from edge_agent.records import ModelIdentity

LoadClassifiers = Callable[[Config, int], Sequence[SupportsClassify]]
"""Makes the classifiers that a configuration asks for, one for each worker."""


class Host(Protocol):
    """What a session asks of the agent around it."""

    counts: Counter[str]
    pending_events: list[tuple[str, str]]
    """Events (code, message) that the next commit is to tell; the session empties it."""

    def started(self, model: ModelIdentity) -> None:
        """Hear that the session is ready: the model is loaded and the inbox is watched."""

    def alive(self) -> None:
        """Hear, many times a second, that a long start goes on; raises where it is to be given up for a stop."""

    def working(self, line: str) -> None:
        """Show that work goes on, with a line for people."""

    def waiting(self, code: str, message: str) -> None:
        """Show that no image is taken, and why."""

    def classified(self, model: ModelIdentity) -> None:
        """Hear that an image was classified without a fault, and its record is durable."""

    def failed(self, fault: Exception) -> None:
        """Hear that a worker met a fault of our own with an image in hand."""

    def wants_reload(self, *, asked: bool) -> bool:
        """Tell whether a new session should begin: another model was activated or, where ``asked``, another configuration is good."""
