"""A session: one stretch of work with one configuration and one model, from opening the database to the last image in hand.

A fault ends a session; whether it ends the agent too is decided in ``agent.py``. The start of the next session makes up for whatever the
last one left half done.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from edge_agent.agent.folders import check_inbox, make_folders
from edge_agent.agent.free_space import Watermark
from edge_agent.agent.host import Host, LoadClassifiers
from edge_agent.agent.ledger import Ledger
from edge_agent.agent.messages import Ending, EndRequest, LookAgain, MessageQueue
from edge_agent.agent.quarantine import Quarantine
from edge_agent.agent.worker import Claims, Job, Outcome, Worker
from edge_agent.agent.worker_pool import OutcomeGroup, WorkerPool
from edge_agent.config import Config
from edge_agent.database.database import DATABASE_NAME
from edge_agent.errors import DiskFullError, SourceGoneError
from edge_agent.files.atomic import storage_error
from edge_agent.files.deadline import real_path
from edge_agent.files.mounts import Mount
from edge_agent.intake.folder import FolderIntake
from edge_agent.outbox.results import Mark
from edge_agent.records import Arrival, ModelIdentity, Record
from edge_agent.surfaces import systemd

if TYPE_CHECKING:
    from edge_agent.intake.camera import CameraSource

_log = logging.getLogger(__name__)

HEARTBEAT_S = 5.0
STUCK_S = 120.0
"""A worker with one image in hand for longer is stuck: systemd's watchdog is not fed any more."""
DRAIN_S = 1.2
CAMERA_STOP_S = 0.3
WORKERS_STOP_S = 0.1
SYNC_STOP_S = 0.2
"""How long a stop waits for each; together less than the two seconds that a stop may take."""
SYNC_ONCE_S = 60.0
MOUNT_NOTE = "inbox_mount"
_CAMERA_POLL_S = 0.2
_IN_HAND_PER_WORKER = 32
"""Deep enough that no worker waits while a commit waits for the disk, shallow enough that memory stays flat."""


class Session:
    """Watches an inbox and classifies what arrives.

    Parameters
    ----------
    config : Config
        Everything it needs to know.
    host : Host
        The agent, which outlives the session.
    once : bool
        Process what is in the inbox (and what a video file as camera gives), then end.
    load : callable
        Makes the classifiers, one for each worker.
    """

    _ledger: Ledger
    _intake: FolderIntake
    _quarantine: Quarantine

    def __init__(self, config: Config, host: Host, *, once: bool, load: LoadClassifiers) -> None:
        self._config = config
        self._host = host
        self._once = once
        self._load = load
        self._home = config.home.resolve()
        self._inbox = real_path(config.inbox)
        self._messages = MessageQueue()
        self._ready: deque[Arrival] = deque()
        self._in_hand = 0
        self._outcomes = OutcomeGroup()
        # Files whose bytes a worker has in hand under another name, by SHA-256.
        self._twins: dict[str, list[Arrival]] = {}
        self._claims = Claims()
        self._workers = WorkerPool(self._messages.put)
        self._alone = False
        self._camera: CameraSource | None = None
        self._camera_listed = False
        self._heartbeat_at_s = 0.0
        self._space = Watermark(self._home, config.storage.min_free_bytes)
        self._ending: Ending | None = None

    def run(self, *, blame: bool | None) -> Ending:
        """Run until :meth:`end`; with ``once`` until the inbox is empty.

        Parameters
        ----------
        blame : bool or None
            Whether what the database holds as in hand is to be blamed for the end of the last process: as its crash (True), as a death
            nothing is known of (False), or not at all, because this process goes on (None).

        Raises
        ------
        EdgeAgentError
            For every fault of our own side. No image is lost.
        """
        with ExitStack() as at_exit:
            self._start_up(at_exit, blame)
            try:
                self._main_loop()
            except SourceGoneError:
                self._drain()  # what is in hand has been read already
                raise
            self._drain()
        return self._ending or "finished"

    def end(self, ending: Ending) -> None:
        """Ask for an orderly end, from any thread or a signal handler."""
        self._messages.put(EndRequest(ending))

    # Start up

    def _start_up(self, at_exit: ExitStack, blame: bool | None) -> None:
        """Open everything; what is opened is closed in reverse order, however the session ends."""
        is_new = not (self._home / "state" / DATABASE_NAME).exists()
        make_folders(self._config, is_new=is_new)
        classifiers = self._load(self._config, self._config.model.threads or len(os.sched_getaffinity(0)))
        intake = self._config.intake
        self._ledger = Ledger(self._home, self._inbox, intake.on_done, self._host.alive)
        at_exit.callback(self._ledger.close, sync_timeout_s=SYNC_ONCE_S if self._once else SYNC_STOP_S)
        self._tell()  # also where it goes no further than to the next line
        note = self._ledger.read_note(MOUNT_NOTE)
        expected = Mount.from_text(note, self._inbox) if note else None
        mount = check_inbox(self._inbox, expected, leaves=intake.on_done != "keep")
        self._quarantine = Quarantine(self._ledger.blame(blame))
        disposals, healed = self._ledger.recover()
        if disposals or healed or self._quarantine:
            _log.info("recovered disposals=%d results=%d suspects=%d", disposals, healed, len(self._quarantine))
        self._intake = FolderIntake(self._inbox, intake, self._ledger.without_record)
        at_exit.callback(self._intake.stop)
        at_exit.callback(self._workers.dismiss, WORKERS_STOP_S)
        for classifier in classifiers:
            self._workers.hire(Worker(self._config, self._inbox, self._home / "state" / DATABASE_NAME, classifier, self._claims))
        self._intake.start(lambda path: self._messages.put(LookAgain() if path is None else path))
        self._start_camera(at_exit)
        self._note_start(classifiers[0].identity, mount)
        self._tell()

    def _start_camera(self, at_exit: ExitStack) -> None:
        if self._config.camera.source:
            from edge_agent.intake.camera import CameraSource

            self._camera = CameraSource(self._config.camera, self._inbox)
            self._camera.start()
            at_exit.callback(self._camera.stop, CAMERA_STOP_S)

    def _note_start(self, model: ModelIdentity, mount: Mount) -> None:
        """Tell ``edge-agent status`` and the log what runs here."""
        intake = self._config.intake
        about = {"inbox": str(self._inbox), "on_done": intake.on_done, "ignore": intake.ignore, "model": model}
        self._ledger.note("agent", msgspec.json.encode(about).decode())
        self._ledger.note(MOUNT_NOTE, mount.to_text(self._inbox))
        _log.info(
            "started pid=%d workers=%d model=%s version=%s digest=%.12s",
            *(os.getpid(), len(self._workers), model.name, model.version, model.digest),
        )
        self._host.started(model)

    # The main loop

    def _main_loop(self) -> None:
        while self._ending is None and not (self._once and self._nothing_left()):
            self._receive(self._sleep_s())
            self._intake.scan_some()
            if self._wants_more():
                self._ready.extend(self._intake.settled())
            self._hand_out(self._pick())
            if self._is_group_due():
                self._enter_outcomes()
            self._ledger.tidy(self._messages.put, quiet=self._intake.is_quiet)
            self._heartbeat()

    def _nothing_left(self) -> bool:
        if self._camera is not None:
            if not self._camera.wait_finished(0):
                return False
            self._check_camera()  # the next heartbeat would come too late to tell
            if not self._camera_listed:
                self._camera_listed = True
                self._intake.rescan()  # the events of its last frames may still be on their way
        if self._intake.is_quiet:
            self._intake.check_root()  # files that went away with their share are not done
            return True
        return False

    def _in_hand_limit(self) -> int:
        return _IN_HAND_PER_WORKER * len(self._workers)

    def _wants_more(self) -> bool:
        return len(self._ready) < self._in_hand_limit() and not self._space.is_short

    def _sleep_s(self) -> float:
        """How long the main loop may sleep if no message comes."""
        if self._is_group_due() or self._may_pick():
            return 0.0
        wake_at_s = min(self._heartbeat_at_s, self._ledger.tidy_at_s(quiet=self._intake.is_quiet), self._outcomes.due_at_s)
        if self._space.is_short:
            wake_at_s = min(wake_at_s, self._space.next_look_s)
        elif self._wants_more():
            wake_at_s = min(wake_at_s, self._intake.wake_at_s())
        timeout_s = max(0.0, wake_at_s - time.monotonic())
        return min(timeout_s, _CAMERA_POLL_S) if self._once and self._camera is not None else timeout_s

    def _receive(self, timeout_s: float) -> None:
        """Wait for a message, then take all that are there: what came together is committed together."""
        touched: dict[str, None] = {}
        events_lost = False
        for message in self._messages.take(timeout_s):
            match message:
                case str():
                    touched[message] = None
                case Outcome():
                    self._in_hand -= 1
                    self._outcomes.add(message)
                case Mark():
                    self._ledger.synced(message)
                case LookAgain():
                    events_lost = True
                case EndRequest(ending="reload"):
                    if self._host.wants_reload(asked=True):
                        self._ending = self._ending or "reload"
                case EndRequest():
                    self._ending = message.ending
                case OSError():
                    raise storage_error(message, "read an image") from message
                case Exception():
                    self._host.failed(message)
                    raise message
        for path in touched:
            self._intake.touch(path)
        if events_lost:
            _log.warning("events_lost action=scan")
            self._intake.rescan()

    def _may_pick(self) -> bool:
        """Whether arrivals may be given to the workers now.

        While outcomes wait for each other, so do the next arrivals: that they are tried is then written by the same commit.
        """
        if not self._ready or self._space.is_short or self._in_hand >= self._in_hand_limit():
            return False
        if self._in_hand == 0:
            return True
        if self._alone or self._quarantine.treatment(self._ready[0]) != "as usual":
            return False
        return self._in_hand <= len(self._workers) or self._is_group_due()

    def _pick(self) -> list[Job]:
        """Take the arrivals that are tried next. One that was in hand when the program died is tried alone."""
        if not (self._ready and self._has_space() and self._may_pick()):
            return []
        treatment = self._quarantine.treatment(self._ready[0])
        self._alone = treatment != "as usual"
        if self._alone:
            return [Job(self._ready.popleft(), quarantine=treatment == "quarantine")]
        jobs: list[Job] = []
        while self._ready and self._in_hand + len(jobs) < self._in_hand_limit():
            if self._quarantine.treatment(self._ready[0]) != "as usual":
                break
            jobs.append(Job(self._ready.popleft()))
        return jobs

    def _hand_out(self, jobs: list[Job]) -> None:
        """Give the workers something to do; that it is tried is durable before."""
        if not jobs:
            return
        attempts = [job.arrival for job in jobs if not job.quarantine]
        if self._outcomes:
            self._enter_outcomes(attempts)
        elif attempts:
            self._ledger.begin(attempts)
        for job in jobs:
            self._workers.give(job)
        self._in_hand += len(jobs)

    def _is_group_due(self) -> bool:
        """Whether outcomes must be entered now. Where every image has a worker, none waits for another."""
        return self._outcomes.is_due(others=self._in_hand > len(self._workers))

    def _enter_outcomes(self, attempts: list[Arrival] | None = None) -> None:
        """Let the ledger have what the workers found since the last time, and what they are to try next."""
        found: list[tuple[Record, Outcome]] = []
        restamped: list[tuple[int, Arrival]] = []
        for outcome in self._outcomes.take():
            arrival, record = outcome.arrival, outcome.record
            self._quarantine.clear(arrival.path)
            if outcome.kind == "record" and record is not None:
                found.append((record, outcome))
                continue
            self._ledger.end_attempt(arrival.path)
            if outcome.kind == "unchanged" and record is not None:
                restamped.append((record.id or 0, arrival))
            elif outcome.kind == "twin":
                self._wait_for_twin(outcome)
            else:
                self._intake.release(arrival.path, look_again=outcome.kind == "changed")
        if not (found or restamped or attempts):
            return
        entered = self._ledger.enter([(record, outcome.arrival) for record, outcome in found], restamped, attempts=attempts)
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
        self._host.counts.update(word for word in (record.status, record.decision, "duplicate" if record.duplicate_of else None) if word)
        _log.info(
            "%s id=%d sha256=%.12s decision=%s reason=%s duplicate_of=%s total_ms=%.1f",
            *(record.status, record.id, record.sha256 or "-", record.decision or "-", record.reason.code if record.reason else "-"),
            *(record.duplicate_of or "-", record.timing_ms.total),
        )
        if record.reason is not None and record.reason.code == "quarantined":
            self._ledger.tell("quarantined", f"record {record.id}: {record.reason.message}")
        if record.status == "done" and record.duplicate_of is None and record.model is not None:
            self._host.classified(record.model)

    def _has_space(self) -> bool:
        """Look, at most once a second, whether the disk has the room that the configuration wants kept."""
        if self._space.is_due and not self._space.look():
            if self._once:
                raise DiskFullError(self._space.message)
            self._host.waiting("low_space", self._space.message)
        return not self._space.is_short

    def _heartbeat(self) -> None:
        """Look after what no event tells of, and say that the loop is alive."""
        if self._space.is_short and self._has_space():
            self._heartbeat_at_s = 0.0  # to say at once that the wait is over
        now_s = time.monotonic()
        if now_s < self._heartbeat_at_s:
            return
        self._heartbeat_at_s = now_s + min(HEARTBEAT_S, systemd.watchdog_interval_s() or HEARTBEAT_S)
        self._intake.check_root()
        self._check_camera()
        self._tell()
        self._ledger.retain(self._config.retention, quiet=self._intake.is_quiet)
        if self._ending is None and self._host.wants_reload(asked=False):
            self._ending = "reload"
        if stuck := self._workers.stuck(STUCK_S):
            _log.error("workers_stuck count=%d limit_s=%g", stuck, STUCK_S)
            return
        systemd.notify_watchdog()
        if not self._space.is_short:
            counts = self._host.counts
            waiting = self._intake.waiting + len(self._ready) + self._in_hand
            self._host.working(f"{counts['done']} done, {counts['rejected']} rejected, {waiting} waiting")

    def _tell(self) -> None:
        """Enter what a person must learn of into the database."""
        while self._host.pending_events:
            self._ledger.tell(*self._host.pending_events.pop(0))

    def _check_camera(self) -> None:
        if self._camera is not None and self._camera.failure is not None:
            raise self._camera.failure

    # Shut down

    def _drain(self) -> None:
        """Finish the images in hand, and no others: those stay in the inbox for the next start."""
        deadline_s = time.monotonic() + DRAIN_S
        self._ready.clear()
        for job in self._workers.take_back():
            self._in_hand -= 1
            self._ledger.end_attempt(job.arrival.path)
        while self._in_hand > 0 and (left_s := deadline_s - time.monotonic()) > 0:
            try:
                self._receive(left_s)
            except SourceGoneError:
                self._in_hand -= 1  # it could not be read any more; it waits in the inbox that is away
        self._enter_outcomes()
        self._ledger.end_all_attempts()
        counts = self._host.counts
        _log.info("stopped done=%d rejected=%d unfinished=%d", counts["done"], counts["rejected"], self._in_hand)
