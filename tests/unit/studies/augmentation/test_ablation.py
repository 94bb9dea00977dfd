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
from model_build.training.augmentation_presets import PRESETS, PresetName, augmentation_preset

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from model_build.data.cohort import split_cohort
from model_build.metrics.bootstrap import Estimate
from model_build.metrics.noninferiority import judge_difference
from model_build.studies.augmentation import ablation
from model_build.studies.augmentation.result import AUGMENTATION, answer_augmentation
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


def group(name: PresetName, shift_mean: float, difference: tuple[float, float, float]) -> ablation.AugmentationGroup:
    def figure(value: float) -> Estimate:
        return Estimate(value, value - 0.01, value + 0.01)

    return ablation.AugmentationGroup(
        name=name,
        auc=figure(0.98),
        balanced_accuracy=figure(0.95),
        shift_mean=figure(shift_mean),
        worst="gamma 1.6",
        shift_worst=figure(shift_mean - 0.1),
        balanced_accuracy_difference=Estimate(0.001, -0.002, 0.004),
        shift_mean_difference=Estimate(*difference),
    )


def ablation_of(*groups: ablation.AugmentationGroup) -> ablation.AugmentationAblation:
    return ablation.AugmentationAblation(held_out_images=900, held_out_patients=500, epochs=8, shift_count=13, groups=list(groups))


def test_the_answer_follows_the_numbers() -> None:
    none = group("none", 0.80, (0, 0, 0))
    geometric, intensity = group("geometric", 0.81, (0.01, -0.01, 0.03)), group("intensity", 0.9, (0.1, 0.08, 0.12))
    answer = answer_augmentation(ablation_of(none, geometric, intensity, group("all", 0.92, (0.12, 0.1, 0.14))))
    assert answer.startswith(
        "All random changes together hold best under shift: balanced accuracy 0.920 (0.910 to 0.930) on average over 13"
    )
    assert "+0.120 (+0.100 to +0.140); under the worst shift 0.820 (gamma 1.6) against 0.700" in answer
    assert "on the images as they are the difference is +0.001 (-0.002 to +0.004), nothing that can be measured" in answer
    assert "geometric alone under shift: +0.010 (-0.010 to +0.030), nothing that can be measured" in answer
    assert "intensity alone under shift: +0.100 (+0.080 to +0.120)" in answer


def test_where_nothing_helps_none_is_the_answer() -> None:
    worse = (-0.05, -0.07, -0.03)
    answer = answer_augmentation(
        ablation_of(group("none", 0.9, (0, 0, 0)), *(group(name, 0.85, worse) for name in ("geometric", "intensity", "all")))
    )
    assert answer.startswith("No random changes hold better under shift than none")
    assert "all together under shift: -0.050 (-0.070 to -0.030)" in answer


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
