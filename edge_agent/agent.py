"""The agent: the only wiring. Images go from the inbox to the workers, what they find goes to the ledger."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING

import msgspec

from edge_agent.config import Config
from edge_agent.errors import ConfigError, SourceGoneError
from edge_agent.intake.folder import FolderIntake
from edge_agent.intake.placing import storage_error
from edge_agent.records import Arrival, ModelIdentity, Record
from edge_agent.store.ledger import DATABASE_NAME, Ledger
from edge_agent.store.lock import HomeLock
from edge_agent.store.results import Mark
from edge_agent.surfaces import systemd
from edge_agent.worker import Claims, Outcome, SupportsClassify, Worker

if TYPE_CHECKING:
    from edge_agent.intake.camera import CameraSource

_log = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
STUCK_S = 120.0
"""A worker with one image in hand for longer is stuck: systemd's watchdog is not fed any more."""
DRAIN_S = 1.2
CAMERA_STOP_S = 0.3
SYNC_STOP_S = 0.2
"""How long a stop waits for each; together less than the two seconds that a stop may take."""
SYNC_ONCE_S = 60.0
_CAMERA_POLL_S = 0.2
_GROUP_S = 0.05
_GROUP_SIZE = 16
"""Under load, outcomes wait for each other until one of these is reached, so that they share one commit."""
_IN_HAND_PER_WORKER = 16
"""Deep enough that no worker waits while a commit waits for the disk, shallow enough that memory stays flat."""


class _Stop:
    """Asks the main loop to end."""


class _LookAgain:
    """Events were lost: only a scan can tell what is in the inbox."""


Message = str | Outcome | Mark | Exception | _Stop | _LookAgain
"""What reaches the main loop: a path where something happened, a worker's outcome, a finished sync, a fault of another thread, a wish."""

LoadClassifiers = Callable[[Config, int], Sequence[SupportsClassify]]


def load_classifiers(config: Config, count: int) -> Sequence[SupportsClassify]:
    """Load the configured bundle once, and a classifier for each worker.

    Raises
    ------
    ModelError
        If the bundle can not be used.
    """
    from edge_agent.inference.bundle import default_bundle_path, load_bundle
    from edge_agent.inference.classifier import Classifier

    bundle = load_bundle(config.model.bundle or default_bundle_path(), allow_unsigned=config.model.allow_unsigned)
    return [Classifier(bundle, num_threads=1) for _ in range(count)]


class Agent:
    """Watches an inbox and classifies what arrives.

    Parameters
    ----------
    config : Config
        Everything it needs to know.
    once : bool
        Process what is in the inbox (and what a video file as camera gives), then end.
    load : callable
        Makes the classifiers, one for each worker.

    Attributes
    ----------
    counts : Counter
        Records entered by this run: by status, by decision, and as "duplicate".
    """

    _ledger: Ledger
    _intake: FolderIntake

    def __init__(self, config: Config, *, once: bool = False, load: LoadClassifiers = load_classifiers) -> None:
        self._config = config
        self._once = once
        self._load = load
        self._home = config.home.resolve()
        self._inbox = config.inbox.resolve()
        self.counts: Counter[str] = Counter()
        self._mailbox: SimpleQueue[Message] = SimpleQueue()
        self._work: SimpleQueue[Arrival | None] = SimpleQueue()
        self._ready: deque[Arrival] = deque()
        self._in_hand = 0
        self._outcomes: list[Outcome] = []
        self._group_since_s = 0.0
        # Files whose bytes a worker has in hand under another name, by SHA-256.
        self._twins: dict[str, list[Arrival]] = {}
        self._claims = Claims()
        self._workers: list[Worker] = []
        self._camera: CameraSource | None = None
        self._camera_listed = False
        self._heartbeat_at_s = 0.0
        self._stopping = False

    def run(self) -> None:
        """Run until :meth:`stop`, SIGTERM or SIGINT; with ``once`` until the inbox is empty.

        Raises
        ------
        EdgeAgentError
            For every fault of our own side; its exit code says which. No image is lost.
        """
        with self._stop_on_signals(), ExitStack() as at_exit:
            self._start_up(at_exit)
            self._main_loop()
            self._drain()

    def stop(self) -> None:
        """Ask for an orderly stop, from any thread or a signal handler."""
        self._mailbox.put(_Stop())

    @contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # Python delivers signals to the main thread only
            return

        def note(_number: int, _frame: FrameType | None) -> None:
            self.stop()

        before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    # Start up

    def _start_up(self, at_exit: ExitStack) -> None:
        """Open everything; what is opened is closed in reverse order, however the run ends."""
        self._make_folders()
        at_exit.callback(HomeLock(self._home / "state").release)
        classifiers = self._load(self._config, self._config.model.threads or len(os.sched_getaffinity(0)))
        intake = self._config.intake
        self._ledger = Ledger(self._home, self._inbox, intake.on_done)
        at_exit.callback(self._ledger.close, sync_patience_s=SYNC_ONCE_S if self._once else SYNC_STOP_S)
        disposals, healed = self._ledger.recover()
        if disposals or healed:
            _log.info("recovered disposals=%d results=%d", disposals, healed)
        self._intake = FolderIntake(self._inbox, intake.settle_time_s, intake.ignore, self._ledger.without_record)
        at_exit.callback(self._intake.stop)
        for classifier in classifiers:
            self._start_worker(classifier)
            at_exit.callback(self._work.put, None)
        self._intake.start(lambda path: self._mailbox.put(_LookAgain() if path is None else path))
        self._start_camera(at_exit)
        self._note_model(classifiers[0].identity)
        systemd.notify_ready()

    def _make_folders(self) -> None:
        for name in ("state", "results", "done", "rejected", *(() if self._config.intake.inbox else ("inbox",))):
            try:
                (self._home / name).mkdir(parents=True, exist_ok=True)
            except OSError as fault:
                raise storage_error(fault, f"make the folder {self._home / name}") from fault
        if not self._inbox.exists():
            raise SourceGoneError(f"the inbox {self._inbox} does not exist: create it, mount its disk, or name another with --inbox")
        if not self._inbox.is_dir():
            raise ConfigError(f"the inbox {self._inbox} is not a folder: name a folder with --inbox")
        keeps = self._config.intake.on_done == "keep"
        if not os.access(self._inbox, os.R_OK | os.X_OK | (0 if keeps else os.W_OK)):
            raise ConfigError(
                f"the inbox {self._inbox} is not writable for the agent, so that images can not be moved out of it: "
                'give the agent\'s user write access to the folder, or set [intake] on_done = "keep"'
            )

    def _start_worker(self, classifier: SupportsClassify) -> None:
        worker = Worker(self._config, self._inbox, self._home / "state" / DATABASE_NAME, classifier, self._claims)
        self._workers.append(worker)
        threading.Thread(target=self._run_worker, args=(worker,), name=f"worker-{len(self._workers)}", daemon=True).start()

    def _run_worker(self, worker: Worker) -> None:
        while (arrival := self._work.get()) is not None:
            worker.busy_since_s = time.monotonic()
            message: Message
            try:
                message = worker.examine(arrival)
            except Exception as fault:  # our own: raised again in the main loop, which is where the agent stops
                message = fault
            worker.busy_since_s = None
            self._mailbox.put(message)
        worker.close()

    def _start_camera(self, at_exit: ExitStack) -> None:
        if self._config.camera.source:
            from edge_agent.intake.camera import CameraSource

            self._camera = CameraSource(self._config.camera, self._inbox)
            self._camera.start()
            at_exit.callback(self._camera.stop, CAMERA_STOP_S)

    def _note_model(self, model: ModelIdentity) -> None:
        """Tell ``edge-agent status`` and the log what runs here."""
        intake = self._config.intake
        about = {"inbox": str(self._inbox), "on_done": intake.on_done, "ignore": intake.ignore, "model": model}
        self._ledger.note("agent", msgspec.json.encode(about).decode())
        _log.info(
            "started pid=%d workers=%d model=%s version=%s digest=%.12s",
            *(os.getpid(), len(self._workers), model.name, model.version, model.digest),
        )

    # The main loop

    def _main_loop(self) -> None:
        while not self._stopping and not (self._once and self._nothing_left()):
            self._receive(self._patience_s())
            self._intake.scan_some()
            if self._wants_more():
                self._ready.extend(self._intake.settled())
            self._hand_out()
            if self._is_group_due():
                self._enter_outcomes()
            self._ledger.tidy(self._mailbox.put, quiet=self._intake.is_quiet)
            self._heartbeat()

    def _nothing_left(self) -> bool:
        if self._camera is not None:
            if not self._camera.wait_finished(0):
                return False
            self._check_camera()
            if self._camera.failure is not None:
                raise self._camera.failure  # the next heartbeat would come too late to tell
            if not self._camera_listed:
                self._camera_listed = True
                self._intake.rescan()  # the events of its last frames may still be on their way
        return self._intake.is_quiet

    def _in_hand_limit(self) -> int:
        return _IN_HAND_PER_WORKER * len(self._workers)

    def _wants_more(self) -> bool:
        return len(self._ready) < self._in_hand_limit()

    def _patience_s(self) -> float:
        """How long the main loop may sleep if no message comes."""
        if self._ready and self._in_hand < self._in_hand_limit():
            return 0.0
        if self._is_group_due():
            return 0.0
        wake_at_s = min(self._heartbeat_at_s, self._ledger.tidy_at_s(quiet=self._intake.is_quiet))
        if self._outcomes:
            wake_at_s = min(wake_at_s, self._group_since_s + _GROUP_S)
        if self._wants_more():
            wake_at_s = min(wake_at_s, self._intake.wake_at_s())
        patience_s = max(0.0, wake_at_s - time.monotonic())
        return min(patience_s, _CAMERA_POLL_S) if self._once and self._camera is not None else patience_s

    def _receive(self, patience_s: float) -> None:
        """Wait for a message, then take all that are there: what came together is committed together."""
        touched: dict[str, None] = {}
        events_lost = False
        with suppress(Empty):
            message = self._mailbox.get(timeout=patience_s)
            while True:
                match message:
                    case str():
                        touched[message] = None
                    case Outcome():
                        self._in_hand -= 1
                        self._group_since_s = self._group_since_s if self._outcomes else time.monotonic()
                        self._outcomes.append(message)
                    case Mark():
                        self._ledger.synced(message)
                    case _LookAgain():
                        events_lost = True
                    case _Stop():
                        self._stopping = True
                    case OSError():
                        raise storage_error(message, "read an image") from message
                    case Exception():
                        raise message
                message = self._mailbox.get_nowait()
        for path in touched:
            self._intake.touch(path)
        if events_lost:
            _log.warning("events_lost action=scan")
            self._intake.rescan()

    def _hand_out(self) -> None:
        while self._ready and self._in_hand < self._in_hand_limit():
            self._work.put(self._ready.popleft())
            self._in_hand += 1

    def _is_group_due(self) -> bool:
        """Whether outcomes must be entered now. Where every image has a worker, none waits for another."""
        if self._in_hand <= len(self._workers):
            return bool(self._outcomes)
        return len(self._outcomes) >= _GROUP_SIZE or (bool(self._outcomes) and time.monotonic() >= self._group_since_s + _GROUP_S)

    def _enter_outcomes(self) -> None:
        """Let the ledger have what the workers found since the last time."""
        outcomes, self._outcomes = self._outcomes, []
        found: list[tuple[Record, Outcome]] = []
        restamped: list[tuple[int, Arrival]] = []
        for outcome in outcomes:
            arrival, record = outcome.arrival, outcome.record
            if outcome.kind == "record" and record is not None:
                found.append((record, outcome))
            elif outcome.kind == "unchanged" and record is not None:
                restamped.append((record.id or 0, arrival))
            elif outcome.kind == "twin":
                self._wait_for_twin(outcome)
            else:
                self._intake.release(arrival.path, look_again=outcome.kind == "changed")
        if not (found or restamped):
            return
        entered = self._ledger.enter([(record, outcome.arrival) for record, outcome in found], restamped)
        for (_, outcome), (record, became) in zip(found, entered, strict=True):
            self._close_case(outcome, record, look_again=became == "replaced")
        for _, arrival in restamped:
            self._intake.release(arrival.path)

    def _wait_for_twin(self, outcome: Outcome) -> None:
        if self._claims.holds(outcome.sha256):
            self._twins.setdefault(outcome.sha256, []).append(outcome.arrival)
        else:
            self._ready.appendleft(outcome.arrival)  # the other record has become durable since

    def _close_case(self, outcome: Outcome, record: Record, *, look_again: bool) -> None:
        if outcome.has_claim:
            self._claims.release(outcome.sha256)
            # A worker looks at them again. It finds the record of their first copy, or tries anew where that one was rejected.
            self._ready.extendleft(self._twins.pop(outcome.sha256, ()))
        self._intake.release(outcome.arrival.path, look_again=look_again)
        self.counts.update(word for word in (record.status, record.decision, "duplicate" if record.duplicate_of else None) if word)
        _log.info(
            "%s id=%d sha256=%.12s decision=%s reason=%s duplicate_of=%s total_ms=%.1f",
            *(record.status, record.id, record.sha256 or "-", record.decision or "-", record.reason.code if record.reason else "-"),
            *(record.duplicate_of or "-", record.timing_ms.total),
        )

    def _heartbeat(self) -> None:
        """Look after what no event tells of, and say that the loop is alive."""
        now_s = time.monotonic()
        if now_s < self._heartbeat_at_s:
            return
        self._heartbeat_at_s = now_s + min(HEARTBEAT_S, systemd.watchdog_interval_s() or HEARTBEAT_S)
        self._intake.check_root()
        self._check_camera()
        stuck = [worker for worker in self._workers if worker.busy_since_s is not None and now_s - worker.busy_since_s > STUCK_S]
        if stuck:
            _log.error("workers_stuck count=%d limit_s=%g", len(stuck), STUCK_S)
            return
        systemd.notify_watchdog()
        systemd.notify_status(f"{self.counts['done']} done, {self.counts['rejected']} rejected, {self._intake.waiting} settling")

    def _check_camera(self) -> None:
        if self._camera is not None and self._camera.failure is not None:
            raise self._camera.failure

    # Shut down

    def _drain(self) -> None:
        """Finish the images in hand, and no others: those stay in the inbox for the next start."""
        systemd.notify_stopping()
        deadline_s = time.monotonic() + DRAIN_S
        self._ready.clear()
        with suppress(Empty):
            while True:
                self._work.get_nowait()
                self._in_hand -= 1
        while self._in_hand > 0 and (left_s := deadline_s - time.monotonic()) > 0:
            self._receive(left_s)
        self._enter_outcomes()
        _log.info("stopped done=%d rejected=%d unfinished=%d", self.counts["done"], self.counts["rejected"], self._in_hand)
