"""Augmentation and the training loop: bounded, seeded, resumable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from model_build.augment import augment  # noqa: E402
from model_build.config import AugmentationConfig, TrainConfig  # noqa: E402
from model_build.network import build_trunk  # noqa: E402
from model_build.train import Phase, Trainer, balanced_class_weights, one_cycle  # noqa: E402

NOTHING = AugmentationConfig(
    flip=False, rotation_deg=0, scale=0, aspect=0, shift=0, gamma=1, brightness=0, contrast=0, blur_probability=0, noise=0
)


def grey_batch(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).random((count, 24, 32, 1)).astype(np.float32)


def test_no_range_means_no_change() -> None:
    batch = grey_batch()
    np.testing.assert_allclose(augment(tf.constant(batch), NOTHING, tf.constant([1, 2])).numpy(), batch, atol=1e-4)


def test_changes_follow_the_seed_and_stay_within_black_and_white() -> None:
    batch = tf.constant(grey_batch())
    first = augment(batch, AugmentationConfig(), tf.constant([1, 2])).numpy()
    again = augment(batch, AugmentationConfig(), tf.constant([1, 2])).numpy()
    other = augment(batch, AugmentationConfig(), tf.constant([1, 3])).numpy()
    assert (first == again).all()
    assert np.abs(first - other).mean() > 0.01
    assert first.min() >= 0.0
    assert first.max() <= 1.0


def test_flip_mirrors_half_of_the_images() -> None:
    import msgspec

    batch = grey_batch(64)
    flipped = augment(tf.constant(batch), msgspec.structs.replace(NOTHING, flip=True), tf.constant([5, 6])).numpy()
    mirrored = [np.abs(f - b[:, ::-1]).max() < 1e-3 for f, b in zip(flipped, batch, strict=True)]
    same = [np.abs(f - b).max() < 1e-3 for f, b in zip(flipped, batch, strict=True)]
    assert sum(mirrored) + sum(same) == 64
    assert 16 <= sum(mirrored) <= 48


def test_scale_keeps_the_centre_in_place() -> None:
    import msgspec

    batch = np.zeros((8, 33, 33, 1), np.float32)
    batch[:, 16, 16] = 1.0
    scaled = augment(tf.constant(batch), msgspec.structs.replace(NOTHING, scale=0.5), tf.constant([1, 1])).numpy()
    assert all(np.unravel_index(image[..., 0].argmax(), (33, 33)) == (16, 16) for image in scaled)


def test_one_cycle_rises_and_falls() -> None:
    values = [one_cycle(p / 100) for p in range(101)]
    assert values[0] == pytest.approx(0.04)
    assert max(values) == pytest.approx(1.0)
    assert values.index(max(values)) == 30
    assert values[-1] == pytest.approx(0.0, abs=1e-9)


def test_balanced_weights_give_classes_the_same_total() -> None:
    labels = np.array([0, 0, 0, 1], np.int64)
    weights = balanced_class_weights(labels, 2)[labels]
    assert weights[:3].sum() == pytest.approx(weights[3:].sum())
    assert weights.mean() == pytest.approx(1.0)


@pytest.fixture(scope="module")
def examples() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    labels = np.arange(24) % 2
    pixels = random.integers(0, 80, (24, 32, 32, 1)) + 150 * labels[:, None, None, None] * (np.arange(32)[None, :, None, None] > 15)
    return pixels.astype(np.uint8), labels.astype(np.int64)


def fresh() -> Trainer:
    tf.keras.utils.set_random_seed(3)
    return Trainer(build_trunk(32, 32, 2), 2, TrainConfig(batch_size=8), seed=3)


def test_a_resumed_training_repeats_an_unbroken_one(tmp_path: Path, examples: tuple[np.ndarray, np.ndarray]) -> None:
    phase = Phase("measure", 3, 1e-3, 1e-2)

    whole = fresh()
    whole.run(phase, *examples)
    broken = fresh()
    path = tmp_path / "checkpoint.npz"

    class KillError(Exception):
        pass

    def save_then_die(epochs_done: int) -> None:
        broken.elapsed_s = 12.5
        broken.save(path, phase, epochs_done)
        if epochs_done == 2:
            raise KillError

    with pytest.raises(KillError):
        broken.run(phase, *examples, on_epoch=save_then_die)
    resumed = fresh()
    name, epochs_done = resumed.restore(path)
    assert (name, epochs_done, resumed.elapsed_s) == ("measure", 2, 12.5)
    resumed.run(phase, *examples, epochs_done=epochs_done)
    assert resumed.epoch_losses == pytest.approx(whole.epoch_losses, rel=1e-3)
    for ours, theirs in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-3)


def test_training_learns_and_a_kill_while_saving_leaves_the_old_checkpoint(
    tmp_path: Path, examples: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = fresh()
    phase = Phase("measure", 8, 3e-3, 3e-2)
    trainer.run(phase, *examples)
    assert trainer.epoch_losses[-1] < 0.7 * trainer.epoch_losses[0]
    path = tmp_path / "checkpoint.npz"
    trainer.save(path, phase, 8)

    def torn(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", torn)
    with pytest.raises(OSError, match="No space"):
        trainer.save(path, phase, 9)
    assert trainer.restore(path) == ("measure", 8)
