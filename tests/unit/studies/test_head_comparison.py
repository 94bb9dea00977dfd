"""The comparison of heads ranks what is better first, keeps patients together and compares in pairs."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.errors import ConfigError, ModelError
from edge_agent.imaging.preprocess import InputContract
from edge_agent.inference.bundle import default_bundle_path, load_bundle
from model_build.config import HeadConfig, HeadKind
from model_build.studies.head_comparison import compare_heads, every_kind, read_model, render_comparison

CONTRACT = InputContract(rows=160, columns=160)


def ring(count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Two classes that no plane separates: a ball within a shell."""
    random = np.random.default_rng(3)
    positive = np.arange(count) % 2 == 0
    values = random.normal(size=(count, 3))
    values *= (np.where(positive, 2.0, 1.0) / np.linalg.norm(values, axis=1))[:, np.newaxis]
    return (values + random.normal(size=values.shape) * 0.2).astype(np.float32), positive


def test_a_better_head_wins_by_more_than_its_interval() -> None:
    values, positive = ring(200)
    patients = [f"p{index // 2}" for index in range(200)]
    heads = [HeadConfig(), HeadConfig(kind="rbf_svm"), HeadConfig()]
    told: list[int] = []
    linear, rbf, again = compare_heads(values, positive, patients, heads, seed=1, on_fit=lambda done, _: told.append(done))
    assert linear.auc.high < 0.7
    assert rbf.auc.value > 0.95
    assert rbf.auc.low <= rbf.auc.value <= rbf.auc.high
    assert rbf.difference.low > 0.2
    assert (again.difference.value, again.difference.low, again.difference.high) == (0.0, 0.0, 0.0)
    assert told == list(range(1, 16))
    table = render_comparison([linear, rbf], 200, 100).splitlines()
    assert "100 patients (200 images)" in table[0]
    assert table[4].startswith("| logistic_regression | 0.")
    assert table[5].split("|")[3].strip().startswith("+0.")


def test_copies_of_one_patient_never_stand_on_both_sides() -> None:
    """Noise with every patient's image ten times: a head that had seen the copies would recall them."""
    random = np.random.default_rng(0)
    values = random.normal(size=(60, 4)).astype(np.float32).repeat(10, axis=0)
    positive = (np.arange(60) % 2 == 0).repeat(10)
    patients = [f"p{index // 10}" for index in range(600)]
    (head,) = compare_heads(values, positive, patients, [HeadConfig(kind="rbf_svm", inverse_regularization=100.0)], seed=1)
    assert head.auc.value < 0.8
    assert head.auc.high - head.auc.low > 0.15


def test_every_kind_is_compared_once_and_the_config_s_own_comes_first() -> None:
    own = HeadConfig(kind="linear_svm", inverse_regularization=3.0)
    heads = every_kind(own)
    assert heads[0] is own
    assert sorted(head.kind for head in heads) == sorted(get_args(HeadKind))


def test_too_few_patients() -> None:
    values, positive = ring(8)
    with pytest.raises(ConfigError, match="too few patients"):
        compare_heads(values, positive, ["a", "b"] * 4, [HeadConfig()], seed=1)


def test_reads_a_bundle_or_a_bare_model(tmp_path: Path) -> None:
    shipped = load_bundle(default_bundle_path())
    assert read_model(default_bundle_path(), InputContract(rows=64, columns=64)) == (shipped.model, shipped.input)
    assert read_model(default_bundle_path() / "model.tflite", CONTRACT) == (shipped.model, CONTRACT)
    with pytest.raises(ModelError, match="160x160, the config says 64x64"):
        read_model(default_bundle_path() / "model.tflite", InputContract(rows=64, columns=64))
    with pytest.raises(ModelError, match=r"none\.tflite"):
        read_model(tmp_path / "none.tflite", CONTRACT)
