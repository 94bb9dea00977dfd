"""What must be in a home folder after all faults, and what is there: by SQL, by listing folders, by reading files."""

from __future__ import annotations

import csv
import hashlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from support.writers import Drop

NOTE_SUFFIX = ".reason.txt"
Row = dict[str, Any]


def read_rows(home: Path, sql: str = "SELECT * FROM record ORDER BY id") -> list[Row]:
    """Read the database beside whoever writes it."""
    with closing(sqlite3.connect(f"{(home / 'state' / 'edge-agent.db').as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(sql)]


def image_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path there; without the notes that the agent writes beside rejected ones."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith((NOTE_SUFFIX, ".tmp"))
    }


def faults_of(home: Path, inbox: Path, book: Iterable[Drop], *, after_cut: frozenset[tuple[str, str]] | None = None) -> list[str]:
    """Compare a home folder, whose agent has done all and ended, with what was dropped.

    Parameters
    ----------
    home, inbox : Path
        As the agent had them.
    book : iterable of Drop
        Everything that was ever dropped into this inbox.
    after_cut : frozenset of (str, str), optional
        The power failed meanwhile. Path and SHA-256 of what had been recorded before; of the rest only durable drops are asked for.

    Returns
    -------
    list of str
        One line for each thing that is not as it must be; empty where nothing is lost, nothing twice, and all agree.
    """
    book = list(book)
    drops = [drop for drop in book if drop.state != "begun" or after_cut is not None]
    asked = [drop for drop in drops if not drop.excused and (after_cut is None or is_promised(drop, after_cut))]
    is_asked = set(map(id, asked))
    others = [drop for drop in book if id(drop) not in is_asked]
    free = {name for drop in others for name in drop.names}
    rows = read_rows(home)
    return [
        *_database_faults(home),
        *_record_faults(rows, asked, free),
        *_inbox_faults(inbox, free),
        *_place_faults(home / "done", [drop for drop in asked if drop.is_image], others),
        *_place_faults(home / "rejected", [drop for drop in asked if not drop.is_image], others),
        *_leftovers(home),
        *_result_faults(home, rows),
    ]


def is_promised(drop: Drop, recorded: frozenset[tuple[str, str]]) -> bool:
    """Tell whether a drop must outlive a power cut; ``recorded`` are path and SHA-256 of what had a record before."""
    return drop.state == "durable" or any((name, drop.sha256) in recorded for name in drop.names)


def _database_faults(home: Path) -> list[str]:
    said = read_rows(home, "PRAGMA integrity_check")
    faults = [f"integrity_check: {row}" for row in said if list(row.values()) != ["ok"]]
    faults += [f"foreign_key_check: {row}" for row in read_rows(home, "PRAGMA foreign_key_check")]
    faults += [f"record {row['id']} is not disposed of" for row in read_rows(home, "SELECT id FROM record WHERE disposed = 0")]
    return faults


def _record_faults(rows: list[Row], asked: list[Drop], free: set[str]) -> list[str]:
    """Each drop has one record, and no record stands for nothing."""
    faults = []
    found = Counter((row["path"], row["sha256"]) for row in rows)
    status = {(row["path"], row["sha256"]): row["status"] for row in rows}
    allowed = {(name, drop.sha256) for drop in asked for name in drop.names}
    for drop in asked:
        counts = [found[name, drop.sha256] for name in drop.names]
        if not any(counts) and not drop.overwritten:
            faults.append(f"{drop.names} ({drop.state}) has no record")
        if max(counts) > 1:
            faults.append(f"{drop.names} has {max(counts)} records")
        expected = "done" if drop.is_image else "rejected"
        wrong = {status[name, drop.sha256] for name in drop.names if found[name, drop.sha256]} - {expected}
        if wrong:
            faults.append(f"{drop.names} is {wrong}, not {expected}")
    faults += [f"{path} has a record that nobody dropped" for path, sha256 in found if (path, sha256) not in allowed and path not in free]
    first_of = {row["id"]: row["sha256"] for row in rows}
    faults += [
        f"record {row['id']} repeats another image"
        for row in rows
        if row["duplicate_of"] is not None and first_of.get(row["duplicate_of"]) != row["sha256"]
    ]
    return faults


def _inbox_faults(inbox: Path, free: set[str]) -> list[str]:
    return [f"{path} is still in the inbox" for path in image_files(inbox) if not path.endswith(".part") and path not in free]


def _place_faults(place: Path, asked: list[Drop], others: list[Drop]) -> list[str]:
    """Each drop's bytes stand in ``done/`` or ``rejected/``, below its folder's name, once for each time that they were dropped.

    Of the others (excused, overwritten, lost by the power cut in the middle) parts may stand there.
    """
    files = image_files(place)
    there = Counter((_parent(path), sha256) for path, sha256 in files.items())
    least = Counter((_parent(drop.names[0]), drop.sha256) for drop in asked if not drop.overwritten)
    most = Counter((_parent(drop.names[0]), drop.sha256) for drop in [*asked, *others])
    parts_in = {_parent(drop.names[0]) for drop in others}
    faults = [f"{place.name}/{where} misses {count} of {least[where, sha256]} files" for (where, sha256), count in (least - there).items()]
    for (where, sha256), count in (there - most).items():
        if (where, sha256) in most or where not in parts_in:
            faults.append(f"{place.name} holds {count} too many of {[path for path, each in files.items() if each == sha256]}")
    return faults


def _leftovers(home: Path) -> list[str]:
    faults = [f"{path} was left behind" for path in home.rglob("*.tmp")] + [f"{path} is stuck" for path in home.glob("state/leaving/*")]
    rejected = home / "rejected"
    images = image_files(rejected)
    faults += [f"rejected/{path} has no note" for path in images if not _has_text(rejected / f"{path}{NOTE_SUFFIX}")]
    notes = (path.relative_to(rejected).as_posix().removesuffix(NOTE_SUFFIX) for path in rejected.rglob(f"*{NOTE_SUFFIX}"))
    return faults + [f"rejected/{path} has a note, but is not there" for path in notes if path not in images]


def _has_text(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _result_faults(home: Path, rows: list[Row]) -> list[str]:
    """``results/`` says what the database says: the lines in the order of the ids, the days, and one sidecar for each record."""
    results = home / "results"
    expected = [(row["id"], row["path"], row["sha256"], row["finished_at"], row["status"], row["label"]) for row in rows]
    lines = [json.loads(line) for line in (results / "predictions.jsonl").read_text("utf-8").splitlines()] if rows else []
    faults = _compare("predictions.jsonl", expected, [_key(line) for line in lines])
    by_day: list[tuple[Any, ...]] = []
    for table in sorted(results.glob("predictions-*.csv")):
        with table.open(encoding="utf-8", newline="") as file:
            of_day = [_key(row) for row in csv.DictReader(file)]
        day = table.stem.removeprefix("predictions-")
        faults += [f"{table.name} holds record {key[0]} of {key[3]}" for key in of_day if not key[3].startswith(day)]
        by_day += of_day
    faults += _compare("the daily tables", expected, sorted(by_day))
    sidecars = list(results.rglob("*.json"))
    owners: Counter[int] = Counter()
    for path in sidecars:
        try:
            owners[json.loads(path.read_bytes())["id"]] += 1
        except ValueError:
            faults.append(f"{path.relative_to(results)} is not whole")
    return faults + _compare("sidecars", [(row["id"],) for row in rows], sorted((owner,) for owner in owners.elements()))


def _key(line: Row) -> tuple[Any, ...]:
    digits = line["finished_at"].rstrip("Z")
    # The database has all six digits always, so that text order is time order.
    finished_at = f"{digits}Z" if "." in digits else f"{digits}.000000Z"
    return int(line["id"]), line["path"], line["sha256"], finished_at, line["status"], line["label"] or None


def _compare(what: str, expected: list[tuple[Any, ...]], found: list[tuple[Any, ...]]) -> list[str]:
    if expected == found:
        return []
    missing, extra = Counter(expected) - Counter(found), Counter(found) - Counter(expected)
    if not missing and not extra:
        return [f"{what}: not in the order of the ids"]
    return [f"{what}: misses {len(missing)} of {len(expected)} records, has {len(extra)} others: {[*missing, *extra][:3]}"]
