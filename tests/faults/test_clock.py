"""A clock that jumps, a suspended process, a night that has an hour twice: records keep their order, and nothing goes for its age."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from support.agent_process import exec_agent, run_agent, start_agent
from support.agents import AgentHome, drop, image_bytes, wait_until
from support.clocks import FakeClock, NoFakeClockError
from support.killing import book_of
from support.real_agent import RealAgent
from support.reckoning import faults_of
from support.writers import Writers

SETTLE_S = 0.1
A_YEAR = timedelta(days=366)
RETENTION = "[retention]\n" + "".join(f"{what}_max_age_days = 100\n" for what in ("done", "rejected", "results", "rows"))


@pytest.fixture
def clock(quick_folder: Path) -> FakeClock:
    """A clock for agents of this test, in a time zone with daylight saving."""
    try:
        return FakeClock(quick_folder, "Europe/Berlin")
    except NoFakeClockError as fault:
        pytest.skip(str(fault))


@contextmanager
def working(home: AgentHome, clock: FakeClock) -> Iterator[None]:
    """Run an agent by that clock; it must end in good order."""
    process = exec_agent(home.home, clock.environment, extra=RETENTION, heartbeat_s=0.1)
    with process:
        try:
            yield
        finally:
            process.terminate()
            _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "Traceback" not in said


class Drops:
    """Images that come one after the other, and what the clock showed when each did."""

    def __init__(self, home: AgentHome) -> None:
        self._home = home
        self.images: dict[str, bytes] = {}
        self.shown: list[datetime] = []

    def come(self, clock: FakeClock, count: int = 1) -> None:
        for _ in range(count):
            name = f"{len(self.images)}.png"
            self.images[name] = image_bytes(len(self.images))
            drop(self._home.inbox, name, self.images[name])
            self.shown.append(clock.now())
            self._home.wait_for(len(self.images))


def exported(home: AgentHome, *options: str) -> list[str]:
    """The paths that ``edge-agent export`` gives."""
    out = home.home.parent / "export.jsonl"
    code, said = run_agent(home.home, command=["export", "--home", str(home.home), "--out", str(out), *options])
    assert code == 0, said
    return [json.loads(line)["path"] for line in out.read_text("utf-8").splitlines()]


def finished(home: AgentHome) -> list[datetime]:
    return [datetime.fromisoformat(row["finished_at"]) for row in home.rows()]


def check_all_is_there(home: AgentHome, drops: Drops) -> None:
    """Nothing is lost or deleted; ids follow the order of arrival; times are what the clock showed, in UTC."""
    code, said = run_agent(home.home, once=True)
    assert code == 0, said
    assert faults_of(home.home, home.inbox, book_of(drops.images)) == []
    assert [row["path"] for row in home.rows()] == list(drops.images)
    for at, shown in zip(finished(home), drops.shown, strict=True):
        assert timedelta() <= at - shown < timedelta(minutes=5)


def test_a_clock_that_jumps_a_year_both_ways(quick_folder: Path, clock: FakeClock) -> None:
    """
    1. An agent works that deletes what is older than 100 days. The clock jumps a year ahead, back to today, a year back, and to today.
    2. The agent is stopped, and started in the wrong year, too.
    Result: ids in the order of arrival, times as the clock showed them, days in the right tables, nothing deleted; the jump is told.
    """
    home = AgentHome(quick_folder)
    drops = Drops(home)
    with working(home, clock):
        for ahead in (timedelta(), A_YEAR, timedelta(), -A_YEAR, timedelta()):
            clock.set_ahead(ahead)
            drops.come(clock, 2)
            time.sleep(0.25)  # for the agent to look after old things
    for ahead in (A_YEAR, timedelta()):
        clock.set_ahead(ahead)
        with working(home, clock):
            drops.come(clock)
            time.sleep(0.25)
    check_all_is_there(home, drops)

    this_year = [name for name, at in zip(drops.images, drops.shown, strict=True) if abs(at - datetime.now(UTC)) < timedelta(days=1)]
    today = datetime.now(UTC) - timedelta(hours=1)
    window = ["--since", today.isoformat(), "--until", (today + timedelta(days=2)).isoformat()]
    assert exported(home, *window) == this_year
    assert exported(home, "--since", (today + timedelta(days=200)).isoformat()) == ["2.png", "3.png", "10.png"]
    assert exported(home, "--until", (today - timedelta(days=200)).isoformat()) == ["6.png", "7.png"]
    assert "clock_jumped" in {event["code"] for event in home.rows("SELECT code FROM event")}


def test_the_night_in_which_an_hour_comes_twice(quick_folder: Path, clock: FakeClock) -> None:
    """
    1. The agent's time zone ends its daylight saving; images come in both of the hours that are called two o'clock.
    2. The day ends, in UTC.
    Result: times in UTC go on rising; each record is in the table of its day in UTC; ``export --since`` cuts where it says.
    """
    home = AgentHome(quick_folder)
    drops = Drops(home)
    change = datetime(2026, 10, 25, 1, 0, tzinfo=UTC)
    clock.set_to(change - timedelta(minutes=10))
    with working(home, clock):
        drops.come(clock)
        clock.set_to(change + timedelta(seconds=1))
        drops.come(clock)
        clock.set_to(change + timedelta(hours=22, minutes=50))
        drops.come(clock)
        clock.set_to(change + timedelta(hours=23, seconds=1))
        drops.come(clock)
    times = finished(home)
    assert times == sorted(times)
    check_all_is_there(home, drops)
    assert sorted(table.name for table in (home.home / "results").glob("*.csv")) == [
        "predictions-2026-10-25.csv",
        "predictions-2026-10-26.csv",
    ]
    assert exported(home, "--since", "2026-10-25T01:00:00Z") == ["1.png", "2.png", "3.png"]
    assert exported(home, "--since", "2026-10-25T02:00:00+01:00") == ["1.png", "2.png", "3.png"], "the second two o'clock"
    assert exported(home, "--until", "2026-10-26") == ["0.png", "1.png", "2.png"]


def test_the_shipped_agent_under_a_jumping_clock(quick_folder: Path, clock: FakeClock) -> None:
    home = AgentHome(quick_folder)
    drops = Drops(home)
    with RealAgent(quick_folder, home.home, extra=RETENTION, environment=clock.environment) as process:
        process.wait_until_started()
        for ahead in (A_YEAR, -A_YEAR, timedelta()):
            clock.set_ahead(ahead)
            drops.come(clock)
        process.terminate()
        assert process.wait(timeout=120) == 0, process.log.read_text("utf-8")
    check_all_is_there(home, drops)


def test_files_whose_dates_are_nonsense(quick_folder: Path) -> None:
    """
    1. Images come with the dates of cameras that nobody set: 1970, 2100.
    Result: one record each; nothing waits for a date to come, nothing is deleted for its date.
    """
    home = AgentHome(quick_folder)
    images = {f"{seed}.png": image_bytes(seed) for seed in range(3)}
    dates = {"0.png": 0, "1.png": 4_102_444_800, "2.png": 2_000_000_000}
    with start_agent(home.home, extra=RETENTION, heartbeat_s=0.05) as process:
        for name, content in images.items():
            file = home.inbox / f".{name}"
            file.write_bytes(content)
            os.utime(file, (dates[name], dates[name]))
            file.rename(home.inbox / name)
        wait_until(lambda: sorted(home.files("done")) == sorted(images))
        time.sleep(0.3)
        process.terminate()
        process.communicate(timeout=120)
    assert run_agent(home.home, once=True)[0] == 0
    assert faults_of(home.home, home.inbox, book_of(images)) == []


def test_a_process_that_is_suspended(quick_folder: Path) -> None:
    """
    1. While many drop images, some slowly, the agent is suspended and goes on, several times.
    Result: nothing is lost, nothing twice, no file taken half.
    """
    home, chance = AgentHome(quick_folder), random.Random(1)
    with start_agent(home.home, settle_time_s=SETTLE_S, extra='[log]\nlevel = "error"\n') as process:
        with Writers(home.inbox, settle_s=SETTLE_S, rate_hz=60, seed=1) as writers:
            rounds = 0
            while rounds < 4 or writers.dropped <= 50:
                rounds += 1
                time.sleep(chance.uniform(0.05, 0.3))
                process.send_signal(signal.SIGSTOP)
                time.sleep(chance.uniform(0.1, 0.5))
                process.send_signal(signal.SIGCONT)
        process.terminate()
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert run_agent(home.home, once=True, settle_time_s=SETTLE_S)[0] == 0
    assert faults_of(home.home, home.inbox, writers.book) == []
