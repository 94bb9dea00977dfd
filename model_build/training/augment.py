"""Random changes of training images, as TensorFlow operations on a whole batch: geometry, intensity, blur, noise; then what a film goes
through on its way: lower resolution, JPEG, masked borders."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from model_build.config import AugmentationConfig

LARGEST_REDUCTION = 3.0
JPEG_QUALITIES = (10, 95)
BRIGHTEST_BORDER = 0.3


def _inverse_affine(count: Any, rows: int, columns: int, config: AugmentationConfig, seed: Any) -> Any:
    """Draw one affine map per image, output pixel to input pixel, as the eight values that TensorFlow's projective transform takes."""
    draws = tf.random.stateless_uniform([count, 6], seed, -1.0, 1.0)
    flip = tf.where(config.flip & (draws[:, 0] < 0.0), -1.0, 1.0)
    angle = draws[:, 1] * math.radians(config.rotation_deg)
    scale = tf.exp(draws[:, 2] * math.log1p(config.scale))
    half_aspect = tf.exp(draws[:, 3] * (0.5 * math.log1p(config.aspect)))
    # Output pixel -> input pixel: dividing by a scale above 1 enlarges.
    along_columns = flip / (scale * half_aspect)
    along_rows = half_aspect / scale
    a, b = tf.cos(angle) * along_columns, -tf.sin(angle) * along_rows
    c, d = tf.sin(angle) * along_columns, tf.cos(angle) * along_rows
    centre_x, centre_y = (columns - 1) / 2.0, (rows - 1) / 2.0
    shift_x = centre_x * (1.0 + 2.0 * config.shift * draws[:, 4]) - a * centre_x - b * centre_y
    shift_y = centre_y * (1.0 + 2.0 * config.shift * draws[:, 5]) - c * centre_x - d * centre_y
    zeros = tf.zeros_like(a)
    return tf.stack([a, b, shift_x, c, d, shift_y, zeros, zeros], axis=1)


def _per_image(values: Any) -> Any:
    """Values, shape (batch,), so that they spread over images, shape (batch, rows, columns, channels)."""
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]


def _lower_resolution(grey: Any, probability: float, seed: Any) -> Any:
    """Shrink and enlarge again, as a film that was stored at a smaller size.

    The factor, from 1 to :data:`LARGEST_REDUCTION` with a uniform logarithm, is drawn once for the batch, since a batch is resized in one
    piece; each image takes the result with ``probability``. Shapes, dtype and range as :func:`augment` has them.
    """
    rows, columns = int(grey.shape[1]), int(grey.shape[2])
    draws = tf.random.stateless_uniform([tf.shape(grey)[0] + 1], seed)
    factor = tf.exp(draws[0] * math.log(LARGEST_REDUCTION))
    size = tf.maximum(1, tf.cast(tf.round(tf.constant([rows, columns], tf.float32) / factor), tf.int32))
    reduced = tf.image.resize(tf.image.resize(grey, size, antialias=True), [rows, columns])
    return tf.where(_per_image(draws[1:] < probability), tf.ensure_shape(reduced, grey.shape), grey)


def _compress(grey: Any, probability: float, seed: Any) -> Any:
    """Compress as JPEG of a quality drawn from :data:`JPEG_QUALITIES`; each image with ``probability``.

    Shapes, dtype and range as :func:`augment` has them; a compressed image has 256 grey values.
    """
    draws = tf.random.stateless_uniform([tf.shape(grey)[0], 2], seed)
    low, high = JPEG_QUALITIES
    qualities = tf.cast(tf.round(low + (high - low) * draws[:, 0]), tf.int32)

    def compress_one(image: Any, quality: Any) -> Any:
        # TensorFlow compresses colour only; of three equal channels the codec keeps the brightness, and the first one is it again.
        return tf.image.adjust_jpeg_quality(tf.image.grayscale_to_rgb(image), quality)[:, :, :1]

    def one(drawn: Any) -> Any:
        image, quality, chance = drawn
        return tf.cond(chance < probability, lambda: compress_one(image, quality), lambda: image)

    compressed = tf.map_fn(one, (grey, qualities, draws[:, 1]), fn_output_signature=tf.float32)
    return tf.ensure_shape(compressed, grey.shape)


def _mask_border(grey: Any, border: float, seed: Any) -> Any:
    """Paint over a strip along each side, of a width up to ``border`` and a dark grey drawn anew; half of the images keep their borders.

    Markers and collimator edges stand there: a network that leans on them does not find them in half of its images. Shapes, dtype and range
    as :func:`augment` has them.
    """
    rows, columns = int(grey.shape[1]), int(grey.shape[2])
    draws = tf.random.stateless_uniform([tf.shape(grey)[0], 6], seed)
    widths = border * draws[:, :4] * tf.where(draws[:, 5:] < 0.5, 1.0, 0.0)
    y = (tf.range(rows, dtype=tf.float32) + 0.5)[tf.newaxis] / rows
    x = (tf.range(columns, dtype=tf.float32) + 0.5)[tf.newaxis] / columns
    inside_y = (y >= widths[:, :1]) & (y <= 1.0 - widths[:, 1:2])
    inside_x = (x >= widths[:, 2:3]) & (x <= 1.0 - widths[:, 3:])
    inside = (inside_y[:, :, tf.newaxis] & inside_x[:, tf.newaxis, :])[..., tf.newaxis]
    return tf.where(inside, grey, _per_image(BRIGHTEST_BORDER * draws[:, 4]))


def augment(grey: Any, config: AugmentationConfig, seed: Any) -> Any:
    """Change every image of a batch at random.

    Parameters
    ----------
    grey : tf.Tensor, float32, shape (batch, rows, columns, 1)
        Grey values, 0 (black) to 1 (white).
    config : AugmentationConfig
        The ranges.
    seed : tf.Tensor, int32, shape (2,)
        The same seed gives the same changes, so that a resumed training repeats what an unbroken one does.

    Returns
    -------
    tf.Tensor, float32, shape (batch, rows, columns, 1)
        Within 0 and 1. What a shift or a rotation brings in from outside is black, as a collimated film is.
    """
    rows, columns = int(grey.shape[1]), int(grey.shape[2])
    count = tf.shape(grey)[0]
    # Four seeds, and three more from the second of them: what was drawn before those three changes existed is drawn still.
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    way_seeds = tf.unstack(tf.random.experimental.stateless_split(seeds[1], 3))
    grey = tf.raw_ops.ImageProjectiveTransformV3(
        images=grey,
        transforms=_inverse_affine(count, rows, columns, config, seeds[0]),
        output_shape=tf.constant([rows, columns]),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
    draws = tf.random.stateless_uniform([count, 5], seeds[1], -1.0, 1.0)[:, :, tf.newaxis, tf.newaxis, tf.newaxis]
    blurred = tf.nn.avg_pool2d(tf.nn.avg_pool2d(grey, 3, 1, "SAME"), 2, 1, "SAME")
    mix = tf.where((draws[:, 0] + 1.0) / 2.0 < config.blur_probability, (draws[:, 1] + 1.0) / 2.0, 0.0)
    grey = grey + mix * (blurred - grey)
    grey = tf.pow(tf.maximum(grey, 1e-4), tf.exp(draws[:, 2] * math.log(config.gamma)))
    mean = tf.reduce_mean(grey, axis=(1, 2, 3), keepdims=True)
    grey = mean + (grey - mean) * (1.0 + config.contrast * draws[:, 3]) + config.brightness * draws[:, 4]
    strength = config.noise * tf.random.stateless_uniform([count, 1, 1, 1], seeds[2])
    grey = grey + strength * tf.random.stateless_normal(tf.shape(grey), seeds[3])
    grey = tf.clip_by_value(grey, 0.0, 1.0)
    if config.low_resolution_probability > 0.0:
        grey = _lower_resolution(grey, config.low_resolution_probability, way_seeds[0])
    if config.jpeg_probability > 0.0:
        grey = _compress(grey, config.jpeg_probability, way_seeds[1])
    if config.border > 0.0:
        grey = _mask_border(grey, config.border, way_seeds[2])
    return grey
