"""The doctor's look at folders, with the rights of the agent's user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_agent.config import IntakeConfig
from edge_agent.doctor.access import User, home_findings, inbox_findings, user_finding

AGENT = User("edge-agent", is_agent=True)


def test_a_home_that_can_be_written(tmp_path: Path) -> None:
    for name in ("state", "results", "done", "rejected"):
        (tmp_path / name).mkdir()
    before = sorted(tmp_path.rglob("*"))
    (found,) = home_findings(tmp_path, AGENT)
    assert found.verdict == "ok"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_home_that_is_not_there_yet(tmp_path: Path) -> None:
    (found,) = home_findings(tmp_path / "none", AGENT)
    assert found.verdict == "warning"


def test_files_that_somebody_else_left_in_the_state_folder(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can give a file to somebody else")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "edge-agent.db").touch()
    os.chown(tmp_path / "state" / "edge-agent.db", 54321, 54321)
    (found,) = home_findings(tmp_path, AGENT)
    assert found.verdict == "problem"
    assert "1 of the agent's own files" in found.saw
    assert "chown -R root" in found.advice


def test_an_inbox_that_can_be_emptied(tmp_path: Path) -> None:
    (tmp_path / "ward").mkdir()
    (tmp_path / "ward" / "a.png").touch()
    (found,) = inbox_findings(tmp_path, IntakeConfig())
    assert found.verdict == "ok"
    assert [path.name for path in tmp_path.rglob("*.*")] == ["a.png"]


def test_the_umask_of_the_agent() -> None:
    assert user_finding(AGENT, 0o027).verdict == "ok"
    assert user_finding(AGENT, 0o077).verdict == "warning"
    assert "sudo" in user_finding(User("someone", is_agent=False), 0o027).advice
