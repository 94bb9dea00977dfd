"""The doctor's look at the service, the running agent and its database."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.agents import AgentHome, drop, image_bytes

from edge_agent.agent.home_lock import HomeLock
from edge_agent.doctor.finding import ok
from edge_agent.doctor.service import agent_finding, agent_umask, crash_finding, database_findings, running_agent, unit_verdict
from edge_agent.surfaces.state import StateFile


def write(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_no_agent_has_been_here(tmp_path: Path) -> None:
    assert agent_finding(tmp_path / "state").verdict == "ok"
    assert database_findings(tmp_path) == ([ok("database", "none yet: no agent has run on this home")], None)
    assert crash_finding(tmp_path / "state") is None


def test_an_agent_that_runs_and_one_that_waits(tmp_path: Path) -> None:
    lock, state = HomeLock(tmp_path), StateFile(tmp_path)
    try:
        state.show("working")
        assert running_agent(tmp_path) == os.getpid()
        assert agent_finding(tmp_path).saw.startswith(f"runs, process {os.getpid()}, working since")
        state.show("waiting", "inbox_away", "mount the share")
        found = agent_finding(tmp_path)
        assert (found.verdict, found.advice) == ("problem", "mount the share")
        assert "inbox_away" in found.saw
    finally:
        lock.release()
    assert agent_finding(tmp_path).saw == "none runs on this home now"


def test_the_state_of_an_agent_that_is_gone_is_no_news(tmp_path: Path) -> None:
    StateFile(tmp_path).show("waiting", "disk_full", "free some space")
    assert agent_finding(tmp_path).verdict == "ok"


def test_umask_of_a_process(tmp_path: Path) -> None:
    write(tmp_path, {"proc/7/status": "Name:\tedge-agent\nUmask:\t0027\nState:\tS\n"})
    assert agent_umask(7, tmp_path) == 0o027
    assert agent_umask(8, tmp_path) is None
    assert agent_umask(None, tmp_path) is None


def test_what_the_last_crash_said(tmp_path: Path) -> None:
    (tmp_path / "crash-last.txt").write_text("Fatal Python error: Segmentation fault\n\nThread 0x0000\n")
    found = crash_finding(tmp_path)
    assert found is not None
    assert found.verdict == "warning"
    assert found.saw.endswith("Fatal Python error: Segmentation fault")


def test_a_sound_database_and_a_damaged_one(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    for seed in range(3):
        drop(home.inbox, f"{seed}.png", image_bytes(seed))
    home.run_once()
    (found,), newest = database_findings(home.home)
    assert found.verdict == "ok"
    assert found.saw.startswith("3 records, ")
    assert newest is not None
    with home.database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (home.database.stat().st_size - 4096))
    (found,), _ = database_findings(home.home)
    assert found.verdict == "problem"


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ({"LoadState": "not-found"}, "ok"),
        ({"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "NRestarts": "0"}, "ok"),
        ({"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "disabled", "NRestarts": "0"}, "warning"),
        ({"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled", "NRestarts": "7"}, "warning"),
        ({"LoadState": "loaded", "ActiveState": "activating", "UnitFileState": "enabled", "ExecMainStatus": "10"}, "problem"),
        ({"LoadState": "bad-setting", "ActiveState": "inactive"}, "problem"),
    ],
)
def test_what_systemd_says(said: dict[str, str], verdict: str) -> None:
    assert unit_verdict(said).verdict == verdict
