"""What the agent shows of itself: the state file, systemd, the counts, and the events for people."""

from __future__ import annotations

import logging
import time
from collections import Counter
from pathlib import Path

from edge_agent.agent.timings import Timings
from edge_agent.records import ModelIdentity, Record
from edge_agent.surfaces import systemd
from edge_agent.surfaces.state import StateFile

_log = logging.getLogger(__name__)

START_STEP_TIMEOUT_S = 60.0
"""How long one step of a start may take: the slowest is a disk that does not answer for a while."""


class StatusReporter:
    """Shows what the agent does. It lives as long as the agent; each session gets it.

    Parameters
    ----------
    state : Path
        ``HOME/state``; nothing is written before the first state is shown.
    timings : Timings
        How often to report.

    Attributes
    ----------
    counts : Counter
        Records entered by this run: by status, by decision, and as "duplicate".
    is_ready : bool
        Whether systemd has learned that the start is over.
    """

    def __init__(self, state: Path, timings: Timings) -> None:
        self._state_file = StateFile(state)
        self._timings = timings
        self.counts: Counter[str] = Counter()
        self.is_ready = False
        self._model: ModelIdentity | None = None
        self._events: list[tuple[str, str]] = []
        self._is_inbox_away = False
        self._start_reported_at_s = 0.0

    @property
    def heartbeat_interval_s(self) -> float:
        """How often :meth:`alive` should be called."""
        return min(self._timings.heartbeat_s, systemd.watchdog_interval_s() or self._timings.heartbeat_s)

    # Events

    def add_event(self, code: str, message: str) -> None:
        """Add an event that the next session writes to the database; ``edge-agent status`` shows it."""
        self._events.append((code, message))

    def take_events(self) -> list[tuple[str, str]]:
        """Take the events that were added, in their order."""
        events, self._events = self._events, []
        return events

    # Start and stop

    def starting(self) -> None:
        """Show that the agent starts."""
        self._state_file.show("starting")

    def begin_session(self) -> None:
        """Note that a session begins to start: how long that takes is counted from now."""
        self._start_reported_at_s = time.monotonic()

    def start_goes_on(self) -> None:
        """Report, now and then, that a long start goes on; call it many times a second."""
        now_s = time.monotonic()
        if now_s >= self._start_reported_at_s + self._timings.start_report_s:
            self._start_reported_at_s = now_s
            systemd.notify_starting(START_STEP_TIMEOUT_S)
            systemd.notify_status("starting: looking through the database and the results")

    def started(self, model: ModelIdentity, inbox: Path) -> None:
        """Report that a session works: its model is loaded and its inbox is watched."""
        if self._is_inbox_away:
            self._is_inbox_away = False
            self.add_event("inbox_back", f"The inbox {inbox} is back, and work goes on.")
        self._model = model
        self._notify_ready()
        self.working()

    def notify_stopping(self) -> None:
        """Tell systemd that the agent was asked to stop and will exit."""
        systemd.notify_stopping()

    def stopping(self) -> None:
        """Show that the agent ends."""
        self._state_file.show("stopping")

    # Work

    def alive(self) -> None:
        """Report progress to systemd's watchdog."""
        systemd.notify_watchdog()

    def working(self, waiting: int | None = None) -> None:
        """Show that work goes on, and how many images wait, where that is known."""
        self._state_file.show("working")
        waiting_part = "" if waiting is None else f", {waiting} waiting"
        model_part = f"; model {self._model.name} {self._model.version}" if self._model else ""
        systemd.notify_status(f"{self.counts['done']} done, {self.counts['rejected']} rejected{waiting_part}{model_part}")

    def waiting(self, code: str, message: str) -> None:
        """Show that no image is taken, and why."""
        if self._state_file.show("waiting", code, message):
            _log.warning("waiting code=%s reason=%s", code, message)
        systemd.notify_status(f"waiting: {message}")

    def waiting_between_sessions(self, code: str, message: str) -> None:
        """Show that no session runs, and why."""
        if code == "inbox_away" and not self._is_inbox_away:
            self._is_inbox_away = True
            self.add_event("inbox_away", message)
        self.waiting(code, message)
        if not self.is_ready:
            self._notify_ready()  # it waits by design: systemd must not take it for a start that hangs

    def count(self, record: Record) -> None:
        """Count a record that was entered."""
        labels = (record.status, record.decision, "duplicate" if record.duplicate_of else None)
        self.counts.update(label for label in labels if label)

    # Reload

    def reloading(self) -> None:
        """Report that the configuration is read again."""
        systemd.notify_reloading()

    def reloaded(self) -> None:
        """Report that the new configuration counts."""
        systemd.notify_ready()

    def reload_refused(self, reason: str) -> None:
        """Report that the new configuration was refused; work goes on with the old one."""
        systemd.notify_ready()
        systemd.notify_status(f"the changed configuration was refused: {reason}")

    def _notify_ready(self) -> None:
        self.is_ready = True
        systemd.notify_ready()
