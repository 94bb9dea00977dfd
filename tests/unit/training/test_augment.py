"""Augmentation: bounded, seeded, no change where no range is given, and each change what it says."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from model_build.config import AugmentationConfig  # noqa: E402
from model_build.training.augment import BRIGHTEST_BORDER, augment  # noqa: E402

NOTHING = AugmentationConfig(
    flip=False, rotation_deg=0, scale=0, aspect=0, shift=0, gamma=1, brightness=0, contrast=0, blur_probability=0, noise=0
)
EVERYTHING = AugmentationConfig(low_resolution_probability=0.5, jpeg_probability=0.5, border=0.2)


def grey_batch(count: int = 4) -> np.ndarray:
    return np.random.default_rng(0).random((count, 24, 32, 1)).astype(np.float32)


def changed(batch: np.ndarray, seed: int = 2, **ranges: Any) -> np.ndarray:
    """The batch after the named changes alone."""
    config = msgspec.structs.replace(NOTHING, **ranges)
    return np.asarray(augment(tf.constant(batch), config, tf.constant([1, seed])))


def test_no_range_means_no_change() -> None:
    batch = grey_batch()
    np.testing.assert_allclose(changed(batch), batch, atol=1e-4)


@pytest.mark.parametrize("config", [AugmentationConfig(), EVERYTHING])
def test_changes_follow_the_seed_and_stay_within_black_and_white(config: AugmentationConfig) -> None:
    batch = tf.constant(grey_batch(16))
    first, again, other = (np.asarray(augment(batch, config, tf.constant([1, seed]))) for seed in (2, 2, 3))
    assert (first == again).all()
    assert np.abs(first - other).mean() > 0.01
    assert first.min() >= 0.0
    assert first.max() <= 1.0


def test_shapes_stay_static_in_a_graph() -> None:
    @tf.function(input_signature=[tf.TensorSpec((None, 24, 32, 1)), tf.TensorSpec((2,), tf.int32)])  # type: ignore[untyped-decorator]
    def traced(grey: Any, seed: Any) -> Any:
        out = augment(grey, EVERYTHING, seed)
        assert out.shape.as_list() == [None, 24, 32, 1]
        return out

    assert traced(tf.constant(grey_batch(3)), tf.constant([1, 2])).shape == (3, 24, 32, 1)


def test_flip_mirrors_half_of_the_images() -> None:
    batch = grey_batch(64)
    flipped = changed(batch, flip=True)
    mirrored = [np.abs(f - b[:, ::-1]).max() < 1e-3 for f, b in zip(flipped, batch, strict=True)]
    same = [np.abs(f - b).max() < 1e-3 for f, b in zip(flipped, batch, strict=True)]
    assert sum(mirrored) + sum(same) == 64
    assert 16 <= sum(mirrored) <= 48


def test_scale_keeps_the_centre_in_place() -> None:
    batch = np.zeros((8, 33, 33, 1), np.float32)
    batch[:, 16, 16] = 1.0
    assert all(np.unravel_index(image[..., 0].argmax(), (33, 33)) == (16, 16) for image in changed(batch, scale=0.5))


@pytest.mark.parametrize("name", ["jpeg_probability", "low_resolution_probability"])
@pytest.mark.parametrize(("probability", "least", "most"), [(0.3, 6, 34), (1.0, 64, 64)])
def test_a_probability_is_the_share_of_images_that_change(name: str, probability: float, least: int, most: int) -> None:
    """Of 64 images 19 are expected at 0.3, with a standard deviation of 4; those that do not change do not change at all."""
    batch = grey_batch(64)
    distances = np.abs(changed(batch, **{name: probability}) - changed(batch)).max(axis=(1, 2, 3))
    assert least <= (distances > 0.01).sum() <= most
    assert (distances[distances <= 0.01] == 0.0).all()


def test_lower_resolution_takes_detail_and_keeps_brightness() -> None:
    batch = grey_batch(8)
    smaller = changed(batch, low_resolution_probability=1.0)
    detail = [np.abs(np.diff(images, axis=2)).mean() for images in (batch, smaller)]
    assert detail[1] < 0.8 * detail[0]
    np.testing.assert_allclose(smaller.mean(axis=(1, 2, 3)), batch.mean(axis=(1, 2, 3)), atol=0.02)


def test_jpeg_keeps_the_picture() -> None:
    """A smooth ramp comes through every quality with small errors; brightness is not shifted by the way through colour."""
    ramp = np.repeat(np.linspace(0.2, 0.8, 32, dtype=np.float32)[np.newaxis, np.newaxis, :, np.newaxis], 24, axis=1)
    batch = np.repeat(ramp, 16, axis=0)
    compressed = changed(batch, jpeg_probability=1.0)
    assert np.abs(compressed - batch).max() < 0.15
    np.testing.assert_allclose(compressed.mean(axis=(1, 2, 3)), 0.5, atol=0.02)
    assert len({image.tobytes() for image in compressed}) > 4


def test_borders_stand_at_the_sides_of_half_of_the_images() -> None:
    white = np.ones((64, 40, 60, 1), np.float32)
    masked = changed(white, border=0.25)[..., 0]
    painted = masked < 0.999
    touched = painted.any(axis=(1, 2))
    assert 16 <= touched.sum() <= 48
    assert not painted[:, 10:30, 15:45].any()
    for image, mask in zip(masked[touched], painted[touched], strict=True):
        kept_rows, kept_columns = np.flatnonzero(~mask.all(axis=1)), np.flatnonzero(~mask.all(axis=0))
        # What is left is one rectangle, and one dark grey lies around it.
        rectangle = np.ones_like(mask)
        rectangle[kept_rows[0] : kept_rows[-1] + 1, kept_columns[0] : kept_columns[-1] + 1] = False
        np.testing.assert_array_equal(mask, rectangle)
        assert np.unique(image[mask]).size == 1
        assert image[mask].max() <= BRIGHTEST_BORDER
    widths = [mask.all(axis=0).sum() for mask in painted[touched]]
    assert len(set(widths)) > 4
