"""``edge-agent export``: records from the database, also while the agent runs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_agent.records import Record


def _utc_time(_context: click.Context, _option: click.Parameter, text: str | None) -> datetime | None:
    """Read a date or an RFC 3339 time; without an offset it is UTC."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(f"{text!r} is not a time; write 2026-07-01 or 2026-07-01T08:30:00Z") from None


@click.command(name="export")
@click.option("--home", type=click.Path(path_type=Path), metavar="DIR", help="Home folder of the agent.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv", "table"]),
    default="jsonl",
    show_default=True,
    help="JSON lines, CSV, or a table for people.",
)
@click.option(
    "--since", callback=_utc_time, metavar="T", help="Only records finished at this time or later: 2026-07-01, 2026-07-01T08:30:00Z."
)
@click.option("--until", callback=_utc_time, metavar="T", help="Only records finished before this time.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write here; standard output if not given.")
@click.option("--rebuild", is_flag=True, help="Write everything in HOME/results again from the database; the agent must be stopped.")
def command(
    home: Path | None,
    form: Literal["jsonl", "csv", "table"],
    since: datetime | None,
    until: datetime | None,
    out: Path | None,
    *,
    rebuild: bool,
) -> None:
    """Write the records of the database to standard output, a file, or HOME/results."""
    from edge_agent.config import load_config
    from edge_agent.database.database import DATABASE_NAME, Reader
    from edge_agent.files.atomic import replacing, storage_error
    from edge_agent.outbox.export import write_records

    home = load_config(None, home=home).home
    database = home / "state" / DATABASE_NAME
    if rebuild:
        context = click.get_current_context()
        for name in ("form", "since", "until", "out"):
            if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
                raise click.UsageError(
                    f"--rebuild writes all of HOME/results; it does not go with --{'format' if name == 'form' else name}"
                )
        with Reader(database):  # says so where no agent has run here
            pass
        _rebuild(home)
        return
    with Reader(database) as reader:
        records = reader.records(since=since, until=until)
        if form == "table":
            _print_table(records, out)
            return
        if out is None:
            write_records(records, form, sys.stdout.buffer)
            return
        if not out.parent.is_dir():
            raise click.BadParameter(f"the folder {out.parent} does not exist", param_hint="--out")
        try:
            with replacing(out, durable=True) as file:
                write_records(records, form, file)
        except OSError as fault:
            raise storage_error(fault, f"write {out}") from fault


def _print_table(records: Iterator[Record], out: Path | None) -> None:
    from edge_agent.surfaces.record_table import print_records

    if out is not None:
        raise click.UsageError("--format table is for reading; with --out use jsonl or csv")
    print_records(records, sys.stdout)


def _rebuild(home: Path) -> None:
    from edge_agent.agent.home_lock import HomeLock
    from edge_agent.upkeep.rebuild import rebuild_results

    # A running agent adds to the very files that are being replaced.
    lock = HomeLock(home / "state")
    try:
        count = rebuild_results(home)
    finally:
        lock.release()
    click.echo(f"{count} records written to {home / 'results'}", err=True)
