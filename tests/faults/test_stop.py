"""Stopping: without waiting for slow images, with the images in hand finished and no other begun."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from support.agent_process import run_agent, start_agent
from support.agents import AgentHome, drop, image_bytes, wait_until
from support.forking import ForkedProcess

from edge_agent.agent.timings import Timings


def wait_started(process: ForkedProcess) -> None:
    """Read the log up to the line that says that the agent works."""
    assert process.stderr is not None
    while line := process.stderr.readline():
        if " started " in line:
            return
    raise AssertionError("the agent ended without having started")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_agent_in_good_order(tmp_path: Path, number: signal.Signals) -> None:
    """
    1. Four hundred images are there, each takes 0.1 s: many seconds for all. After the first records a signal comes.
    2. The agent is started again.
    Result: it ends with 0; all that it classified is recorded; the others wait and are done after the restart.
    """
    home = AgentHome(tmp_path)
    images = [f"{seed}.png" for seed in range(400)]
    for seed, name in enumerate(images):
        drop(home.inbox, name, image_bytes(seed))
    with start_agent(home.home, classify_s=0.1, drain_s=120) as process:
        home.wait_for(3)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert "unfinished=0" in said
    done = home.rows()
    assert 3 <= len(done) < 400
    assert all(row["disposed"] == 1 for row in done), "a clean stop leaves nothing to recover"
    assert len(home.lines()) == len(done)
    assert len(home.files("inbox")) == 400 - len(done)

    code, said = run_agent(home.home, once=True)
    assert code == 0
    assert sorted(row["path"] for row in home.rows()) == sorted(images)


def test_an_image_that_takes_too_long_does_not_hold_up_the_stop(tmp_path: Path) -> None:
    """
    1. An image takes an hour. The signal comes while it is in hand.
    Result: the agent ends; the image is in the inbox. What it grants the images in hand leaves room in the two seconds that are promised.
    """
    home = AgentHome(tmp_path)
    drop(home.inbox, "slow.png", image_bytes(1))
    assert Timings().drain_s <= 1.5
    with start_agent(home.home, classify_s=3600) as process:
        wait_until(lambda: len(home.rows("SELECT * FROM attempt")) == 1)
        process.terminate()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "unfinished=1" in said
    assert home.files("inbox") == ["slow.png"]
    assert home.rows() == []


def test_a_signal_while_nothing_happens(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    with start_agent(home.home) as process:
        wait_until(lambda: home.database.exists())
        wait_started(process)
        process.terminate()
        assert process.wait(timeout=120) == 0


def test_sighup_reads_the_configuration_again_or_keeps_the_old_one(tmp_path: Path) -> None:
    """
    1. The agent runs with a configuration file, which somebody spoils; SIGHUP. Then somebody mends it, with another on_done; SIGHUP.
    Result: the spoilt file is refused with its error and the work goes on; the mended one counts from then on.
    """
    home, config = AgentHome(tmp_path), tmp_path / "edge-agent.toml"
    text = "[intake]\nsettle_time_s = 0.05\n[model]\nthreads = 2\n"
    config.write_text(text)
    with start_agent(home.home, config=config) as process:
        drop(home.inbox, "a.png", image_bytes(1))
        home.wait_for(1)
        config.write_text(text + "[log]\nlevel = 5\n")
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: home.rows("SELECT code FROM event") == [{"code": "reload_refused"}])
        drop(home.inbox, "b.png", image_bytes(2))
        home.wait_for(2)
        config.write_text(text.replace("0.05", '0.05\non_done = "keep"'))
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: '"on_done":"keep"' in str(home.rows("SELECT value FROM note WHERE name = 'agent'")))
        drop(home.inbox, "c.png", image_bytes(3))
        home.wait_for(3)
        process.terminate()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert "log.level" in said
    assert home.files("inbox") == ["c.png"]
    assert home.files("done") == ["a.png", "b.png"]
