"""Group commit: an image that is alone waits for nobody. The clock stands still here, so that whatever waits at all would wait for ever."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.agents import AgentHome, make_arrival, make_record

from edge_agent.agent import session as session_module
from edge_agent.agent.quarantine import Quarantine
from edge_agent.agent.session import Session
from edge_agent.agent.worker import Outcome
from edge_agent.agent.worker_pool import GROUP_S, GROUP_SIZE

WORKERS = 2


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A session with two workers that have nothing to do but what a test says, and whose clock stands still."""
    monkeypatch.setattr(session_module.time, "monotonic", lambda: 1000.0)
    home = AgentHome(tmp_path)
    made: Any = Session(home.config, home.agent(), once=False, load=home.load)
    made._workers = [object()] * WORKERS
    made._heartbeat_at_s = math.inf
    made._quarantine = Quarantine([])
    made._ledger = SimpleNamespace(tidy_at_s=lambda *, quiet: math.inf)
    made._intake = SimpleNamespace(is_quiet=False, wake_at_s=lambda: math.inf)
    return made


def finish(session: Any, count: int, *, still_in_hand: int) -> None:
    """Let workers finish images while others are still in their hands."""
    session._in_hand = count + still_in_hand
    for number in range(count):
        session._messages.put(Outcome("record", make_arrival(f"{number}"), make_record()))
    session._receive(0)


def test_an_image_alone_is_entered_at_once(session: Any) -> None:
    finish(session, 1, still_in_hand=0)
    assert session._is_group_due()
    assert session._sleep_s() == 0


@pytest.mark.parametrize("others", range(1, WORKERS + 1))
def test_so_is_one_while_every_other_has_a_worker(session: Any, others: int) -> None:
    finish(session, 1, still_in_hand=others)
    assert session._is_group_due()
    assert session._sleep_s() == 0


def test_an_arrival_alone_is_handed_out_at_once(session: Any) -> None:
    session._ready.append(make_arrival())
    assert session._sleep_s() == 0


def test_only_under_load_do_images_wait_for_each_other_and_not_for_long(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(session, 1, still_in_hand=WORKERS + 1)
    assert not session._is_group_due()
    assert 0 < session._sleep_s() <= GROUP_S + 1e-9
    monkeypatch.setattr(session_module.time, "monotonic", lambda: 1000.0 + GROUP_S)
    assert session._is_group_due()


def test_a_full_group_does_not_wait(session: Any) -> None:
    finish(session, GROUP_SIZE, still_in_hand=WORKERS + 1)
    assert session._is_group_due()
