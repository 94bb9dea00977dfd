"""Random changes of training images: geometry, intensity, blur and noise, as TensorFlow operations on a whole batch."""

from __future__ import annotations

import math
from typing import Any

import tensorflow as tf

from model_build.config import AugmentationConfig


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
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
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
    return tf.clip_by_value(grey, 0.0, 1.0)
