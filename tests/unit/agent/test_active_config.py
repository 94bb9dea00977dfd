"""The configuration in use: which one counts after a request, and which one is returned to when no session starts."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edge_agent.agent.active_config import ActiveConfig
from edge_agent.agent.status_reporter import StatusReporter
from edge_agent.agent.timings import Timings
from edge_agent.config import Config, IntakeConfig
from edge_agent.errors import ConfigError, DiskFullError, SourceGoneError


@pytest.fixture
def status(tmp_path: Path) -> StatusReporter:
    return StatusReporter(tmp_path / "state", Timings())


def with_settle_time(config: Config, settle_time_s: float) -> Config:
    return msgspec.structs.replace(config, intake=msgspec.structs.replace(config.intake, settle_time_s=settle_time_s))


def test_a_request_is_answered_once(tmp_path: Path, status: StatusReporter) -> None:
    first = Config(home=tmp_path)
    active = ActiveConfig(first, lambda: with_settle_time(first, 9.0), status)
    assert not active.wait_for_request(0)
    active.request()
    active.request()
    assert active.is_requested
    assert active.wait_for_request(0)
    assert active.reread()
    assert not active.is_requested
    assert active.current.intake.settle_time_s == 9.0


def test_one_that_no_session_starts_with_is_left_for_the_last_that_worked(tmp_path: Path, status: StatusReporter) -> None:
    first = Config(home=tmp_path)
    configs = [with_settle_time(first, 8.0), with_settle_time(first, 9.0)]
    active = ActiveConfig(first, lambda: configs.pop(0), status)
    active.reread()
    active.reread()
    assert not active.go_back(DiskFullError("full")), "the one before would have met with this too"
    assert not active.go_back(SourceGoneError("the inbox is away"))
    assert active.go_back(ConfigError("wrong"))
    assert active.current == first, "the one between them has never worked"
    [(code, message)] = status.take_events()
    assert code == "reload_refused"
    assert message.endswith("goes on with the one before: wrong")
    assert not active.go_back(ConfigError("wrong")), "there is none before it"


def test_another_inbox_is_to_blame_that_it_is_not_there(tmp_path: Path, status: StatusReporter) -> None:
    active = ActiveConfig(Config(home=tmp_path), lambda: Config(home=tmp_path, intake=IntakeConfig(inbox=tmp_path / "absent")), status)
    active.reread()
    assert active.go_back(SourceGoneError("there is no inbox"))


def test_one_that_a_session_started_with_stays(tmp_path: Path, status: StatusReporter) -> None:
    first = Config(home=tmp_path)
    active = ActiveConfig(first, lambda: with_settle_time(first, 9.0), status)
    active.reread()
    active.confirm()
    assert not active.go_back(ConfigError("wrong"))
    assert active.current.intake.settle_time_s == 9.0
