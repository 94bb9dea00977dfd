"""The configuration that the agent runs with, read again on request, and left for the one before where no session starts with it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

from edge_agent.agent.status_reporter import StatusReporter
from edge_agent.config import Config
from edge_agent.errors import EdgeAgentError, SourceGoneError, StorageError

_log = logging.getLogger(__name__)


class ActiveConfig:
    """Holds the configuration for the sessions of one agent.

    Parameters
    ----------
    config : Config
        The first one.
    read : callable, optional
        Reads it again; raises ConfigError where it is wrong. Without it, the first one stays.
    status : StatusReporter
        Where a new or refused configuration is reported.

    Attributes
    ----------
    current : Config
        For the next session.
    """

    def __init__(self, config: Config, read: Callable[[], Config] | None, status: StatusReporter) -> None:
        self.current = config
        self._read = read
        self._status = status
        self._home = config.home.resolve()
        # The last one that a session started with, while no session has started with the current one.
        self._last_good: Config | None = None
        # A queue, because a signal handler may put into it while this very thread waits at it.
        self._requests: SimpleQueue[None] = SimpleQueue()

    def request(self) -> None:
        """Ask for :meth:`reread`, from any thread or a signal handler. It ends a :meth:`wait_for_request`."""
        self._requests.put(None)

    @property
    def is_requested(self) -> bool:
        """Whether somebody has asked since the last :meth:`reread`."""
        return not self._requests.empty()

    def wait_for_request(self, timeout_s: float) -> bool:
        """Wait until somebody asks; False where nobody did in time."""
        with suppress(Empty):
            self._requests.get(timeout=timeout_s)
            return True
        return False

    def reread(self) -> bool:
        """Read the configuration again, which answers all requests so far; tell whether a new session should begin with it."""
        with suppress(Empty):
            while True:
                self._requests.get_nowait()
        if self._read is None:
            return False
        self._status.reloading()
        try:
            config = self._read()
            if config.home.resolve() != self._home:
                raise EdgeAgentError(f"the home folder cannot change while the agent runs (now {self._home}): restart the agent for that")
        except EdgeAgentError as fault:
            self._report_refusal(fault)
            self._status.reload_refused(str(fault))
            return False
        _log.info("reloaded changed=%s", config != self.current)
        if config != self.current:
            good = self._last_good or self.current  # one that has never run is not returned to
            self._last_good = good if good != config else None
            self.current = config
        logging.getLogger("edge_agent").setLevel(config.log.level.upper())
        self._status.reloaded()
        return True

    def confirm(self) -> None:
        """Note that a session has started with the current configuration."""
        self._last_good = None

    def go_back(self, fault: EdgeAgentError) -> bool:
        """Return to the configuration before if no session could start because of the current one; tell whether that was so."""
        before = self._last_good
        if before is None or not self._is_to_blame(fault, before):
            return False
        self._report_refusal(fault)
        self.current, self._last_good = before, None
        return True

    def _is_to_blame(self, fault: EdgeAgentError, before: Config) -> bool:
        """Tell whether the configuration before would not have met with this fault: otherwise a return to it mends nothing."""
        if isinstance(fault, SourceGoneError):
            return before.inbox != self.current.inbox
        return not isinstance(fault, StorageError)

    def _report_refusal(self, fault: EdgeAgentError) -> None:
        _log.error("reload_refused reason=%s", fault)
        message = f"The changed configuration cannot be used, so the agent goes on with the one before: {fault}"
        self._status.add_event("reload_refused", message)
