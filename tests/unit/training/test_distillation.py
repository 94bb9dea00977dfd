"""Distillation: the student follows the teacher, the teacher stays as it is, and only the student is kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import ConfigError

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
import keras  # noqa: E402
from support.small_trunks import build_small_trunk  # noqa: E402

from model_build.config import AugmentationConfig, DistillationConfig, TrainConfig  # noqa: E402
from model_build.training.distillation import Distillation  # noqa: E402
from model_build.training.train import Phase, Trainer  # noqa: E402

NOTHING = AugmentationConfig(
    flip=False, rotation_deg=0, scale=0, aspect=0, shift=0, gamma=1, brightness=0, contrast=0, blur_probability=0, noise=0
)
PIXELS = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 1)).astype(np.uint8)
TARGETS = np.eye(2, dtype=np.bool_)[np.arange(16) % 2]
PHASE = Phase("measure", 3, 1e-3, 1e-2)


def make_teacher(side: int = 48) -> keras.Model:
    """As a loaded one: logits and feature map, at another input size than the student's."""
    keras.utils.set_random_seed(5)
    trunk = build_small_trunk(side, 20)
    return keras.Model(trunk.input, [keras.layers.Dense(2)(trunk.outputs[0]), trunk.outputs[1]])


def make_trainer(teacher: keras.Model | None, config: DistillationConfig | None) -> Trainer:
    keras.utils.set_random_seed(3)
    config_of_all = TrainConfig(batch_size=8, augmentation=NOTHING, distillation=config)
    return Trainer(build_small_trunk(32), 2, config_of_all, seed=3, teacher=teacher)


def logit_loss(student_logits: np.ndarray, *, multilabel: bool) -> float:
    teacher = make_teacher()
    config = DistillationConfig(temperature=3.0, logit_weight=2.0, feature_weight=0.0)
    distillation = Distillation(teacher, build_small_trunk(32), config, multilabel=multilabel)
    images = PIXELS.astype(np.float32) / 127.5
    return float(distillation.loss(images, tf.constant(student_logits), tf.zeros((16, 8, 8, 12))))


@pytest.mark.parametrize("multilabel", [False, True])
def test_the_logit_loss_is_the_softened_cross_entropy_and_least_at_the_teachers_logits(multilabel: bool) -> None:
    seen = tf.image.resize(PIXELS.astype(np.float32) / 127.5, (48, 48))
    said = np.asarray(make_teacher()(seen, training=False)[0]).astype(np.float64) / 3.0
    p = 1 / (1 + np.exp(-said)) if multilabel else np.exp(said) / np.exp(said).sum(axis=1, keepdims=True)
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).mean() if multilabel else -(p * np.log(p)).sum(axis=1).mean()
    at_teacher = logit_loss((3.0 * said).astype(np.float32), multilabel=multilabel)
    assert at_teacher == pytest.approx(2.0 * 9.0 * entropy, rel=1e-4)
    assert logit_loss((3.0 * said + [[0.5, -0.5]]).astype(np.float32), multilabel=multilabel) > at_teacher


def test_the_feature_loss_is_one_for_the_mean_and_none_for_the_teachers_own_map() -> None:
    teacher = make_teacher(32)
    images = PIXELS.astype(np.float32) / 127.5
    logits, taught = teacher(images, training=False)
    distillation = Distillation(teacher, teacher, DistillationConfig(logit_weight=0.0, feature_weight=1.0), multilabel=False)
    kernel, bias = distillation.variables
    kernel.assign(np.eye(taught.shape[-1])[np.newaxis, np.newaxis])
    assert float(distillation.loss(images, logits, taught)) == pytest.approx(0.0, abs=1e-6)
    kernel.assign(np.zeros(kernel.shape))
    bias.assign(tf.reduce_mean(taught, axis=(0, 1, 2)))
    assert float(distillation.loss(images, logits, taught)) == pytest.approx(1.0, abs=0.05)


def test_a_student_learns_what_its_teacher_says_and_the_teacher_stays_as_it_is() -> None:
    """Labels say nothing here (they alternate over noise): what is learnt of the teacher's feature map comes from the teacher."""
    teacher = make_teacher()
    before = teacher.get_weights()
    with_teacher = make_trainer(teacher, DistillationConfig(logit_weight=1.0, feature_weight=5.0))
    with_teacher.run(Phase("measure", 12, 5e-3, 2e-2), PIXELS, TARGETS, chosen=np.arange(16))
    assert with_teacher.epoch_losses[-1] < 0.8 * with_teacher.epoch_losses[0]
    for ours, theirs in zip(teacher.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_the_projection_is_in_the_checkpoint_and_nowhere_else(tmp_path: Path) -> None:
    config, path = DistillationConfig(), tmp_path / "checkpoint.npz"
    whole = make_trainer(make_teacher(), config)
    whole.run(PHASE, PIXELS, TARGETS, chosen=np.arange(16), on_epoch=lambda done: whole.save(path, PHASE, done) if done == 2 else None)
    resumed = make_trainer(make_teacher(), config)
    _, epochs_done = resumed.restore(path)
    resumed.run(PHASE, PIXELS, TARGETS, chosen=np.arange(16), epochs_done=epochs_done)
    assert resumed.epoch_losses == pytest.approx(whole.epoch_losses, rel=1e-3)
    assert len(resumed.model.weights) == len(make_trainer(None, None).model.weights)
    with pytest.raises(Exception, match="no checkpoint of this build"):
        make_trainer(make_teacher(), config).restore(_saved_without_teacher(tmp_path))


def _saved_without_teacher(folder: Path) -> Path:
    path = folder / "plain.npz"
    make_trainer(None, None).save(path, PHASE, 1)
    return path


@pytest.mark.parametrize("teacher_given", [False, True])
def test_a_teacher_and_its_section_go_together(teacher_given: bool) -> None:
    with pytest.raises(ConfigError, match=r"\[train\.distillation\]"):
        make_trainer(make_teacher() if teacher_given else None, None if teacher_given else DistillationConfig())
