"""A session: one stretch of work with one configuration and one model, from opening the database to the last image in hand.

A fault ends a session; whether it ends the agent too is decided in ``agent.py``. The start of the next session finishes whatever the
last one left half done.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from edge_agent.agent.active_config import ActiveConfig
from edge_agent.agent.classify import LoadClassifiers
from edge_agent.agent.dispatch import Dispatch
from edge_agent.agent.folders import MOUNT_NOTE, Watermark, check_inbox, make_folders
from edge_agent.agent.ledger import Ledger
from edge_agent.agent.messages import Ending, LookAgain, MessageQueue, Request
from edge_agent.agent.quarantine import Quarantine
from edge_agent.agent.status_reporter import StatusReporter
from edge_agent.agent.timings import Timings
from edge_agent.agent.worker import Claims, Job, Outcome, Worker
from edge_agent.agent.worker_pool import WorkerPool
from edge_agent.database.database import DATABASE_NAME
from edge_agent.deployment.probation import ModelProbation
from edge_agent.errors import DiskFullError, EdgeAgentError, SourceGoneError, StorageError
from edge_agent.files.atomic import storage_error
from edge_agent.files.deadline import real_path
from edge_agent.files.mounts import Mount
from edge_agent.intake.folder import FolderIntake
from edge_agent.outbox.results import Mark
from edge_agent.records import Arrival, ModelIdentity, Record
from edge_agent.surfaces.crash_log import CrashLog

if TYPE_CHECKING:
    from edge_agent.intake.camera import CameraSource

_log = logging.getLogger(__name__)


class _StopRequestedError(EdgeAgentError):
    """Somebody asked for a stop while the session was starting."""


class Session:
    """Watches an inbox and classifies what arrives: :meth:`start` it, then let it :meth:`work`.

    Parameters
    ----------
    config : ActiveConfig
        The session works with the one that is current now, and has it read again on request.
    status : StatusReporter
        Where counts, states and events are reported.
    probation : ModelProbation
        Counts the images of a new model.
    crash_log : CrashLog
        Where a fault that a worker meets with an image in hand is noted for the next process.
    once : bool
        Process what is in the inbox (and what a video file as camera gives), then end.
    load : callable
        Makes the classifiers, one for each worker.
    timings : Timings
        Intervals and limits.
    """

    _ledger: Ledger
    _intake: FolderIntake
    _dispatch: Dispatch

    def __init__(
        self,
        config: ActiveConfig,
        status: StatusReporter,
        probation: ModelProbation,
        crash_log: CrashLog,
        *,
        once: bool,
        load: LoadClassifiers,
        timings: Timings,
    ) -> None:
        self._active_config = config
        self._config = config.current
        self._status = status
        self._probation = probation
        self._crash_log = crash_log
        self._once = once
        self._load = load
        self._timings = timings
        self._home = self._config.home.resolve()
        self._inbox = real_path(self._config.inbox)
        self._messages = MessageQueue()
        self._claims = Claims()
        self._workers = WorkerPool(self._messages.put)
        self._camera: CameraSource | None = None
        self._camera_listed = False
        self._heartbeat_at_s = 0.0
        self._space = Watermark(self._home, self._config.storage.min_free_bytes, timings.space_look_s)
        self._is_stop_requested = False
        self._ending: Ending | None = None

    def stop(self) -> None:
        """Ask for an orderly end, from any thread or a signal handler."""
        self._is_stop_requested = True
        self._messages.put(Request("stop"))

    def reload(self) -> None:
        """Ask to read the configuration again, from any thread or a signal handler."""
        self._messages.put(Request("reload"))

    # Start

    def start(self, at_exit: ExitStack, *, blame: bool | None) -> ModelIdentity | None:
        """Load the model, open the database, finish what an earlier run left half done, and watch the inbox.

        Parameters
        ----------
        at_exit : ExitStack
            Closes what is opened here, also where the start fails.
        blame : bool or None
            How the files that the database holds as in hand count: as the cause of a crash (True), as present when the process ended for
            an unknown reason (False), or not at all, because this process goes on (None).

        Returns
        -------
        ModelIdentity or None
            The model; None where a stop was requested meanwhile. The next start takes the work up again.

        Raises
        ------
        EdgeAgentError
            For every fault of our own side.
        """
        try:
            return self._start(at_exit, blame)
        except _StopRequestedError:
            return None

    def _start(self, at_exit: ExitStack, blame: bool | None) -> ModelIdentity:
        is_new = not (self._home / "state" / DATABASE_NAME).exists()
        make_folders(self._config, is_new=is_new)
        classifiers = self._load(self._config, self._config.model.threads or len(os.sched_getaffinity(0)))
        intake = self._config.intake
        self._ledger = Ledger(self._home, self._inbox, intake.on_done, self._report_progress)
        at_exit.callback(self._ledger.close, sync_timeout_s=self._timings.sync_once_s if self._once else self._timings.sync_stop_s)
        self._write_events()  # here too, because the start may fail at the next line
        note = self._ledger.read_note(MOUNT_NOTE)
        expected = Mount.from_text(note, self._inbox) if note else None
        mount = check_inbox(self._inbox, expected, leaves=intake.on_done != "keep")
        quarantine = Quarantine(self._ledger.blame(blame))
        disposals, healed = self._ledger.recover()
        if disposals or healed or quarantine:
            _log.info("recovered disposals=%d results=%d suspects=%d", disposals, healed, len(quarantine))
        self._intake = FolderIntake(self._inbox, intake, self._ledger.without_record)
        at_exit.callback(self._intake.stop)
        at_exit.callback(self._workers.dismiss, self._timings.workers_stop_s)
        for classifier in classifiers:
            self._workers.hire(Worker(self._config, self._inbox, self._home / "state" / DATABASE_NAME, classifier, self._claims))
        self._dispatch = Dispatch(len(self._workers), quarantine, self._claims, group_s=self._timings.group_s)
        self._intake.start(lambda path: self._messages.put(LookAgain() if path is None else path))
        self._start_camera(at_exit)
        model = classifiers[0].identity
        self._note_start(model, mount)
        return model

    def _report_progress(self) -> None:
        if self._is_stop_requested:
            raise _StopRequestedError("stopped at the start")
        self._status.start_goes_on()

    def _start_camera(self, at_exit: ExitStack) -> None:
        if self._config.camera.source:
            from edge_agent.intake.camera import CameraSource

            self._camera = CameraSource(self._config.camera, self._inbox)
            self._camera.start()
            at_exit.callback(self._camera.stop, self._timings.camera_stop_s)

    def _note_start(self, model: ModelIdentity, mount: Mount) -> None:
        """Note for ``edge-agent status`` and in the log what runs here."""
        intake = self._config.intake
        about = {"inbox": str(self._inbox), "on_done": intake.on_done, "ignore": intake.ignore, "model": model}
        self._ledger.note("agent", msgspec.json.encode(about).decode())
        self._ledger.note(MOUNT_NOTE, mount.to_text(self._inbox))
        _log.info(
            "started pid=%d workers=%d model=%s version=%s digest=%.12s",
            *(os.getpid(), len(self._workers), model.name, model.version, model.digest),
        )

    # Work

    def work(self) -> Ending:
        """Work until :meth:`stop`, a new configuration or another model; with ``once`` until the inbox is empty.

        Raises
        ------
        EdgeAgentError
            For every fault of our own side. No image is lost.
        """
        self._write_events()
        try:
            self._main_loop()
        except SourceGoneError:
            self._drain()  # the files in hand have been read already
            raise
        self._drain()
        return self._ending or "finished"

    def _main_loop(self) -> None:
        while self._ending is None and not (self._once and self._nothing_left()):
            self._receive(self._sleep_s())
            self._intake.scan_some()
            if self._wants_more():
                self._dispatch.add(self._intake.settled())
            if self._dispatch.has_ready and self._has_space():
                self._hand_out(self._dispatch.pick(time.monotonic()))
            if self._dispatch.is_group_due(time.monotonic()):
                self._enter_outcomes()
            self._ledger.tidy(self._messages.put, quiet=self._intake.is_quiet)
            self._heartbeat()

    def _nothing_left(self) -> bool:
        if self._camera is not None:
            if not self._camera.wait_finished(0):
                return False
            self._check_camera()  # the next heartbeat would come too late
            if not self._camera_listed:
                self._camera_listed = True
                self._intake.rescan()  # the events of its last frames may still be on their way
        if self._intake.is_quiet:
            self._intake.check_root()  # if its share is away, the files that vanished are not done
            return True
        return False

    def _wants_more(self) -> bool:
        return self._dispatch.wants_more and not self._space.is_short

    def _sleep_s(self) -> float:
        """How long the main loop may sleep if no message comes."""
        now_s = time.monotonic()
        wake_at_s = min(
            self._heartbeat_at_s,
            self._ledger.tidy_at_s(quiet=self._intake.is_quiet),
            self._dispatch.wake_at_s(now_s, may_pick=not self._space.is_short),
        )
        if self._space.is_short:
            wake_at_s = min(wake_at_s, self._space.next_look_s)
        elif self._wants_more():
            wake_at_s = min(wake_at_s, self._intake.wake_at_s())
        timeout_s = max(0.0, wake_at_s - time.monotonic())
        return min(timeout_s, self._timings.camera_poll_s) if self._once and self._camera is not None else timeout_s

    def _receive(self, timeout_s: float) -> None:
        """Wait for a message, then take all that are there, so that what came together is committed together."""
        touched: dict[str, None] = {}
        events_lost = False
        for message in self._messages.take(timeout_s):
            match message:
                case str():
                    touched[message] = None
                case Outcome():
                    self._dispatch.finish(message, time.monotonic())
                case Mark():
                    self._ledger.synced(message)
                case LookAgain():
                    events_lost = True
                case Request(kind="reload"):
                    if self._active_config.reread() or self._probation.is_replaced():
                        self._ending = self._ending or "reload"
                case Request():
                    self._ending = "stop"
                case OSError():
                    raise storage_error(message, "read an image") from message
                case Exception():
                    if not isinstance(message, StorageError | SourceGoneError):  # else the next process would try this image for ever
                        self._crash_log.note(f"{type(message).__name__} with an image in hand")
                    raise message
        for path in touched:
            self._intake.touch(path)
        if events_lost:
            _log.warning("events_lost action=scan")
            self._intake.rescan()

    def _hand_out(self, jobs: list[Job]) -> None:
        """Give the workers something to do, after it is durable that it is tried."""
        if not jobs:
            return
        attempts = [job.arrival for job in jobs if not job.quarantine]
        if self._dispatch.has_outcomes:
            self._enter_outcomes(attempts)
        elif attempts:
            self._ledger.begin(attempts)
        for job in jobs:
            self._workers.give(job)
        self._dispatch.give(len(jobs))

    def _enter_outcomes(self, attempts: Sequence[Arrival] = ()) -> None:
        """Enter what the workers found since the last time, and what they try next."""
        found: list[tuple[Record, Outcome]] = []
        restamped: list[tuple[int, Arrival]] = []
        for outcome in self._dispatch.take_outcomes():
            arrival, record = outcome.arrival, outcome.record
            if outcome.kind == "record" and record is not None:
                found.append((record, outcome))
                continue
            self._ledger.end_attempt(arrival.path)
            if outcome.kind == "unchanged" and record is not None:
                restamped.append((record.id or 0, arrival))
            elif outcome.kind != "twin":
                self._intake.release(arrival.path, look_again=outcome.kind == "changed")
        if not (found or restamped or attempts):
            return
        entered = self._ledger.enter([(record, outcome.arrival) for record, outcome in found], restamped, attempts=list(attempts))
        for (_, outcome), (record, became) in zip(found, entered, strict=True):
            self._dispatch.release(outcome)
            self._intake.release(outcome.arrival.path, look_again=became == "replaced")
            self._report_record(record)
        for _, arrival in restamped:
            self._intake.release(arrival.path)

    def _report_record(self, record: Record) -> None:
        self._status.count(record)
        _log.info(
            "%s id=%d sha256=%.12s decision=%s reason=%s duplicate_of=%s total_ms=%.1f",
            *(record.status, record.id, record.sha256 or "-", record.decision or "-", record.reason.code if record.reason else "-"),
            *(record.duplicate_of or "-", record.timing_ms.total),
        )
        if record.reason is not None and record.reason.code == "quarantined":
            self._ledger.add_event("quarantined", f"record {record.id}: {record.reason.message}")
        if record.status == "done" and record.duplicate_of is None and record.model is not None:
            self._probation.count(record.model)

    def _has_space(self) -> bool:
        """Tell whether the disk has the space that the configuration wants free; it is measured at most once a second."""
        if self._space.is_due and not self._space.look():
            if self._once:
                raise DiskFullError(self._space.message)
            self._status.waiting("low_space", self._space.message)
        return not self._space.is_short

    def _heartbeat(self) -> None:
        """Look after what no event reports, and say that the loop is alive."""
        if self._space.is_short and self._has_space():
            self._heartbeat_at_s = 0.0  # to say at once that the wait is over
        now_s = time.monotonic()
        if now_s < self._heartbeat_at_s:
            return
        self._heartbeat_at_s = now_s + self._status.heartbeat_interval_s
        self._intake.check_root()
        self._check_camera()
        self._write_events()
        self._ledger.retain(self._config.retention, quiet=self._intake.is_quiet)
        if self._ending is None and self._probation.is_replaced():
            _log.info("model_changed action=new_session")
            self._ending = "reload"
        if stuck := self._workers.stuck(self._timings.stuck_s):
            _log.error("workers_stuck count=%d limit_s=%g", stuck, self._timings.stuck_s)
            return
        self._status.alive()
        if not self._space.is_short:
            self._status.working(self._intake.waiting + self._dispatch.waiting)

    def _write_events(self) -> None:
        """Let the next commit write the events that were reported."""
        for code, message in self._status.take_events():
            self._ledger.add_event(code, message)

    def _check_camera(self) -> None:
        if self._camera is not None and self._camera.failure is not None:
            raise self._camera.failure

    # Stop

    def _drain(self) -> None:
        """Finish the images in hand; all others stay in the inbox for the next start."""
        deadline_s = time.monotonic() + self._timings.drain_s
        self._dispatch.stop()
        for job in self._workers.take_back():
            self._dispatch.drop()
            self._ledger.end_attempt(job.arrival.path)
        while self._dispatch.in_hand > 0 and (left_s := deadline_s - time.monotonic()) > 0:
            try:
                self._receive(left_s)
            except SourceGoneError:
                self._dispatch.drop()  # it could no longer be read; it stays in the inbox that is away
        self._enter_outcomes()
        self._ledger.end_all_attempts()
        counts = self._status.counts
        _log.info("stopped done=%d rejected=%d unfinished=%d", counts["done"], counts["rejected"], self._dispatch.in_hand)
