"""A start that takes long, as with a large database on a slow card: systemd hears that it goes on, and a stop does not wait for its end."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.agents import AgentHome, drop, image_bytes
from support.notify import listening

from edge_agent.agent.agent import Agent
from edge_agent.agent.timings import Timings
from edge_agent.database import database, integrity
from edge_agent.database.database import Database
from edge_agent.errors import EdgeAgentError


@pytest.fixture
def home(tmp_path: Path) -> AgentHome:
    """One that has worked before."""
    home = AgentHome(tmp_path)
    for seed in range(20):
        drop(home.inbox, f"{seed}.png", image_bytes(seed))
    home.run_once()
    return home


@pytest.mark.parametrize("damaged", [False, True])
def test_systemd_is_asked_for_patience(home: AgentHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool) -> None:
    """
    1. The database is looked through, or is built again from results/, for longer than a moment.
    Result: systemd is told that this goes on before it is told that the agent is ready.
    """
    if damaged:
        home.database.write_bytes(b"no database" * 1000)
    home.timings = Timings(start_report_s=0.0)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with listening(tmp_path / "notify") as messages:
        home.run_once()
    before = messages[: messages.index("READY=1")]
    assert before.count("EXTEND_TIMEOUT_USEC=60000000\nWATCHDOG=1") >= (3 if damaged else 1)
    assert "STATUS=starting: looking through the database and the results" in before


def test_a_short_start_says_nothing(home: AgentHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.timings = replace(home.timings, start_report_s=120.0)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with listening(tmp_path / "notify") as messages:
        home.run_once()
    assert messages
    assert not any(message.startswith("EXTEND") for message in messages)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_stop_does_not_wait_for_the_end_of_it(home: AgentHome, caplog: pytest.LogCaptureFixture, damaged: bool) -> None:
    """
    1. A stop is asked for while the database is about to be looked through or built again; the agent is started once more.
    Result: the first start is given up, in good order; the second finds everything.
    """
    if damaged:
        home.database.write_bytes(b"no database" * 1000)
    drop(home.inbox, "new.png", image_bytes(99))
    caplog.set_level(logging.INFO)

    def load(*args: Any) -> Any:
        agent.stop()
        return home.load(*args)

    agent = Agent(home.config, load=load)
    agent.run()
    assert "started " not in caplog.text
    assert home.files("inbox") == ["new.png"]
    home.run_once()
    assert len(home.rows()) == 21
    assert len(home.lines()) == 21


def test_sqlite_itself_is_interrupted(home: AgentHome, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "_PROGRESS_STEPS", 10)
    monkeypatch.setattr(database, "read_ahead", lambda *_: None)

    def give_up() -> None:
        raise EdgeAgentError("that is enough")

    with pytest.raises(EdgeAgentError, match="that is enough") as caught:
        Database(home.database, give_up)
    assert not isinstance(caught.value.__cause__, sqlite3.Error)
    Database(home.database, lambda: None).close()
