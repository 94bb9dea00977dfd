"""``edge-agent status``: how an agent is doing, read from beside it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click
import msgspec

if TYPE_CHECKING:
    from datetime import datetime

    from edge_agent.database.database import Reader


_SHOWN_EVENTS = 5
_ANSWER_S = 5.0
"""How long the server of a share may take for a few hundred files of the inbox; a person waits for the status."""


class _About(msgspec.Struct):
    """What the agent noted about itself when it last started."""

    inbox: str
    on_done: str
    ignore: tuple[str, ...]
    model: dict[str, str]


class Status(msgspec.Struct, kw_only=True):
    """What ``status --format json`` prints.

    ``pid`` is null where no agent runs; ``waiting`` counts files in the inbox without a record; ``undisposed`` counts records whose file
    could not leave the inbox yet; ``last`` leaves out the path, which may hold a name. ``doing`` is "starting", "working", "waiting" or
    "stopping" (see :class:`~edge_agent.surfaces.state.AgentState`), null where no agent runs; ``events`` are the newest, newest first.
    """

    home: str
    running: bool
    pid: int | None
    doing: str | None
    waits_for: str | None
    message: str | None
    since: str | None
    inbox: str | None
    model: dict[str, str] | None
    records: int
    by_status: dict[str, int]
    by_decision: dict[str, int]
    duplicates: int
    waiting: int | None
    undisposed: int
    last: dict[str, str | int | None] | None
    free_bytes: int
    read_only: bool
    events: list[dict[str, str]]


@click.command(name="status")
@click.option("--home", type=click.Path(path_type=Path), metavar="DIR", help="Home folder of the agent.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="For people or programs.")
def command(home: Path | None, form: Literal["text", "json"]) -> None:
    """Show whether an agent runs, what it has recorded, and what waits. Changes nothing."""
    from edge_agent.config import load_config

    status = read_status(load_config(None, home=home).home)
    click.echo(msgspec.json.encode(status).decode() if form == "json" else _text(status))


def read_status(home: Path) -> Status:
    """Read the state of an agent.

    Raises
    ------
    StorageError
        If no agent has run on this home folder, or its database cannot be read.
    """
    from edge_agent.agent.home_lock import lock_holder
    from edge_agent.database.database import DATABASE_NAME
    from edge_agent.errors import StorageError
    from edge_agent.surfaces.state import read_state

    try:
        return _read_all(home)
    except StorageError as fault:
        state = home / "state"
        pid = lock_holder(state) if state.is_dir() else None
        said = read_state(state) if pid is not None else None
        if said is None or said.pid != pid:
            raise
        # Its database is just being built again, or is what it waits for: the agent knows more of that.
        what = f"{said.doing} since {_time_text(said.since)[:19]}Z" + (f": {said.message}" if said.message else "")
        why = str(fault) if (state / DATABASE_NAME).exists() else "the database is just being made"
        raise type(fault)(f"an agent runs here (process {pid}), {what}. Its records cannot be shown now: {why}") from fault


def _read_all(home: Path) -> Status:
    from edge_agent.agent.home_lock import lock_holder
    from edge_agent.database.database import DATABASE_NAME, Reader
    from edge_agent.surfaces.state import read_state

    state = home / "state"
    with Reader(state / DATABASE_NAME) as reader:
        note = reader.note("agent")
        about = msgspec.json.decode(note, type=_About) if note else None
        pid = lock_holder(state)
        said = read_state(state) if pid is not None else None
        said = said if said is not None and said.pid == pid else None
        totals, last = reader.totals(), reader.last()
        space = os.statvfs(state)
        return Status(
            home=str(home),
            running=pid is not None,
            pid=pid,
            doing=said.doing if said else None,
            waits_for=said.code or None if said else None,
            message=said.message or None if said else None,
            since=_time_text(said.since) if said else None,
            inbox=about.inbox if about else None,
            model=about.model if about else None,
            records=sum(totals.by_status.values()),
            by_status=totals.by_status,
            by_decision=totals.by_decision,
            duplicates=totals.duplicates,
            waiting=_count_waiting(reader, about) if about else None,
            undisposed=totals.undisposed,
            last=None
            if last is None
            else {
                "id": last.id,
                "finished_at": _time_text(last.finished_at),
                "status": last.status,
                "decision": last.decision,
                "reason": last.reason.code if last.reason else None,
            },
            free_bytes=space.f_bavail * space.f_frsize,
            read_only=bool(space.f_flag & os.ST_RDONLY),
            events=[{"at": _time_text(event.at), "code": event.code, "message": event.message} for event in reader.events(_SHOWN_EVENTS)],
        )


def _time_text(time: datetime) -> str:
    text: str = msgspec.json.encode(time).decode()
    return text.strip('"')


def _count_waiting(reader: Reader, about: _About) -> int | None:
    """Count the files of the inbox that have no record; None where the inbox cannot be read, or its server does not answer."""
    from itertools import islice

    from edge_agent.errors import SourceGoneError
    from edge_agent.files.deadline import NoAnswerError, ask_within
    from edge_agent.intake.scan import BATCH_FILES, IgnoreRule, scan_folder

    count = 0
    seen = scan_folder(Path(about.inbox), IgnoreRule(about.ignore))
    try:
        while batch := ask_within(_ANSWER_S, ("count", about.inbox), lambda: list(islice(seen, BATCH_FILES))):
            count += len(batch) - len(reader.known(batch, with_ctime=about.on_done != "keep"))
    except (SourceGoneError, NoAnswerError):
        return None
    return count


def _text(status: Status) -> str:
    def counts(values: dict[str, int]) -> str:
        return ", ".join(f"{count} {name}" for name, count in sorted(values.items())) or "none yet"

    last = status.last
    lines = {
        "agent": _agent_text(status),
        "home": status.home,
        "inbox": f"{status.inbox or 'not known'}: " + ("cannot be read" if status.waiting is None else f"{status.waiting} waiting"),
        "model": f"{status.model['name']} {status.model['version']}" if status.model else "not known",
        "records": f"{status.records} ({counts(status.by_status)}; {status.duplicates} duplicates)",
        "decisions": counts(status.by_decision),
        "last record": f"{last['id']} at {last['finished_at']}: {last['decision'] or last['status']}"
        + (f" ({last['reason']})" if last["reason"] else "")
        if last
        else "none yet",
        "free space": f"{status.free_bytes / 1e9:.1f} GB" + (", but the disk is mounted read-only" if status.read_only else ""),
    }
    if status.undisposed:
        lines["not moved"] = f"{status.undisposed} recorded images are still in the inbox; may the agent write to their folders?"
    for number, event in enumerate(status.events):
        lines["happened" if number == 0 else " " * number] = f"{event['at'][:19]}Z {event['message']}"
    return "\n".join(f"{name + ':' if name.strip() else '':<13}{value}" for name, value in lines.items())


def _agent_text(status: Status) -> str:
    if not status.running:
        return "not running"
    process = f"running, process {status.pid}" if status.pid else "running"
    if status.doing is None:
        return process
    why = f" since {(status.since or '')[:19]}Z: {status.message}" if status.message else ""
    return f"{process}: {status.doing}{why}"
