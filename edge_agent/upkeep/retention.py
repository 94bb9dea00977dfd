"""What is deleted for its age or size: images first, then ``results/``, then rows. Never an image without a record, or in the inbox.

:mod:`edge_agent.database.calendar` says which records are old, not their dates. What a record left is found by its path, and is deleted
only if size and modification time are the recorded ones. A record's row goes last, and stays while anything of it is there.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from edge_agent.config import RetentionConfig
from edge_agent.database.calendar import DAY_S, Calendar
from edge_agent.database.database import Database
from edge_agent.database.old_records import (
    bytes_since,
    days_without_records,
    delete_records,
    keep_calendar,
    last_id_before,
    newest_id,
    old_records,
)
from edge_agent.database.pending_commit import PendingCommit
from edge_agent.outbox.results import ResultFiles
from edge_agent.records import Status
from edge_agent.upkeep.delete_files import Remove, delete_files, folder_bytes, ids_with_file, remove_empty, remove_image, remove_sidecar

_log = logging.getLogger(__name__)

RETENTION_NOTE = "retention"
REST_S = 3600.0
"""From the end of one pass to the next."""
BUSY_LIMIT_S = 3600.0
"""A pass that is due waits this long for a quiet moment, then it begins without one."""
_ROOM = 0.05
"""A folder over its limit is brought below it by this share, so that it is not measured again for every image."""

Left = Literal["done", "rejected", "results"]
"""The folders in which a record leaves something besides its row."""
_STATUS: dict[Left, Status] = {"done": "done", "rejected": "rejected"}
Steps = Generator[None, None, None]
"""Work in small pieces."""
_T = TypeVar("_T")


class Trimmed(msgspec.Struct, frozen=True):
    """Up to which record each thing has been deleted. Up to ``results_floor`` nothing may be written to ``results/`` again."""

    done: int = 0
    rejected: int = 0
    results: int = 0
    results_floor: int = 0


def read_trimmed(database: Database) -> Trimmed:
    """Read what has been deleted so far."""
    note = database.note(RETENTION_NOTE)
    return msgspec.json.decode(note, type=Trimmed) if note else Trimmed()


class Retention:
    """Deletes what the configuration does not want kept any longer. All methods belong to the ledger's thread.

    Parameters
    ----------
    home, inbox : Path
        Existing folders.
    config : RetentionConfig
        The limits.
    database : Database
        Written by nobody else.
    results : ResultFiles
        As the ledger has it.
    report : callable
        Takes code and message of an event.
    rewritten : callable
        Called when ``predictions.jsonl`` is another file than before.
    """

    def __init__(
        self,
        home: Path,
        inbox: Path,
        config: RetentionConfig,
        database: Database,
        results: ResultFiles,
        report: Callable[[str, str], None],
        rewritten: Callable[[], None],
    ) -> None:
        self._home = home
        self._inbox = inbox
        self._config = config
        self._database = database
        self._results = results
        self._report = report
        self._rewritten = rewritten
        self._calendar: Calendar | None = None
        self._trimmed = read_trimmed(database)
        # How far this run came; what could not be deleted holds the noted position back, so that the next run tries it again.
        self._position: dict[Left, int] = {"done": self._trimmed.done, "rejected": self._trimmed.rejected, "results": self._trimmed.results}
        self._stuck_id: dict[Left, int] = {}
        # Bytes found in a folder, and the newest record then.
        self._measured: dict[Left, tuple[int, int]] = {}
        self._steps: Steps | None = None
        self._next_pass_s = time.monotonic()

    @property
    def is_working(self) -> bool:
        """Whether a pass has begun and is not over."""
        return self._steps is not None

    def step(self, wall_s: float, *, quiet: bool = True) -> None:
        """Do a small piece of work, if there is any; call it every few seconds.

        Parameters
        ----------
        wall_s : float
            The clock: Unix time.
        quiet : bool
            Whether the disk has nothing better to do. After an hour without quiet the work is done all the same.

        Raises
        ------
        StorageError
            If the database or ``results/`` cannot be written. An image that cannot be deleted is tried again later.
        """
        self._look(wall_s)
        now_s = time.monotonic()
        if self._steps is None:
            if now_s < self._next_pass_s + (0 if quiet else BUSY_LIMIT_S):
                return
            self._steps = self._pass()
        try:
            next(self._steps)
        except StopIteration:
            self._steps = None
            self._next_pass_s = now_s + REST_S

    def close(self) -> None:
        """Stop, also in the middle of a piece of work."""
        if self._steps is not None:
            self._steps.close()

    def _look(self, wall_s: float) -> None:
        before = self._calendar
        self._calendar = keep_calendar(self._database, wall_s, before)
        ahead_s = self._calendar.ahead_s(wall_s)
        if self._calendar.astray_since_s is not None and (before is None or before.astray_since_s is None) and abs(ahead_s) > DAY_S:
            where = "ahead of" if ahead_s > 0 else "behind"
            message = (
                f"The clock of this box is {abs(ahead_s) / DAY_S:,.0f} days {where} what it should be, as far as the agent can tell. "
                "Records carry its time: set the date of the box, or replace its clock battery. Nothing is deleted because of the jump."
            )
            _log.warning("clock_jumped ahead_s=%.0f", ahead_s)
            self._report("clock_jumped", message)

    def _pass(self) -> Steps:
        config = self._config
        yield from self._delete_left("done", self._last_id(config.done_max_age_days), remove_image)
        yield from self._shrink("done", config.done_max_bytes)
        yield from self._delete_left("rejected", self._last_id(config.rejected_max_age_days), remove_image)
        yield from self._shrink("rejected", config.rejected_max_bytes)
        yield from self._delete_left("results", self._last_id(config.results_max_age_days), remove_sidecar)
        if self._trimmed.results_floor and (yield from self._results.trim(self._trimmed.results_floor)):
            self._rewritten()
        yield from self._delete_rows(min(self._last_id(config.rows_max_age_days), self._trimmed.results))

    def _last_id(self, max_age_days: int) -> int:
        """The newest record that is older than a limit; 0 where there is none, or no limit."""
        if max_age_days == 0 or self._calendar is None:
            return 0
        return last_id_before(self._database, self._calendar.day - max_age_days)

    def _delete_left(self, left: Left, last_id: int, remove: Remove, enough_bytes: int | None = None) -> Steps:
        """Delete what the records up to ``last_id`` left in a folder, the oldest first, until enough bytes are free."""
        root = self._home / left
        files = freed_bytes = 0
        while self._position[left] < last_id and (enough_bytes is None or freed_bytes < enough_bytes):
            records = old_records(self._database, self._position[left], last_id, _STATUS.get(left))
            if not records:
                self._advance(left, last_id, 0)
                break
            if left == "results":
                # Noted first: what is deleted from here on must not come back when a start makes results/ whole.
                self._note(msgspec.structs.replace(self._trimmed, results_floor=records[-1].record_id))
            rest_bytes = None if enough_bytes is None else enough_bytes - freed_bytes
            deletion = yield from self._aside(partial(delete_files, root, records, remove, rest_bytes))
            remove_empty(deletion.folders, root)
            if left == "results":
                for day in days_without_records(self._database, {record.day for record in records}, deletion.last_id):
                    self._results.delete_day(day)
            self._advance(left, deletion.last_id, deletion.stuck_id)
            files += deletion.files
            freed_bytes += deletion.freed_bytes
        if files:
            _log.info("deleted from=%s files=%d bytes=%d", left, files, freed_bytes)

    def _shrink(self, left: Left, max_bytes: int) -> Steps:
        """Bring a folder below its limit; what came today stays."""
        if max_bytes == 0 or self._calendar is None:
            return
        if left in self._measured:
            found_bytes, since_id = self._measured[left]
            if found_bytes + bytes_since(self._database, since_id, _STATUS[left]) <= max_bytes:
                return
        since_id = newest_id(self._database)
        found_bytes = yield from self._aside(partial(folder_bytes, self._home / left))
        if found_bytes > max_bytes:
            enough_bytes = int(found_bytes - max_bytes * (1 - _ROOM))
            yield from self._delete_left(left, last_id_before(self._database, self._calendar.day), remove_image, enough_bytes)
            found_bytes = yield from self._aside(partial(folder_bytes, self._home / left))
        self._measured[left] = found_bytes, since_id

    def _delete_rows(self, last_id: int) -> Steps:
        position = rows = 0
        roots = (self._inbox, self._home / "done", self._home / "rejected")
        while records := old_records(self._database, position, last_id):
            kept = yield from self._aside(partial(ids_with_file, records, roots))
            rows += delete_records(self._database, {record.record_id for record in records} - kept)
            position = records[-1].record_id
        if rows:
            _log.info("deleted from=database rows=%d", rows)

    def _advance(self, left: Left, last_id: int, stuck_id: int) -> None:
        """Note how far the deletion in a folder came, but no further than the first file that is stuck: the next run begins there."""
        self._position[left] = max(self._position[left], last_id)
        if stuck_id:
            self._stuck_id.setdefault(left, stuck_id)
        noted = min(self._position[left], self._stuck_id.get(left, last_id + 1) - 1)
        self._note(msgspec.structs.replace(self._trimmed, **{left: max(noted, getattr(self._trimmed, left))}))

    def _note(self, trimmed: Trimmed) -> None:
        if trimmed != self._trimmed:
            self._database.insert(PendingCommit(notes={RETENTION_NOTE: msgspec.json.encode(trimmed).decode()}))
            self._trimmed = trimmed

    def _aside(self, work: Callable[[], _T]) -> Generator[None, None, _T]:
        """Let another thread wait for the disk; gives what it found."""
        answer: list[_T] = []
        thread = threading.Thread(target=lambda: answer.append(work()), name="retention", daemon=True)
        thread.start()
        while thread.is_alive():
            yield
        return answer[0]
