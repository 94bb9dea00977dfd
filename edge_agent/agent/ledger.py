"""The durable side of the agent: database, files and ``results/``, written in the one order that survives a crash at any point.

1. The disk has the image, and then the record is committed. From here on the image has its one result.
2. The image leaves the inbox.
3. ``results/`` is written.
4. The database learns of 2 with the next commit, and of 3 when the disk has it.

After a crash behind 1, the next start finishes what the database still holds as not done.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Empty, SimpleQueue

import msgspec

from edge_agent.config import RetentionConfig
from edge_agent.database.attempts import Attempt
from edge_agent.database.database import DATABASE_NAME
from edge_agent.database.integrity import Progress
from edge_agent.database.old_records import keep_calendar
from edge_agent.database.pending_commit import PendingCommit, Settlement
from edge_agent.errors import StorageError
from edge_agent.files.stamp import Stamp
from edge_agent.outbox.disposal import Disposal, DisposalOutcome, OnDone
from edge_agent.outbox.results import SYNCED_NOTE, Mark, ResultFiles
from edge_agent.records import Arrival, Record
from edge_agent.upkeep.orphans import look_after_images
from edge_agent.upkeep.rebuild import open_database
from edge_agent.upkeep.retention import Retention, read_trimmed

IDLE_S = 1.0
"""How long after the last record an idle agent tidies up."""
BUSY_S = 20.0
"""How long a busy agent puts that off."""


class Ledger:
    """Enters records, and disposes of their files and writes their results afterwards. All methods belong to one thread.

    Parameters
    ----------
    home, inbox : Path
        Existing folders; ``home`` with results, done, rejected and state in it.
    on_done : {"move", "keep", "delete"}
        See :class:`~edge_agent.outbox.disposal.Disposal`.
    progress : callable, optional
        Called many times a second while opening and :meth:`recover` take long. What it raises ends them; the next start does the rest.

    Raises
    ------
    StorageError
        If the database cannot be opened. A damaged one is built again.
    """

    def __init__(self, home: Path, inbox: Path, on_done: OnDone, progress: Progress = lambda: None) -> None:
        self._home = home
        self._inbox = inbox
        self._keeps = on_done == "keep"
        self._progress = progress
        self._database = open_database(home / "state" / DATABASE_NAME, home, progress)
        self._disposal = Disposal(inbox, home, on_done)
        self._results = ResultFiles(home / "results")
        # What the next commit writes, whatever causes it.
        self._pending = PendingCommit()
        self._untidy_since_s: float | None = None
        self._last_entry_s = 0.0
        self._is_syncing = False
        # Whether results/ holds what the database holds, so that it may be noted how far the disk has it.
        self._is_recovered = False
        self._retention: Retention | None = None

    def recover(self) -> tuple[int, int]:
        """Finish what an earlier run left half done.

        Returns
        -------
        tuple of int
            How many files waited for their disposal, and how many records were written to ``results/`` again.

        Raises
        ------
        StorageError
            If the home folder cannot be written.
        """
        keep_calendar(self._database, time.time())
        look_after_images(self._database, self._home, self._inbox, keeps=self._keeps, progress=self._progress)
        waiting = self._database.undisposed()
        restamped = []
        for record, arrival in waiting:
            self._progress()
            outcome = self._disposal.dispose(record, arrival, resume=True)
            self._pending.settlements.append(Settlement(record.id or 0, None, None, outcome != "refused"))
            # A disk that was plugged in again may number its files anew: this one must be recognised when it is seen in the inbox.
            found = self._disposal.find(record, arrival) if outcome == "refused" else None
            if found is not None and found != arrival:
                restamped.append((record.id or 0, found))
        if waiting:
            self._commit(restamped=restamped)
        note = self._database.note(SYNCED_NOTE)
        mark = msgspec.json.decode(note, type=Mark) if note else Mark()
        healed = self._results.heal(self._database, mark, read_trimmed(self._database).results_floor, self._progress)
        self._is_recovered = True
        if waiting or healed:
            self._untidy_since_s = time.monotonic()
        return len(waiting), healed

    def without_record(self, seen: list[tuple[str, Stamp]]) -> list[tuple[str, Stamp]]:
        """Leave out the files that have a record already. Try again to move those out of the inbox that should have left it.

        Such a file is still there because a power cut undid its move, or because its folder did not let it go.
        """
        known = self._database.known(seen, with_ctime=not self._keeps)
        if known and not self._keeps:
            for path, stamp in seen:
                if path in known:
                    self._dispose_known(path, stamp, known[path].record_id)
        return [each for each in seen if each[0] not in known]

    def blame(self, crashed: bool | None) -> list[Attempt]:
        """At a start: count the end of the last process against what it had in hand; see :meth:`Database.blame`."""
        return self._database.blame(crashed=crashed)

    def begin(self, attempts: list[Arrival]) -> None:
        """Note files that workers get next; durable when it returns. Where records are entered too, give them to :meth:`enter` instead."""
        self._commit(attempts=attempts)

    def end_attempt(self, path: str) -> None:
        """Note, with the next commit, that the attempt at a path (as an arrival has it) ended without a record. It causes no commit."""
        self._pending.ended.append(path)

    def end_all_attempts(self) -> None:
        """Note, with the next commit, that no attempt goes on: for a stop, which waits for none of them."""
        self._pending.ends_all_attempts = True
        self._touch()

    def enter(
        self,
        found: list[tuple[Record, Arrival]],
        restamped: list[tuple[int, Arrival]] | None = None,
        *,
        attempts: list[Arrival] | None = None,
    ) -> list[tuple[Record, DisposalOutcome]]:
        """Enter new records, durably, in one transaction; then dispose of their files and write them to ``results/``.

        Parameters
        ----------
        found : list of (Record, Arrival)
            New records without id.
        restamped : list of (int, Arrival)
            Records whose file stays in the inbox and was merely touched.
        attempts : list of Arrival
            Files that workers get next.

        Returns
        -------
        list of (Record, Outcome)
            The records as entered, with id, commit and total time, and what became of each file.

        Raises
        ------
        StorageError
            If something cannot be written. An image without a durable record is still in the inbox; one with a durable record is
            finished at the next start.
        """
        started_ns = time.monotonic_ns()
        if found:
            self._disposal.secure([record for record, _ in found])
        ids = self._commit(entries=found, restamped=restamped, attempts=attempts)
        committed_ns = time.monotonic_ns()
        entered = []
        for record_id, (record, arrival) in zip(ids, found, strict=True):
            timing = msgspec.structs.replace(
                record.timing_ms, commit=_ms(committed_ns - started_ns), total=_ms(committed_ns - arrival.settled_ns)
            )
            record = msgspec.structs.replace(record, id=record_id, timing_ms=timing)
            outcome = self._disposal.dispose(record, arrival)
            self._pending.settlements.append(Settlement(record_id, timing.commit, timing.total, outcome != "refused"))
            entered.append((record, outcome))
        if entered:
            self._results.append([record for record, _ in entered])
        self._last_entry_s = time.monotonic()
        self._untidy_since_s = self._untidy_since_s or self._last_entry_s
        return entered

    def read_note(self, name: str) -> str | None:
        """Read a note of an earlier commit; None where there is none."""
        return self._database.note(name)

    def note(self, name: str, text: str) -> None:
        """Note something, with the next commit."""
        self._pending.notes[name] = text
        self._touch()

    def add_event(self, code: str, message: str) -> None:
        """Add an event to the next commit; every surface shows it."""
        self._pending.events.append((code, message))
        self._touch()

    def tidy_at_s(self, *, quiet: bool) -> float:
        """The monotonic time from which :meth:`tidy` has something to do; infinite if it has nothing to do.

        ``quiet`` says that no image is on its way, so that the disk is free.
        """
        if self._untidy_since_s is None or self._is_syncing:
            return math.inf
        busy_s = self._untidy_since_s + BUSY_S
        return min(self._last_entry_s + IDLE_S, busy_s) if quiet else busy_s

    def tidy(self, report: Callable[[Mark | StorageError], None], *, quiet: bool) -> None:
        """When it is time, commit what waits for a commit, and let another thread wait until the disk has ``results/``.

        Parameters
        ----------
        report : callable
            Called from that thread with the mark to give to :meth:`synced`, or with what went wrong.
        quiet : bool
            As for :meth:`tidy_at_s`.
        """
        if time.monotonic() >= self.tidy_at_s(quiet=quiet):
            self._start_sync(report)

    def retain(self, config: RetentionConfig, *, quiet: bool) -> None:
        """When it is time, delete a little of what need no longer be kept. Call it every few seconds.

        Parameters
        ----------
        config : RetentionConfig
            The limits; the same at every call.
        quiet : bool
            As for :meth:`tidy_at_s`. It is waited for, at most an hour.

        Raises
        ------
        StorageError
            If the database or ``results/`` cannot be written.
        """
        if self._is_syncing:  # its mark counts the bytes of the file that is there now
            return
        if self._retention is None:
            self._retention = Retention(self._home, self._inbox, config, self._database, self._results, self.add_event, self._touch)
        self._retention.step(time.time(), quiet=quiet)

    def synced(self, mark: Mark) -> None:
        """Note, with the next commit, that the disk has ``results/`` up to a mark."""
        self._is_syncing = False
        self._pending.notes[SYNCED_NOTE] = msgspec.json.encode(mark).decode()

    def close(self, *, sync_timeout_s: float) -> None:
        """Commit what waits for a commit, wait for the disk to have ``results/``, and close the database.

        Parameters
        ----------
        sync_timeout_s : float
            How long to wait for the disk. If it takes longer, the next start writes the last records to ``results/`` once more.

        Raises
        ------
        StorageError
            If something cannot be written; the next start writes it.
        """
        try:
            # The result of a sync under way would reach nobody any more, so another one is started.
            if self._is_recovered and (self._untidy_since_s is not None or self._is_syncing):
                finished: SimpleQueue[Mark | StorageError] = SimpleQueue()
                self._start_sync(finished.put)
                with suppress(Empty):
                    answer = finished.get(timeout=sync_timeout_s)
                    if isinstance(answer, StorageError):
                        raise answer
                    self.synced(answer)
            if self._pending:
                self._commit()
        finally:
            if self._retention is not None:
                self._retention.close()
            self._database.close()

    def _touch(self) -> None:
        """Let the next :meth:`tidy` find something to do."""
        self._untidy_since_s = self._untidy_since_s or time.monotonic()

    def _start_sync(self, report: Callable[[Mark | StorageError], None]) -> None:
        self._commit()
        self._is_syncing = True
        self._untidy_since_s = None
        threading.Thread(target=self._sync, args=(self._results.mark(), report), name="sync", daemon=True).start()

    def _commit(
        self,
        *,
        entries: list[tuple[Record, Arrival]] | None = None,
        restamped: list[tuple[int, Arrival]] | None = None,
        attempts: list[Arrival] | None = None,
    ) -> list[int]:
        """Commit what waits for a commit, together with what is given; where the commit fails, only the former still waits."""
        ids = self._database.insert(replace(self._pending, entries=entries or [], restamped=restamped or [], attempts=attempts or []))
        self._pending = PendingCommit()
        return ids

    def _dispose_known(self, path: str, stamp: Stamp, record_id: int) -> None:
        record = self._database.record(record_id)
        outcome = self._disposal.dispose(record, stamp.arrival(record, path), resume=True)
        self._pending.settlements.append(Settlement(record_id, None, None, outcome != "refused"))
        self._touch()

    def _sync(self, mark: Mark, report: Callable[[Mark | StorageError], None]) -> None:
        try:
            self._results.sync()
        except StorageError as fault:
            report(fault)
        else:
            report(mark)


def _ms(duration_ns: int) -> float:
    return round(duration_ns / 1e6, 3)
