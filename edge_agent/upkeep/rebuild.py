"""Opens the database. One that is damaged or gone is kept aside and built again from ``results/``.

The order survives a power cut at any point: a note says that a rebuild has begun, the old files move aside, the new database is written
under another name and takes its place when it is whole, the note goes. A start that finds the note goes on from there.
"""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edge_agent.database.database import DATABASE_NAME, Database
from edge_agent.database.integrity import Progress, suspicion
from edge_agent.database.pending_commit import PendingCommit
from edge_agent.errors import DatabaseDamagedError
from edge_agent.files.atomic import make_folder, replacing, storage_error, sync_folder
from edge_agent.outbox.results import JSONL_NAME, SYNCED_NOTE, Mark, ResultFiles
from edge_agent.upkeep.restore_records import enter_restored, read_lines, restore_records
from edge_agent.upkeep.retention import read_trimmed

_log = logging.getLogger(__name__)

REBUILT_NOTE = "rebuilt"
_ORDER_NAME = "rebuilding.json"
_NEW_NAME = "rebuilding.db"
_SUFFIXES = ("", "-wal", "-shm")


class Rebuilt(msgspec.Struct, frozen=True):
    """What was done; stays in the new database as a note until the images have been looked after too.

    ``aside`` is the folder in ``state/`` that holds what was there before, and ``reason`` what was wrong with it. Without ``aside`` the
    database is the old one, to which the newest records were given back.
    """

    aside: str
    reason: str
    records: int = 0
    skipped_lines: int = 0


def open_database(path: Path, home: Path, progress: Progress) -> Database:
    """Open the database for writing, checked, and built again where it must be.

    Parameters
    ----------
    path : Path
        ``HOME/state/edge-agent.db``. Nobody else writes there.
    home : Path
        With ``state/``, ``results/``, ``done/`` and ``rejected/`` in it.
    progress : callable
        Called many times a second while this takes long.

    Returns
    -------
    Database
        With a note :data:`REBUILT_NOTE` where it was built again.

    Raises
    ------
    StorageError
        If it belongs to another program or a newer version, or something cannot be read or written.
    """
    order_path = path.with_name(_ORDER_NAME)
    if not order_path.exists():
        try:
            database = Database(path, progress)
        except DatabaseDamagedError as fault:
            reason = str(fault.__cause__ or fault)
        else:
            # An agent's database is never empty once there are results, unless somebody removed it or the disk lost it.
            newest = database.last()
            if newest is not None or all(line.record is None for line in read_lines(home / "results" / JSONL_NAME)):
                _catch_up(database, home, newest.id if newest else 0)
                return database
            database.close()
            reason = "it is missing or empty, while results/ is not"
        _log.error("database_damaged reason=%r action=rebuild", reason)
        order = Rebuilt(aside=_free_name(path.parent), reason=reason)
        with replacing(order_path, durable=True) as file:
            file.write(msgspec.json.encode(order))
    try:
        _rebuild(path, home, msgspec.json.decode(order_path.read_bytes(), type=Rebuilt), progress)
        order_path.unlink()
        suspicion(path).unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as fault:
        raise storage_error(fault, f"build {path} again") from fault
    return Database(path)


def _catch_up(database: Database, home: Path, newest_id: int | None) -> None:
    """Enter the records that ``results/`` has and the database lost: the disk reported them as written, and lost them with the power."""
    note = database.note(SYNCED_NOTE)
    mark = msgspec.json.decode(note, type=Mark) if note else Mark()
    lines = read_lines(home / "results" / JSONL_NAME, mark.jsonl_bytes)
    ahead = [line.record for line in lines if line.record is not None and (line.record.id or 0) > (newest_id or 0)]
    if ahead:
        count = enter_restored(database, home, ahead)
        _log.error("records_lost_by_disk restored=%d", count)
        rebuilt = Rebuilt(aside="", reason="the disk had lost its newest records", records=count)
        database.insert(PendingCommit(notes={REBUILT_NOTE: msgspec.json.encode(rebuilt).decode()}))


def _rebuild(path: Path, home: Path, order: Rebuilt, progress: Progress) -> None:
    aside = path.parent / order.aside
    aside.mkdir(exist_ok=True)
    if (aside / path.name).exists() and path.exists():
        return  # an earlier try came to its end: this is the new one
    for suffix in _SUFFIXES:
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside / (path.name + suffix))
    sync_folder(aside)
    sync_folder(path.parent)
    new = path.with_name(_NEW_NAME)
    for suffix in _SUFFIXES:
        new.with_name(new.name + suffix).unlink(missing_ok=True)
    with Database(new) as database:
        restored = restore_records(database, home, progress)
        rebuilt = msgspec.structs.replace(order, records=restored.records, skipped_lines=restored.skipped_lines)
        notes = {REBUILT_NOTE: msgspec.json.encode(rebuilt).decode(), SYNCED_NOTE: msgspec.json.encode(restored.mark).decode()}
        database.insert(PendingCommit(notes=notes))
        database.fold()
    if restored.skipped_lines:
        _keep_copy(home / "results" / JSONL_NAME, aside)
    new.replace(path)
    sync_folder(path.parent)
    _log.warning("database_rebuilt records=%d skipped_lines=%d aside=%s", restored.records, restored.skipped_lines, order.aside)


def _keep_copy(jsonl: Path, aside: Path) -> None:
    """Keep lines that hold no record; ``results/`` is written anew."""
    with jsonl.open("rb") as source, replacing(aside / jsonl.name, durable=True) as copy:
        shutil.copyfileobj(source, copy)


def _free_name(state: Path) -> str:
    name = f"damaged-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    taken = {path.name for path in state.iterdir()}
    return next(each for each in (name, *(f"{name}-{count}" for count in range(2, 10_000))) if each not in taken)


def rebuild_results(home: Path) -> int:
    """Write all of ``results/`` again from the database, on a home folder that no agent works on.

    Returns
    -------
    int
        How many records there are.

    Raises
    ------
    StorageError
        If something cannot be read or written.
    """
    results = ResultFiles(make_folder(home, ("results",)))
    with Database(home / "state" / DATABASE_NAME) as database:
        count = results.rebuild(database, read_trimmed(database).results_floor)
        results.sync()
        database.insert(PendingCommit(notes={SYNCED_NOTE: msgspec.json.encode(results.mark()).decode()}))
    return count
