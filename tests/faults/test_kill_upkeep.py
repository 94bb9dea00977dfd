"""kill -9 while the agent looks after itself: in a migration, while ``results/`` are made anew, while old things are deleted."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.agent_process import KILL_POINTS, run_agent, start_agent
from support.agents import AgentHome, doing, image_bytes, wait_until
from support.killing import AT_WORK, CROSSING, DELETING, check_all_is_there_once, drop_all, kill_at, some_images
from support.reckoning import read_rows

import edge_agent.database
from edge_agent.database.schema import SCHEMA_VERSION

MIGRATING = [("before a migration", 1), *(("inside a migration", nth) for nth in (2, 4, 6)), ("after a migration", 1)]
REBUILDING = [
    ("half-way through the lines", 4),
    ("with a sidecar half written", 3),
    ("before the daily tables", 1),
    ("after the daily tables", 1),
]
RETAINING = [
    ("before an old image is deleted", 3),
    ("after an old image is deleted", 3),
    ("after an old sidecar is deleted", 3),
    ("before the progress of deletion is noted", 1),
    ("before the progress of deletion is noted", 2),
    ("before old rows are deleted", 1),
    ("after old rows are deleted", 1),
]


def test_every_point_is_tried() -> None:
    assert {*AT_WORK, CROSSING, DELETING, *(point for point, _ in MIGRATING + REBUILDING + RETAINING)} == set(KILL_POINTS)


@pytest.fixture
def worked(quick_folder: Path) -> AgentHome:
    """A home that has done its images."""
    home = AgentHome(quick_folder)
    drop_all(home, some_images())
    assert run_agent(home.home, once=True)[0] == 0
    return home


def make_older(home: AgentHome) -> None:
    """Give a home's records to a database of the first schema."""
    old = home.home / "old.db"
    schema = Path(edge_agent.database.__file__).with_name("migrations") / "0001.sql"
    with closing(sqlite3.connect(old)) as connection:
        connection.executescript(f"PRAGMA journal_mode = WAL; BEGIN; {schema.read_text('utf-8')}; PRAGMA user_version = 1; COMMIT;")
        connection.execute("ATTACH ? AS new", (str(home.database),))
        for table in ("record", "note"):
            connection.execute(f"INSERT INTO main.{table} SELECT * FROM new.{table}")  # noqa: S608
        connection.commit()
    home.database.unlink()
    old.rename(home.database)


@pytest.mark.parametrize(("point", "nth"), MIGRATING)
def test_killed_in_a_migration(worked: AgentHome, point: str, nth: int) -> None:
    """
    1. A box has a database of the first version, and gets this one. The first start is killed in the migration.
    2. It starts again.
    Result: the database is of one version or the next, never between; nothing is lost.
    """
    make_older(worked)
    new = {"new.png": image_bytes(99)}
    drop_all(worked, new)
    kill_at(worked, point, nth, once=True)
    [version] = read_rows(worked.home, "PRAGMA user_version")
    assert version["user_version"] in range(1, SCHEMA_VERSION + 1)
    tables = {row["name"] for row in read_rows(worked.home, "SELECT name FROM sqlite_schema")}
    assert ("attempt" in tables) == (version["user_version"] >= 2)
    check_all_is_there_once(worked, some_images() | new)


@pytest.mark.parametrize("how", ["by command", "by the agent"])
@pytest.mark.parametrize(("point", "nth"), REBUILDING)
def test_killed_while_results_are_made_anew(worked: AgentHome, how: str, point: str, nth: int) -> None:
    """
    1. Somebody removed ``results/``. ``export --rebuild``, or the agent's own start, makes them anew and is killed.
    2. The agent starts.
    Result: ``results/`` hold what the database holds.
    """
    shutil.rmtree(worked.home / "results")
    if how == "by command":
        kill_at(worked, point, nth, command=["export", "--rebuild", "--home", str(worked.home)])
    else:
        kill_at(worked, point, nth, once=True)
    check_all_is_there_once(worked, some_images())


@pytest.mark.parametrize(("point", "nth"), RETAINING)
def test_killed_while_old_things_are_deleted(worked: AgentHome, point: str, nth: int) -> None:
    """
    1. Half of a box's images have come to their age. Their deletion is killed.
    2. An agent that deletes nothing starts; then one that deletes.
    Result: what is not old is all there; what is old goes in the end, everywhere; the rows go last.
    """
    rows = worked.rows()
    with closing(sqlite3.connect(worked.database)) as connection:
        [today] = connection.execute("SELECT max(number) FROM day").fetchone()
        connection.execute("INSERT INTO day VALUES (?, ?)", (today - 40, rows[4]["id"]))
        connection.commit()
    young = rows[5:]
    repeated = {row["duplicate_of"] for row in young} & {row["id"] for row in rows[:5]}  # such rows stay as long as what repeats them
    deleting = "[retention]\n" + "".join(f"{what}_max_age_days = 30\n" for what in ("done", "rejected", "results", "rows"))
    kill_at(worked, point, nth, extra=deleting, heartbeat_s=0.01)
    assert {row["id"] for row in worked.rows()} >= {row["id"] for row in young}
    assert run_agent(worked.home, once=True)[0] == 0
    run_until_deleted(worked, deleting, len(young) + len(repeated))
    check_young_are_there(worked, young)


def run_until_deleted(home: AgentHome, deleting: str, rows: int) -> None:
    with start_agent(home.home, extra=deleting, heartbeat_s=0.01) as process:
        wait_until(lambda: doing(home.home) == ("working", "") and len(home.rows()) == rows)
        process.terminate()
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said


def check_young_are_there(home: AgentHome, young: list[dict[str, object]]) -> None:
    paths = sorted(str(row["path"]) for row in young)
    assert {str(row["path"]) for row in home.rows()} >= set(paths)
    images = [name for folder in ("done", "rejected") for name in home.files(folder) if not name.endswith(".reason.txt")]
    assert sorted(images) == paths
    assert {str(line["path"]) for line in home.lines()} >= set(paths)
    assert {f"{path}.json" for path in paths} <= set(home.files("results"))
