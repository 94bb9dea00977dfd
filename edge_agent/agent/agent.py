"""The agent: one session after the other, until somebody asks it to stop or a fault will not pass by itself.

What may pass (a full disk, an inbox that is away) is shown and waited out. What a person must mend (configuration, model) ends the agent
with its exit code, unless there is an earlier configuration or model that worked: then it goes back to that one, and says so.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType

from edge_agent.agent.classify import SupportsClassify
from edge_agent.agent.home_lock import HomeLock
from edge_agent.agent.host import LoadClassifiers
from edge_agent.agent.memory import give_back_memory
from edge_agent.agent.messages import Ending
from edge_agent.agent.session import HEARTBEAT_S, MOUNT_NOTE, Session
from edge_agent.config import Config
from edge_agent.database.database import DATABASE_NAME, Reader
from edge_agent.deployment.model_store import ModelStore, load_configured_bundle
from edge_agent.errors import CameraGoneError, EdgeAgentError, InferenceError, ModelError, SourceGoneError, StorageError
from edge_agent.files.atomic import storage_error
from edge_agent.files.deadline import real_path
from edge_agent.files.mounts import Mount
from edge_agent.records import ModelIdentity
from edge_agent.surfaces import systemd
from edge_agent.surfaces.crash_log import CrashLog
from edge_agent.surfaces.state import Doing, StateFile

_log = logging.getLogger(__name__)

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 30.0
"""A fault that may pass is tried again after these, doubling from the first to the longest."""
STEADY_S = 60.0
"""A session that lasted so long, or recorded an image, was no part of the trouble: the next wait begins with the first again."""
PROVEN_AFTER = 20
"""So many images without an inference error, and an installed model is not gone back from any more."""
ALIVE_S = 1.0
"""A start that takes long says so that often."""
START_STEP_TIMEOUT_S = 60.0
"""How long one step of it may take: the slowest is a disk that does not answer for a while."""
INTERPRETER = "inference/interpreter.py"
"""Where a process stands that a model brings down."""
_REFUSED = "The changed configuration can not be used, so the agent goes on with the one before"


class _StopAskedError(EdgeAgentError):
    """Somebody asked for a stop while a session was about to begin."""


def load_classifiers(config: Config, count: int) -> Sequence[SupportsClassify]:
    """Load the bundle that is to run once, and a classifier for each worker.

    Raises
    ------
    ModelError
        If the bundle can not be used.
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

    Attributes
    ----------
    counts : Counter
        Records entered by this run: by status, by decision, and as "duplicate".
    session : Session or None
        The one that runs now.
    pending_events : list of (str, str)
        Events, as code and message, that the next commit is to tell.
    """

    def __init__(
        self,
        config: Config,
        *,
        once: bool = False,
        load: LoadClassifiers = load_classifiers,
        reread: Callable[[], Config] | None = None,
    ) -> None:
        self._config = config
        self._once = once
        self._load = load
        self._reread = reread
        self._home = config.home.resolve()
        self._models = ModelStore(self._home)
        self._model_stamp = self._models.stamp()
        self.counts: Counter[str] = Counter()
        self.session: Session | None = None
        self._stop_asked = False
        # A reload or a stop that was asked for. A queue, because a signal handler may put into it while this very thread waits at it.
        self._requests: SimpleQueue[None] = SimpleQueue()
        # The configuration to go back to where the new one can not be started with.
        self._last_good: Config | None = None
        self._model: ModelIdentity | None = None
        self._good_images = 0
        self._is_ready = False
        self._is_inbox_away = False
        self._started_at_s: float | None = None
        self._said_alive_s = 0.0
        self.pending_events: list[tuple[str, str]] = []

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
            self._state_file = StateFile(state)
            self._show("starting")
            self._note_crash()
            self._run_sessions()
            self._show("stopping")

    def stop(self) -> None:
        """Ask for an orderly stop, from any thread or a signal handler."""
        self._stop_asked = True
        self._end_session("stop")

    def reload(self) -> None:
        """Ask to read the configuration again, from any thread or a signal handler."""
        self._end_session("reload")

    def _end_session(self, ending: Ending) -> None:
        if self.session is not None:
            self.session.end(ending)
        self._requests.put(None)

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

    # Sessions

    def _run_sessions(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._stop_asked:
            began_s, recorded = time.monotonic(), self.counts.total()
            try:
                ending = self._run_session()
            except _StopAskedError:
                break
            except EdgeAgentError as fault:
                if time.monotonic() - began_s > STEADY_S or self.counts.total() > recorded:
                    wait_s = FIRST_WAIT_S
                try:
                    if self._goes_back(fault):
                        continue
                except StorageError as of_disk:  # to go back is to be written down
                    fault = of_disk  # under the name that ends here: a fault that is kept keeps its session, and the model of that
                if not self._passes(fault):
                    raise fault
                self._wait_out(fault, wait_s)
                wait_s = min(2.0 * wait_s, LONGEST_WAIT_S)
            else:
                if ending != "reload":
                    break
                wait_s = FIRST_WAIT_S

    def _run_session(self) -> Ending:
        self._started_at_s = None
        self._said_alive_s = time.monotonic()
        self._model_stamp = self._models.stamp()
        if self._is_ready:
            give_back_memory()
            if not self._requests.empty():  # asked for while no session listened
                self.wants_reload(asked=True)
        session = self.session = Session(self._config, self, once=self._once, load=self._load)
        if self._stop_asked:  # asked while there was no session to hear of it
            return "stop"
        try:
            ending = session.run(blame=self._blame)
        except OSError as fault:  # met where no other words were found for it
            raise storage_error(fault, f"work with {self._home} and {self._config.inbox}") from fault
        finally:
            self.session = None
        if ending == "stop":
            systemd.notify_stopping()
        return ending

    def _note_crash(self) -> None:
        """See how the last process on this home ended."""
        self._blame: bool | None = bool(self._crash_log.last)
        if self._crash_log.last:
            first_line = self._crash_log.last.splitlines()[0]
            _log.error("last_run_crashed said=%r", first_line)
            message = (
                "The program broke down in the middle of its work and was started again; the files it had in hand are tried one by one."
            )
            self.pending_events.append(("crashed", f"{message} It said: {first_line}"))
            if self._crash_log.was_in(INTERPRETER):
                with suppress(EdgeAgentError):  # where that can not be written or read now, the first session meets it again
                    self._leaves_new_model(f"the interpreter brought the program down ({first_line})")

    def _goes_back(self, fault: EdgeAgentError) -> bool:
        """Return to the configuration or the model that worked before, where the new one is to blame."""
        if self._last_good is not None and self._started_at_s is None and self._is_config_to_blame(fault, self._last_good):
            _log.error("reload_refused reason=%s", fault)
            self.pending_events.append(("reload_refused", f"{_REFUSED}: {fault}"))
            self._config, self._last_good = self._last_good, None
            return True
        return isinstance(fault, ModelError | InferenceError) and self._leaves_new_model(str(fault))

    def _leaves_new_model(self, why: str) -> bool:
        """Go back to the model that ran before; False where the one that runs has proven itself, or the configuration names it."""
        active = self._models.active() if self._config.model.bundle is None else None
        if active is None or active.proven:
            return False
        before = self._models.rollback(why)
        name = f"{before.name} {before.version}" if before else "the model that came with the program"
        _log.error("model_rolled_back model=%s version=%s reason=%s", active.name, active.version, why)
        message = f"The new model {active.name} {active.version} failed on this box, so the agent went back to {name}. It said: {why}"
        self.pending_events.append(("model_rolled_back", message))
        self._crash_log.clear()
        return True

    def _is_config_to_blame(self, fault: EdgeAgentError, before: Config) -> bool:
        """Tell whether the configuration before would have met with this fault too: then going back to it mends nothing."""
        if isinstance(fault, SourceGoneError):
            return before.inbox != self._config.inbox
        return not isinstance(fault, StorageError)

    def _passes(self, fault: EdgeAgentError) -> bool:
        """Tell whether a fault may pass by itself, so that waiting makes sense."""
        if self._once or isinstance(fault, CameraGoneError):
            return False
        if isinstance(fault, SourceGoneError):
            # An inbox that was never there is a mistake in the configuration rather than a share that is away.
            return self._is_ready or self._has_seen_inbox()
        return isinstance(fault, StorageError) and fault.passes

    def _has_seen_inbox(self) -> bool:
        try:
            with Reader(self._home / "state" / DATABASE_NAME) as reader:
                note = reader.note(MOUNT_NOTE)
        except StorageError:
            return False
        inbox = real_path(self._config.inbox)
        return note is not None and Mount.from_text(note, inbox) is not None

    def _wait_out(self, fault: EdgeAgentError, wait_s: float) -> None:
        """Show what the agent waits for, and wait; a wish ends the wait."""
        code = fault.state if isinstance(fault, StorageError) else "inbox_away"
        if isinstance(fault, SourceGoneError) and not self._is_inbox_away:
            self._is_inbox_away = True
            self.pending_events.append(("inbox_away", str(fault)))
        self.waiting(code, str(fault))
        if not self._is_ready:
            self._is_ready = True
            systemd.notify_ready()  # it waits by design: systemd must not take it for a start that hangs
        until_s = time.monotonic() + wait_s
        while not self._stop_asked and (left_s := until_s - time.monotonic()) > 0:
            systemd.notify_watchdog()
            with suppress(Empty):
                self._requests.get(timeout=min(left_s, HEARTBEAT_S, systemd.watchdog_interval_s() or HEARTBEAT_S))
                if not self._stop_asked:
                    self.wants_reload(asked=True)
                return

    # What a session tells and asks

    def started(self, model: ModelIdentity) -> None:
        """Hear that the session is ready."""
        self._started_at_s = time.monotonic()
        self._lock.sign()  # these two can not be written where the disk was read-only when the agent started
        self._crash_log.begin()
        self._last_good = None
        if self._is_inbox_away:
            self._is_inbox_away = False
            self.pending_events.append(("inbox_back", f"The inbox {self._config.inbox} is back, and work goes on."))
        self._blame = None  # from here on what is in hand is this process's own
        if self._model != model:
            self._model, self._good_images = model, 0
        self._is_ready = True
        systemd.notify_ready()
        self.working(f"{self.counts['done']} done, {self.counts['rejected']} rejected")

    def alive(self) -> None:
        """Hear that a long start goes on: a large database is looked through or built again.

        Raises
        ------
        EdgeAgentError
            Where a stop was asked for. The next start takes the work up again.
        """
        if self._stop_asked:
            raise _StopAskedError("stopped at the start")
        now_s = time.monotonic()
        if now_s >= self._said_alive_s + ALIVE_S:
            self._said_alive_s = now_s
            systemd.notify_starting(START_STEP_TIMEOUT_S)
            systemd.notify_status("starting: looking through the database and the results")

    def working(self, line: str) -> None:
        """Show that work goes on."""
        self._show("working")
        model = f"; model {self._model.name} {self._model.version}" if self._model else ""
        systemd.notify_status(line + model)

    def waiting(self, code: str, message: str) -> None:
        """Show that no image is taken, and why."""
        if self._show("waiting", code, message):
            _log.warning("waiting code=%s reason=%s", code, message)
        systemd.notify_status(f"waiting: {message}")

    def classified(self, model: ModelIdentity) -> None:
        """Count the images of a model that is not proven yet."""
        self._good_images += 1
        if self._good_images == PROVEN_AFTER and self._config.model.bundle is None:
            active = self._models.active()
            if active is not None and active.digest == model.digest and not active.proven:
                self._models.prove(model.digest)
                self._model_stamp = self._models.stamp()
                _log.info("model_proven model=%s version=%s images=%d", model.name, model.version, PROVEN_AFTER)

    def failed(self, fault: Exception) -> None:
        """Leave a trace for the next start, which would otherwise try the same image for ever."""
        if not isinstance(fault, StorageError | SourceGoneError):
            self._crash_log.note(f"{type(fault).__name__} with an image in hand")

    def wants_reload(self, *, asked: bool) -> bool:
        """Tell whether a new session should begin; ``asked`` reads the configuration again first."""
        changed = self._models.stamp() != self._model_stamp and self._config.model.bundle is None
        if not asked:
            if changed:
                _log.info("model_changed action=new_session")
            return changed
        with suppress(Empty):
            while True:
                self._requests.get_nowait()
        if self._reread is None:
            return changed
        systemd.notify_reloading()
        try:
            config = self._reread()
            if config.home.resolve() != self._home:
                raise EdgeAgentError(f"the home folder can not change while the agent runs (now {self._home}): restart the agent for that")
        except EdgeAgentError as fault:
            _log.error("reload_refused reason=%s", fault)
            self.pending_events.append(("reload_refused", f"{_REFUSED}: {fault}"))
            systemd.notify_ready()
            systemd.notify_status(f"the changed configuration was refused: {fault}")
            return changed
        _log.info("reloaded changed=%s", config != self._config)
        if config != self._config:
            good = self._last_good or self._config  # one that has never run is not gone back to
            self._last_good = good if good != config else None
            self._config = config
        logging.getLogger("edge_agent").setLevel(config.log.level.upper())
        systemd.notify_ready()
        return True

    def _show(self, doing: Doing, code: str = "", message: str = "") -> bool:
        return self._state_file.show(doing, code, message)
