"""Augmentation: bounded, seeded, and no change where no range is given."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from model_build.augment import augment  # noqa: E402
from model_build.config import AugmentationConfig  # noqa: E402

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
    batch = grey_batch(64)
    flipped = augment(tf.constant(batch), msgspec.structs.replace(NOTHING, flip=True), tf.constant([5, 6])).numpy()
    mirrored = [np.abs(f - b[:, ::-1]).max() < 1e-3 for f, b in zip(flipped, batch, strict=True)]
    same = [np.abs(f - b).max() < 1e-3 for f, b in zip(flipped, batch, strict=True)]
    assert sum(mirrored) + sum(same) == 64
    assert 16 <= sum(mirrored) <= 48


def test_scale_keeps_the_centre_in_place() -> None:
    batch = np.zeros((8, 33, 33, 1), np.float32)
    batch[:, 16, 16] = 1.0
    scaled = augment(tf.constant(batch), msgspec.structs.replace(NOTHING, scale=0.5), tf.constant([1, 1])).numpy()
    assert all(np.unravel_index(image[..., 0].argmax(), (33, 33)) == (16, 16) for image in scaled)
