"""The probation of an installed model: what proves it, what brings the one before back, and when a new one is noticed."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.agents import MODEL, activate_model

from edge_agent.config import Config, ModelConfig
from edge_agent.deployment.model_store import ModelStore
from edge_agent.deployment.probation import PROVEN_AFTER, ModelProbation
from edge_agent.records import ModelIdentity

NEW = ModelIdentity("fake", "2", "e" * 64)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    activate_model(tmp_path, NEW)
    return ModelStore(tmp_path)


def is_proven(store: ModelStore) -> bool:
    active = store.active()
    assert active is not None
    return active.proven


def begun(store: ModelStore, config: Config, model: ModelIdentity = NEW) -> ModelProbation:
    probation = ModelProbation(store, config)
    probation.started(model)
    return probation


def test_a_model_is_proven_by_its_first_images_and_not_by_one_less(store: ModelStore, tmp_path: Path) -> None:
    probation = begun(store, Config(home=tmp_path))
    for _ in range(PROVEN_AFTER - 1):
        probation.count(NEW)
    assert not is_proven(store)
    probation.count(NEW)
    assert is_proven(store)
    assert not probation.is_replaced(), "our own note is no other model"
    assert probation.roll_back("a fault") is None
    assert store.active() is not None


def test_images_count_over_sessions_with_the_same_model_only(store: ModelStore, tmp_path: Path) -> None:
    probation = begun(store, Config(home=tmp_path), MODEL)
    for _ in range(PROVEN_AFTER - 1):
        probation.count(MODEL)
    probation.started(NEW)
    for _ in range(PROVEN_AFTER - 1):
        probation.count(NEW)
    assert not is_proven(store)
    probation.started(NEW)
    probation.count(NEW)
    assert is_proven(store)


def test_one_that_fails_is_left_for_the_model_before(store: ModelStore, tmp_path: Path) -> None:
    message = begun(store, Config(home=tmp_path)).roll_back("invoke failed")
    assert message is not None
    assert "fake 2 failed on this box" in message
    assert "invoke failed" in message
    assert store.active() is None


def test_one_that_the_configuration_names_is_left_alone(store: ModelStore, tmp_path: Path) -> None:
    probation = begun(store, Config(home=tmp_path, model=ModelConfig(bundle=tmp_path / "bundle")))
    for _ in range(PROVEN_AFTER):
        probation.count(NEW)
    assert not is_proven(store)
    assert probation.roll_back("a fault") is None
    activate_model(tmp_path, MODEL)
    assert not probation.is_replaced()


def test_another_model_is_noticed_until_the_next_session_begins(store: ModelStore, tmp_path: Path) -> None:
    config = Config(home=tmp_path)
    probation = begun(store, config)
    assert not probation.is_replaced()
    activate_model(tmp_path, MODEL)
    assert probation.is_replaced()
    probation.begin_session(config)
    assert not probation.is_replaced()
