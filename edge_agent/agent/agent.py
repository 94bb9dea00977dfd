"""The agent: one session after the other, until somebody asks it to stop or a fault will not pass by itself.

A transient fault (a full disk, an inbox that is away) is shown and waited out. What a person must mend (configuration, model) ends the
agent with its exit code, unless there is an earlier configuration or model that worked: then it goes back to that one, and says so.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType

from edge_agent.agent.active_config import ActiveConfig
from edge_agent.agent.classify import LoadClassifiers, SupportsClassify
from edge_agent.agent.folders import MOUNT_NOTE
from edge_agent.agent.home_lock import HomeLock
from edge_agent.agent.messages import Ending
from edge_agent.agent.session import Session
from edge_agent.agent.status_reporter import StatusReporter
from edge_agent.agent.timings import Timings
from edge_agent.config import Config
from edge_agent.database.database import DATABASE_NAME, Reader
from edge_agent.deployment.model_store import ModelStore, load_configured_bundle
from edge_agent.deployment.probation import ModelProbation
from edge_agent.errors import CameraGoneError, EdgeAgentError, InferenceError, ModelError, SourceGoneError, StorageError
from edge_agent.files.atomic import storage_error
from edge_agent.files.deadline import real_path
from edge_agent.files.mounts import Mount
from edge_agent.surfaces.crash_log import CrashLog

_log = logging.getLogger(__name__)

STEADY_S = 60.0
"""A session that lasted longer, or recorded an image, was not part of the trouble: after it, the next wait is the first again."""
INTERPRETER = "inference/interpreter.py"
"""The module in the stack of a process that a model has crashed."""


def load_classifiers(config: Config, count: int) -> Sequence[SupportsClassify]:
    """Load the configured bundle once, and make a classifier for each worker.

    Raises
    ------
    ModelError
        If the bundle cannot be used.
    """
    from edge_agent.inference.classifier import Classifier

    bundle = load_configured_bundle(config)
    return [Classifier(bundle, num_threads=1) for _ in range(count)]


class Agent:
    """Keeps a folder classified.

    Parameters
    ----------
    config : Config
        Everything it needs to know.
    once : bool
        Process what is in the inbox (and what a video file as camera gives), then end. No fault is waited out.
    load : callable
        Makes the classifiers, one for each worker.
    reread : callable, optional
        Reads the configuration again, for :meth:`reload`; raises ConfigError where it is wrong.
    timings : Timings, optional
        Intervals and limits; those of a box where not given.

    Attributes
    ----------
    counts : Counter
        Records entered by this run: by status, by decision, and as "duplicate".
    session : Session or None
        The one that runs now.
    """

    def __init__(
        self,
        config: Config,
        *,
        once: bool = False,
        load: LoadClassifiers = load_classifiers,
        reread: Callable[[], Config] | None = None,
        timings: Timings | None = None,
    ) -> None:
        self._once = once
        self._load = load
        self._timings = timings or Timings()
        self._home = config.home.resolve()
        self._status = StatusReporter(self._home / "state", self._timings)
        self._config = ActiveConfig(config, reread, self._status)
        self._probation = ModelProbation(ModelStore(self._home), config)
        self.counts = self._status.counts
        self.session: Session | None = None
        self._stop_asked = False
        self._has_started = False
        # Whether the files that the database holds as in hand count as the cause of the last process's end: see Session.start.
        self._blame: bool | None = None

    def run(self) -> None:
        """Run until :meth:`stop`, SIGTERM or SIGINT; with ``once`` until the inbox is empty.

        Raises
        ------
        EdgeAgentError
            For every fault of our own side that does not pass by itself; its exit code says which. No image is lost.
        """
        with ExitStack() as at_exit:
            at_exit.enter_context(self._signals())
            state = self._home / "state"
            try:
                state.mkdir(parents=True, exist_ok=True)
            except OSError as fault:
                raise storage_error(fault, f"make the folder {state}") from fault
            self._lock = HomeLock(state)
            at_exit.callback(self._lock.release)
            self._crash_log = at_exit.enter_context(CrashLog(state))
            self._status.starting()
            self._note_crash()
            self._run_sessions()
            self._status.stopping()

    def stop(self) -> None:
        """Ask for an orderly stop, from any thread or a signal handler."""
        self._stop_asked = True
        if self.session is not None:
            self.session.stop()
        self._config.request()  # ends a wait between two sessions

    def reload(self) -> None:
        """Ask to read the configuration again, from any thread or a signal handler."""
        if self.session is not None:
            self.session.reload()
        self._config.request()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # Python delivers signals to the main thread only
            return

        def note(number: int, _frame: FrameType | None) -> None:
            if number == signal.SIGHUP:
                self.reload()
            else:
                self.stop()

        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note_crash(self) -> None:
        """Look at how the last process on this home ended."""
        self._blame = bool(self._crash_log.last)
        if not self._crash_log.last:
            return
        first_line = self._crash_log.last.splitlines()[0]
        _log.error("last_run_crashed said=%r", first_line)
        message = "The program broke down in the middle of its work and was started again; the files it had in hand are tried one by one."
        self._status.add_event("crashed", f"{message} It said: {first_line}")
        if self._crash_log.was_in(INTERPRETER):
            with suppress(EdgeAgentError):  # where that cannot be written or read now, the first session meets it again
                self._roll_back_model(f"the interpreter brought the program down ({first_line})")

    # Sessions

    def _run_sessions(self) -> None:
        wait_s = self._timings.first_wait_s
        while not self._stop_asked:
            began_s, recorded = time.monotonic(), self.counts.total()
            try:
                ending = self._run_session()
            except EdgeAgentError as fault:
                if time.monotonic() - began_s > STEADY_S or self.counts.total() > recorded:
                    wait_s = self._timings.first_wait_s
                try:
                    if self._goes_back(fault):
                        continue
                except StorageError as of_disk:  # going back must be written down
                    fault = of_disk  # under the name that ends here: a fault that is kept keeps its session, and the model of that
                if not self._is_transient(fault):
                    raise fault
                self._wait_out(fault, wait_s)
                wait_s = min(2.0 * wait_s, self._timings.longest_wait_s)
            else:
                if ending != "reload":
                    break
                wait_s = self._timings.first_wait_s

    def _run_session(self) -> Ending:
        self._has_started = False
        self._status.begin_session()
        if self._status.is_ready:
            give_back_memory()
            if self._config.is_requested:  # while no session listened
                self._config.reread()
        self._probation.begin_session(self._config.current)
        session = self.session = Session(
            self._config, self._status, self._probation, self._crash_log, once=self._once, load=self._load, timings=self._timings
        )
        if self._stop_asked:  # while there was no session to ask
            return "stop"
        try:
            with ExitStack() as at_exit:
                model = session.start(at_exit, blame=self._blame)
                if model is None:
                    return "stop"
                self._has_started = True
                self._lock.sign()  # these two cannot be written where the disk was read-only when the agent started
                self._crash_log.begin()
                self._config.confirm()
                self._blame = None  # from here on what is in hand is this process's own
                self._probation.started(model)
                self._status.started(model, self._config.current.inbox)
                ending = session.work()
        except OSError as fault:  # one that no call has given a message
            raise storage_error(fault, f"work with {self._home} and {self._config.current.inbox}") from fault
        finally:
            self.session = None
        if ending == "stop":
            self._status.notify_stopping()
        return ending

    def _goes_back(self, fault: EdgeAgentError) -> bool:
        """Return to the configuration or the model that worked before, where the new one is to blame."""
        if not self._has_started and self._config.go_back(fault):
            return True
        return isinstance(fault, ModelError | InferenceError) and self._roll_back_model(str(fault))

    def _roll_back_model(self, why: str) -> bool:
        """Go back to the model that ran before; False where the one that runs has proven itself, or the configuration names it."""
        message = self._probation.roll_back(why)
        if message is None:
            return False
        self._status.add_event("model_rolled_back", message)
        self._crash_log.clear()
        return True

    def _is_transient(self, fault: EdgeAgentError) -> bool:
        """Tell whether a fault may pass by itself, so that waiting makes sense."""
        if self._once or isinstance(fault, CameraGoneError):
            return False
        if isinstance(fault, SourceGoneError):
            # An inbox that was never there is a mistake in the configuration rather than a share that is away.
            return self._status.is_ready or self._has_seen_inbox()
        return isinstance(fault, StorageError) and fault.passes

    def _has_seen_inbox(self) -> bool:
        try:
            with Reader(self._home / "state" / DATABASE_NAME) as reader:
                note = reader.note(MOUNT_NOTE)
        except StorageError:
            return False
        inbox = real_path(self._config.current.inbox)
        return note is not None and Mount.from_text(note, inbox) is not None

    def _wait_out(self, fault: EdgeAgentError, wait_s: float) -> None:
        """Show what the agent waits for, and wait; a request ends the wait."""
        self._status.waiting_between_sessions(fault.state if isinstance(fault, StorageError) else "inbox_away", str(fault))
        until_s = time.monotonic() + wait_s
        while not self._stop_asked and (left_s := until_s - time.monotonic()) > 0:
            self._status.alive()
            if self._config.wait_for_request(min(left_s, self._status.heartbeat_interval_s)):
                if not self._stop_asked:
                    self._config.reread()
                return


def give_back_memory() -> None:
    """Free what a session has left behind, and let the C library return it to the system before the next session takes its own.

    An agent that waits out a full disk for days begins thousands of sessions. Each loads the model, and glibc keeps what was freed in the
    arena of each thread: measured, 150 MB became 210 MB in 350 sessions, of which 70 MB were in use.

    References
    ----------
    malloc_trim(3). C libraries other than glibc have no such call and no need of it.
    """
    gc.collect()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
