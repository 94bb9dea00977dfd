"""kill -9 at any moment: after the restart every image has exactly one result, everywhere."""

from __future__ import annotations

import csv
import io
import json
import random
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from support.agent_process import KILL_POINTS, start_agent
from support.agents import AgentHome, drop, image_bytes

from edge_agent.store.database import Reader
from edge_agent.store.export import csv_lines, jsonl_line

# Reached only where the inbox is on another file system, or where images are deleted.
CROSSING = ("between copy and removal",)
DELETING = ("between the inbox and deletion",)
ONCE_PER_GROUP = ("before the commit", "after the commit", "after results", "half-way through a line", "before results are noted as synced")
KILLED = -9


def some_images() -> dict[str, bytes]:
    """Different images, two with the same bytes, one in a sub-folder, two that are none."""
    images = {f"{seed}.png": image_bytes(seed) for seed in range(6)}
    return images | {"copy.png": image_bytes(0), "sub/deep.png": image_bytes(7), "text.jpg": b"text\n" * 9, "zero.png": b""}


def check_all_is_there_once(home: AgentHome, images: dict[str, bytes]) -> None:
    """Each image has one record, in the database and in all forms of results/, and the file is where it belongs."""
    assert sorted(row["path"] for row in home.rows()) == sorted(images)
    assert {row["disposed"] for row in home.rows()} == {1}
    with closing(sqlite3.connect(home.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    results = home.home / "results"
    with Reader(home.database) as reader:
        records = list(reader.records())
    assert (results / "predictions.jsonl").read_bytes() == b"".join(map(jsonl_line, records))
    [table] = results.glob("predictions-*.csv")
    assert list(csv.reader(io.StringIO(table.read_bytes().decode(), newline="")))[1:] == list(
        csv.reader(io.StringIO(csv_lines(records), newline=""))
    )
    for record in records:
        assert json.loads((results / f"{record.path}.json").read_text()) == json.loads(jsonl_line(record))
    assert not list(home.home.rglob("*.tmp"))

    assert [path for path in home.inbox.rglob("*") if path.is_file()] == []
    kept = {name: (home.home / "rejected" / name).read_bytes() for name in home.files("rejected") if not name.endswith(".reason.txt")}
    assert kept == {name: content for name, content in images.items() if name in ("text.jpg", "zero.png")}
    for name in kept:
        assert (home.home / "rejected" / f"{name}.reason.txt").exists()
    done = {name: (home.home / "done" / name).read_bytes() for name in home.files("done")}
    assert done == ({} if home.config.intake.on_done == "delete" else {name: images[name] for name in images if name not in kept})
    assert not list((home.home / "state").glob("leaving/*"))


@pytest.mark.parametrize("point", [point for point in KILL_POINTS if point not in CROSSING + DELETING])
def test_killed_at_a_point(tmp_path: Path, point: str) -> None:
    """
    1. Images wait in the inbox. The agent starts, and is killed when it reaches a certain point.
    2. It starts again.
    Result: exactly one result for each image, and nothing half done.
    """
    home, images = AgentHome(tmp_path), some_images()
    for name, content in images.items():
        drop(home.inbox, name, content)
    nth = 1 if point in ONCE_PER_GROUP else 3
    with start_agent(home.home, once=True, kill_at=point, nth=nth) as process:
        _, said = process.communicate(timeout=30)
        assert process.returncode == KILLED, said
    home.run_once()
    check_all_is_there_once(home, images)


@pytest.mark.parametrize("point", [*DELETING, "after the commit", "after the disposal"])
def test_killed_while_deleting(tmp_path: Path, point: str) -> None:
    home, images = AgentHome(tmp_path, on_done="delete"), some_images()
    for name, content in images.items():
        drop(home.inbox, name, content)
    with start_agent(home.home, once=True, kill_at=point, on_done="delete") as process:
        process.communicate(timeout=30)
        assert process.returncode == KILLED
    home.run_once()
    check_all_is_there_once(home, images)


@pytest.mark.parametrize("point", [*CROSSING, "after the commit", "with a sidecar half written"])
def test_killed_between_two_file_systems(tmp_path: Path, other_file_system: Path, point: str) -> None:
    home, images = AgentHome(tmp_path, inbox=other_file_system), some_images()
    for name, content in images.items():
        drop(home.inbox, name, content)
    with start_agent(home.home, once=True, kill_at=point, inbox=home.inbox) as process:
        process.communicate(timeout=30)
        assert process.returncode == KILLED
    home.run_once()
    check_all_is_there_once(home, images)


def test_killed_while_it_recovers(tmp_path: Path) -> None:
    """
    1. The agent is killed after a commit; its next start is killed while it makes up for that, and the one after that too.
    Result: the start that is left alone finishes everything.
    """
    home, images = AgentHome(tmp_path), some_images()
    for name, content in images.items():
        drop(home.inbox, name, content)
    for point, nth in (("after the commit", 1), ("after the disposal", 1), ("with a sidecar half written", 2)):
        with start_agent(home.home, once=True, kill_at=point, nth=nth) as process:
            process.communicate(timeout=30)
            assert process.returncode == KILLED
    home.run_once()
    check_all_is_there_once(home, images)


def kill_at_random(tmp_path: Path, seed: int, *, drops: int, kills: int) -> None:
    """Drop images one after the other while the agent is killed and started again at random moments."""
    home, chance = AgentHome(tmp_path), random.Random(seed)
    images = {f"{number % 3}/{number}.png": image_bytes(1000 * seed + number) for number in range(drops)}

    def keep_dropping() -> None:
        for name, content in images.items():
            drop(home.inbox, name, content)
            time.sleep(0.01)

    dropping = threading.Thread(target=keep_dropping)
    dropping.start()
    for _ in range(kills):
        with start_agent(home.home, classify_s=0.002) as process:
            time.sleep(chance.uniform(0.3, 0.9))  # the first 0.3 s are Python's own start
            process.kill()
            process.communicate()
    dropping.join()
    home.run_once()
    check_all_is_there_once(home, images)


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_at_random_moments(tmp_path: Path, seed: int) -> None:
    kill_at_random(tmp_path, seed, drops=80, kills=3)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(100, 140))
def test_killed_at_random_moments_many_times(tmp_path: Path, seed: int) -> None:
    kill_at_random(tmp_path, seed, drops=300, kills=6)
