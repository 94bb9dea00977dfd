"""The folder ``results/``: what is written there, and how it is made whole again from the database."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.agents import NOON, make_arrival, make_record

from edge_agent.database.database import Database
from edge_agent.database.pending_commit import PendingCommit
from edge_agent.errors import DiskFullError, StorageError
from edge_agent.outbox import results as results_module
from edge_agent.outbox.results import Mark, ResultFiles
from edge_agent.records import Reason, Record

DAY_CSV = "predictions-2026-07-01.csv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database(tmp_path / "edge-agent.db") as database:
        yield database


def enter(database: Database, *changes: dict[str, Any]) -> list[Record]:
    ids = database.insert(PendingCommit([(make_record(**change), make_arrival(change.get("path", "a"))) for change in changes]))
    return [database.record(record_id) for record_id in ids]


def parsed_file(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def json_lines(folder: Path) -> list[Record]:
    return [msgspec.json.decode(line, type=Record) for line in (folder / "predictions.jsonl").read_bytes().splitlines()]


def test_each_record_stands_in_all_three_forms(folder: Path, database: Database) -> None:
    first, second = enter(database, {"path": "sub/a.png"}, {"path": "b.png", "finished_at": NOON + timedelta(days=1)})
    ResultFiles(folder).append([first, second])
    assert json_lines(folder) == [first, second]
    assert [row["id"] for row in parsed_file(folder / DAY_CSV)] == ["1"]
    assert [row["id"] for row in parsed_file(folder / "predictions-2026-07-02.csv")] == ["2"]
    assert msgspec.json.decode((folder / "sub" / "a.png.json").read_bytes(), type=Record) == first
    assert msgspec.json.decode((folder / "b.png.json").read_bytes(), type=Record) == second
    assert snapshot(folder).keys() == {"predictions.jsonl", DAY_CSV, "predictions-2026-07-02.csv", "sub/a.png.json", "b.png.json"}


def test_a_name_that_comes_twice_keeps_both_sidecars(folder: Path, database: Database) -> None:
    files = ResultFiles(folder)
    for _ in range(3):
        files.append(enter(database, {"path": "a.png"}))
    assert {name: json.loads(content)["id"] for name, content in snapshot(folder).items() if name.endswith(".json")} == {
        "a.png.json": 1,
        "a-2.png.json": 2,
        "a-3.png.json": 3,
    }


def test_names_that_are_in_the_way_are_stepped_around(folder: Path, database: Database) -> None:
    (folder / "x.png.json").mkdir()
    (folder / "y.png.json").write_text("no JSON")
    (folder / "z.png.json").write_text("[]")
    long_name = "n" * 251 + ".png"
    records = enter(
        database, {"path": "x.png"}, {"path": "y.png"}, {"path": "z.png"}, {"path": "predictions.jsonl/q.png"}, {"path": long_name}
    )
    ResultFiles(folder).append(records)
    assert {"x-1.png.json", "y-2.png.json", "z-3.png.json", "predictions.jsonl-folder/q.png.json"} <= snapshot(folder).keys()
    assert [record.id for record in json_lines(folder)] == [1, 2, 3, 4, 5]
    [long_sidecar] = [name for name in snapshot(folder) if name.startswith("nnn")]
    assert len(long_sidecar) == 255


def test_a_torn_tail_and_missing_sidecars_are_healed(folder: Path, database: Database) -> None:
    files = ResultFiles(folder)
    files.append(enter(database, {"path": "a.png"}))
    mark = files.mark()
    files.append(enter(database, {"path": "b.png"}, {"path": "c.png"}))
    whole = snapshot(folder)

    jsonl = folder / "predictions.jsonl"
    jsonl.write_bytes(jsonl.read_bytes()[:-40])
    (folder / DAY_CSV).write_bytes((folder / DAY_CSV).read_bytes()[:-500] + b'3,folder,"torn')
    (folder / "c.png.json").unlink()
    (folder / "b.png.json").write_bytes(b"")
    assert ResultFiles(folder).heal(database, mark) == 2
    assert json_lines(folder) == list(database.records())
    assert snapshot(folder) == whole


def test_healing_what_is_whole_changes_nothing(folder: Path, database: Database) -> None:
    files = ResultFiles(folder)
    files.append(enter(database, {"path": "a.png"}, {"path": "b.png"}))
    whole = snapshot(folder)
    for mark in (files.mark(), Mark()):
        assert ResultFiles(folder).heal(database, mark) == (0 if mark.record_id else 2)
        assert snapshot(folder) == whole


@pytest.mark.parametrize("change", ["cut", "edited", "shifted", "emptied"])
def test_json_lines_that_somebody_changed_are_made_again(folder: Path, database: Database, change: str) -> None:
    files = ResultFiles(folder)
    files.append(enter(database, *({"path": f"{number}.png"} for number in range(3))))
    whole, mark = snapshot(folder), files.mark()
    jsonl = folder / "predictions.jsonl"
    first, second, third = jsonl.read_bytes().splitlines(keepends=True)
    jsonl.write_bytes(
        {"cut": first + second, "edited": first + second + b" " * len(third), "shifted": b"x" + first + second + third, "emptied": b""}[
            change
        ]
    )
    assert ResultFiles(folder).heal(database, mark) == 3
    assert snapshot(folder) == whole


def test_results_that_were_removed_are_made_again(folder: Path, database: Database) -> None:
    files = ResultFiles(folder)
    files.append(enter(database, {"path": "a.png"}, {"path": "b.png"}))
    whole, mark = snapshot(folder), files.mark()
    for name in whole:
        (folder / name).unlink()
    assert ResultFiles(folder).heal(database, mark) == 2
    assert snapshot(folder) == whole


def test_after_healing_the_mark_is_that_of_the_whole(folder: Path, database: Database) -> None:
    files = ResultFiles(folder)
    files.append(enter(database, {"path": "a.png"}))
    again = ResultFiles(folder)
    again.heal(database, Mark())
    assert again.mark() == files.mark() == Mark(1, (folder / "predictions.jsonl").stat().st_size)
    again.sync()


def test_nothing_recorded_nothing_made(folder: Path, database: Database) -> None:
    files = ResultFiles(folder)
    assert files.heal(database, Mark()) == 0
    assert files.mark() == Mark()
    assert snapshot(folder) == {}


def test_rebuild_writes_all_and_keeps_what_is_not_ours(folder: Path, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_module, "CHUNK_RECORDS", 2)
    times = [NOON, NOON + timedelta(days=1), NOON, NOON + timedelta(days=1), NOON]
    records = enter(database, *({"path": f"{number}.png", "finished_at": time} for number, time in enumerate(times)))
    ResultFiles(folder).append(records)
    whole = snapshot(folder)
    (folder / "predictions.jsonl").write_text("rubbish")
    (folder / DAY_CSV).unlink()
    (folder / "notes.txt").write_text("mine")
    assert ResultFiles(folder).rebuild(database) == 5
    assert snapshot(folder) == whole | {"notes.txt": b"mine"}


def test_a_csv_of_the_day_has_its_header_once(folder: Path, database: Database) -> None:
    files = ResultFiles(folder)
    files.append(enter(database, {"path": "a.png"}))
    files.append(enter(database, {"path": "b.png", "reason": Reason("x", "y")}))
    assert (folder / DAY_CSV).read_text().count("model_digest") == 1


def test_a_results_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path, database: Database) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="results"):
        ResultFiles(tmp_path / "file").append(enter(database, {}))
    with pytest.raises(StorageError):
        ResultFiles(tmp_path / "absent").sync()


def test_a_full_disk_is_said(folder: Path, database: Database) -> None:
    (folder / "predictions.jsonl").symlink_to("/dev/full")
    with pytest.raises(DiskFullError, match="free some space"):
        ResultFiles(folder).append(enter(database, {}))
