"""A build's TOML: the shipped one loads, a wrong one says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.errors import ConfigError
from model_build.config import load_build_config


@pytest.fixture
def shipped(repository: Path) -> str:
    return (repository / "model_build" / "configs" / "cxr-pneumonia.toml").read_text()


def test_every_shipped_config_loads(repository: Path) -> None:
    paths = sorted((repository / "model_build" / "configs").glob("*.toml"))
    assert paths
    for path in paths:
        assert load_build_config(path).name.endswith(path.stem)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs = 10", "epochs = 0", r"train\.epochs"),
        ("epochs = 10", "epoch = 10", "epoch"),
        ("block_count = 11", "block_count = 17", r"trunk\.block_count"),
        ('task = "binary"', 'task = "ranking"', "task"),
        ('kind = "linear_discriminant"', 'kind = "oracle"', r"head\.kind"),
        ('kind = "linear_discriminant"', 'kind = "random_forest"\ninverse_regularization = 0.1', r"head\.inverse_regularization is for"),
        ('positive = ["PNEUMONIA"]', 'positive = ["FLU"]', r"source\.positive"),
        ('labels = ["NORMAL", "PNEUMONIA"]', 'labels = ["PNEUMONIA"]', r"source\.labels"),
        ("seed = 1", "seed = = 1", "TOML"),
        ('name = "cxr-pneumonia"', 'name = "../outside"', "name"),
    ],
)
def test_a_wrong_value_names_file_and_key(tmp_path: Path, shipped: str, old: str, new: str, message: str) -> None:
    assert old in shipped
    path = tmp_path / "build.toml"
    path.write_text(shipped.replace(old, new))
    with pytest.raises(ConfigError, match=message) as caught:
        load_build_config(path)
    assert "build.toml" in str(caught.value)
    assert caught.value.exit_code == 10


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such build config"):
        load_build_config(tmp_path / "none.toml")
