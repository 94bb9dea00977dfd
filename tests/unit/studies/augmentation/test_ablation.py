"""Kinds of random changes: which setting belongs where, what is kept over a kill, what is concluded from the figures."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from support.ablations import SIDE, build_config, image_set

from edge_agent.errors import ConfigError
from model_build.config import AugmentationConfig, TrainConfig
from model_build.training.augmentation_presets import PRESETS, augmentation_preset

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from model_build.data.cohort import split_cohort
from model_build.metrics.bootstrap import Estimate
from model_build.metrics.noninferiority import judge_difference
from model_build.studies.augmentation import ablation
from model_build.studies.augmentation.result import AUGMENTATION
from model_build.training.augment import augment
from model_build.training.quantize import convert_to_int8

EVERYTHING = AugmentationConfig(low_resolution_probability=0.5, jpeg_probability=0.5, border=0.1)


def test_every_random_change_is_geometric_or_of_intensity() -> None:
    geometric, intensity = (msgspec.to_builtins(augmentation_preset(name, EVERYTHING)) for name in ("geometric", "intensity"))
    everything, none = (msgspec.to_builtins(augmentation_preset(name, EVERYTHING)) for name in ("all", "none"))
    for field, value in everything.items():
        assert none[field] != value, f"{field} is not switched off by 'none'"
        assert {geometric[field], intensity[field]} == {value, none[field]}, f"{field} must be in exactly one group"


def test_the_preset_none_changes_no_image() -> None:
    import tensorflow as tf

    batch = np.random.default_rng(0).random((4, 24, 32, 1)).astype(np.float32)
    changed = augment(tf.constant(batch), augmentation_preset("none", EVERYTHING), tf.constant([1, 2])).numpy()
    np.testing.assert_allclose(changed, batch, atol=1e-4)


def test_a_finished_group_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = build_config("binary", ["no", "yes"], ["yes"])
    images = image_set(np.eye(2, dtype=np.bool_)[(np.arange(80) // 2) % 2])
    cohort = split_cohort(images, config)
    trained: list[str] = []

    class KillError(Exception):
        pass

    def train_group(config: object, *_: object) -> bytes:
        assert isinstance(config, type(cohort.config))
        if len(trained) == 3:
            raise KillError
        trained.append(str(config.train.augmentation.flip) + str(config.train.augmentation.gamma))
        return model

    import keras

    image = keras.Input((SIDE, SIDE, 1))
    features = keras.layers.Conv2D(6, 8, strides=8, activation="relu")(image)
    trunk = keras.Model(image, [keras.layers.GlobalAveragePooling2D()(features), features])
    model = convert_to_int8(trunk, images.pixels[np.arange(8)])
    monkeypatch.setattr(ablation, "train_group", train_group)
    with pytest.raises(KillError):
        ablation.measure_augmentation(images, cohort, tmp_path, epochs=1)
    assert trained == ["False1.0", "True1.0", "False1.5"]
    trained.clear()
    found = ablation.measure_augmentation(images, cohort, tmp_path, epochs=1)
    assert trained == ["True1.5"]
    assert [g.name for g in found.groups] == list(PRESETS)
    # The same model each time: nothing differs, under no shift.
    assert all(g.shift_mean_difference.value == g.balanced_accuracy_difference.value == 0.0 for g in found.groups)
    assert found.groups[0].shift_worst.value <= found.groups[0].shift_mean.value

    AUGMENTATION.write(found, tmp_path)
    assert msgspec.json.decode((tmp_path / "augmentation.json").read_bytes(), type=ablation.AugmentationAblation) == found
    assert (tmp_path / "augmentation.png").read_bytes().startswith(b"\x89PNG")
    assert "| geometric |" in (tmp_path / "augmentation.md").read_text()

    with pytest.raises(ConfigError, match=r"none\.npz: was made with another config"):
        ablation.measure_augmentation(images, cohort, tmp_path, epochs=2)


def test_training_a_group_gives_an_int8_model(tmp_path: Path) -> None:
    config = build_config("multilabel", ["x", "y"], ["x", "y"])
    images = image_set(np.random.default_rng(1).random((48, 2)) < 0.5)
    cohort = split_cohort(images, config)
    steps: list[int] = []
    model = ablation.train_group(ablation.with_group(config, "all", 1), images, cohort, lambda step: steps.append(step.batch))
    assert steps == [1, 2, 3]
    logits = ablation.shifted_logits(model, images, cohort, lambda done, name: None)
    assert logits.shape == (1 + len(ablation.SHIFTS), 24, 2)
    assert np.abs(logits[1:] - logits[0]).max() > 0.01


def test_a_frozen_cnn_has_nothing_to_augment(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no say"):
        ablation.refuse_frozen(tmp_path / "few.toml", TrainConfig(labels_per_class=100))
    ablation.refuse_frozen(tmp_path / "many.toml", TrainConfig())


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((-0.004, 0.01), "no worse"), ((-0.004, -0.001), "no worse"), ((-0.02, -0.001), "worse"), ((-0.02, 0.01), "unclear")],
)
def test_what_an_interval_allows_to_say(interval: tuple[float, float], verdict: str) -> None:
    assert judge_difference(Estimate(sum(interval) / 2, *interval), 0.005) == verdict


def test_the_command_names_what_is_missing(tmp_path: Path) -> None:
    from model_build.cli import cli

    runner = CliRunner()
    assert "precision" in runner.invoke(cli, ["ablate", "--help"]).output
    missing = runner.invoke(cli, ["ablate", "precision", str(tmp_path), "--data", str(tmp_path)])
    assert isinstance(missing.exception, ConfigError)
    assert "config.toml" in str(missing.exception)
