"""An agent, and those who look at it or work beside it: nobody holds the other up, and whoever reads sees whole records."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from support.agent_process import run_agent, start_agent
from support.agents import AgentHome, doing, drop, image_bytes, wait_until
from support.forking import ForkedProcess
from support.real_agent import RealAgent, edge_agent
from support.reckoning import faults_of
from support.writers import Writers

SETTLE_S = 0.1


@contextmanager
def working(home: AgentHome) -> Iterator[tuple[ForkedProcess, Writers]]:
    """An agent at work under those who drop images; afterwards all must be there once."""
    with start_agent(home.home, settle_time_s=SETTLE_S) as process:
        with Writers(home.inbox, settle_s=SETTLE_S, rate_hz=60, seed=1) as writers:
            wait_until(lambda: len(home.rows()) > 3)
            yield process, writers
        process.terminate()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "waiting code=" not in said, "somebody locked the agent out"
    assert run_agent(home.home, once=True, settle_time_s=SETTLE_S)[0] == 0
    assert faults_of(home.home, home.inbox, writers.book) == []


def test_exports_and_status_beside_a_working_agent(quick_folder: Path) -> None:
    """
    1. While images come, ``export`` (all forms), ``status`` and a second agent are run, again and again, several at a time.
    Result: each export holds whole records in the order of their ids, none left out; status answers; the second agent is refused; the first
    works on.
    """
    home = AgentHome(quick_folder)
    refused: list[str] = []

    def look(number: int) -> None:
        for round_ in range(3):
            seen = len(home.rows())
            out = quick_folder / f"export-{number}-{round_}"
            code, said = run_agent(home.home, command=["export", "--home", str(home.home), "--out", str(out)])
            ids = [json.loads(line)["id"] for line in out.read_bytes().splitlines()] if code == 0 else []
            if code or ids != list(range(1, len(ids) + 1)) or len(ids) < seen:
                refused.append(f"export: {code} {said} {ids}")
            for command in (["export", "--home", str(home.home), "--format", "csv"], ["status", "--home", str(home.home)]):
                code, said = run_agent(home.home, command=command)
                if code:
                    refused.append(f"{command}: {code} {said}")
            code, said = run_agent(home.home, once=True)
            if code != 40 or "another agent" not in said:
                refused.append(f"a second agent: {code} {said}")
            code, said = run_agent(home.home, command=["export", "--rebuild", "--home", str(home.home)])
            if code != 40:
                refused.append(f"a rebuild: {code} {said}")

    with working(home):
        threads = [threading.Thread(target=look, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert refused == []


def test_a_reader_that_takes_its_time_does_not_lock_the_agent_out(quick_folder: Path) -> None:
    """
    1. Another program begins to read the database and keeps its transaction open while images come.
    Result: records are entered meanwhile; the reader sees what it saw in the beginning; afterwards it sees all.
    """
    home = AgentHome(quick_folder)
    count = "SELECT count(*) FROM record"
    with working(home), closing(sqlite3.connect(f"{home.database.as_uri()}?mode=ro", uri=True, isolation_level=None)) as connection:
        connection.execute("BEGIN")
        [seen] = connection.execute(count).fetchone()
        entered = len(home.wait_for(seen + 30))
        assert connection.execute(count).fetchone() == (seen,)
        connection.execute("COMMIT")
        assert connection.execute(count).fetchone()[0] >= entered


def test_another_program_that_writes_is_waited_for(quick_folder: Path) -> None:
    """
    1. Another program locks the database for writing, longer than the agent tries at a time.
    2. It lets go.
    Result: the agent says what it waits for and names the next step; then it goes on by itself, and nothing is lost.
    """
    home = AgentHome(quick_folder)
    images = {f"{seed}.png": image_bytes(seed) for seed in range(4)}
    with start_agent(home.home) as process:
        wait_until(lambda: doing(home.home) == ("working", ""))
        with closing(sqlite3.connect(home.database, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            for name, content in images.items():
                drop(home.inbox, name, content)
            wait_until(lambda: doing(home.home) == ("waiting", "database_locked"))
            connection.execute("ROLLBACK")
        wait_until(lambda: sorted(home.files("done")) == sorted(images))
        process.terminate()
        assert process.wait(timeout=120) == 0


def test_looking_from_a_mount_that_cannot_be_written(quick_folder: Path, disks: None) -> None:
    """
    1. The home folder is also mounted read-only, as for another machine or a container that only looks.
    Result: export and status work there, while the agent writes, and when none runs.
    """
    home = AgentHome(quick_folder)
    mirror = quick_folder / "mirror"
    mirror.mkdir()
    subprocess.run(["mount", "--bind", home.home, mirror], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", mirror], check=True)

        def look() -> None:
            out = quick_folder / "out.jsonl"
            code, said = run_agent(mirror, command=["export", "--home", str(mirror), "--out", str(out)])
            assert code == 0, said
            assert len(out.read_bytes().splitlines()) >= 4
            code, said = run_agent(mirror, command=["status", "--home", str(mirror)])
            assert code == 0, said

        with working(home):
            look()
        look()
    finally:
        subprocess.run(["umount", "--lazy", mirror], check=True)


def test_the_shipped_agent_and_predict_beside_it(quick_folder: Path) -> None:
    """
    1. The shipped agent works. ``predict`` is run on the same images, and ``export`` and ``status`` too.
    Result: all answer; ``predict`` says what the records say, and changes nothing in the home.
    """
    home = AgentHome(quick_folder)
    images = quick_folder / "images"
    images.mkdir()
    for seed in range(6):
        (images / f"{seed}.png").write_bytes(image_bytes(seed, (300, 280)))
    with RealAgent(quick_folder, home.home) as process:
        process.wait_until_started()
        for image in sorted(images.iterdir()):
            drop(home.inbox, image.name, image.read_bytes())
        predicted = edge_agent("predict", images, "--format", "jsonl")
        assert predicted.returncode == 0, predicted.stderr
        home.wait_for(6)
        done = edge_agent("export", "--home", home.home)
        status = edge_agent("status", "--home", home.home, "--format", "json")
        assert (done.returncode, status.returncode) == (0, 0), done.stderr + status.stderr
        assert json.loads(status.stdout)["records"] == 6
        process.terminate()
        assert process.wait(timeout=120) == 0
    scores = {Path(record["path"]).name: record["scores"] for record in map(json.loads, predicted.stdout.splitlines())}
    assert {record["path"]: record["scores"] for record in map(json.loads, done.stdout.splitlines())} == scores


@pytest.mark.parametrize("holder", ["agent", "rebuild"])
def test_the_lock_goes_with_its_holder(quick_folder: Path, holder: str) -> None:
    home = AgentHome(quick_folder)
    drop(home.inbox, "a.png", image_bytes(1))
    assert run_agent(home.home, once=True)[0] == 0
    if holder == "agent":
        with start_agent(home.home) as process:
            wait_until(lambda: doing(home.home) == ("working", ""))
            process.kill()
    else:
        with start_agent(home.home, kill_at="after the daily tables", command=["export", "--rebuild", "--home", str(home.home)]) as process:
            process.wait(120)
    assert process.returncode == -9
    assert run_agent(home.home, once=True)[0] == 0
