"""A trunk of three layers, for tests of what is done with any trunk: it is built and trained in a second, a real one in ten."""

from __future__ import annotations

import keras

from model_build.training.trunk.efficientnet import batch_norm


def build_small_trunk(side: int, channels: int = 12) -> keras.Model:
    """Build it with random weights; inputs and outputs as :func:`model_build.training.trunk.trunk.build_network` says."""
    image = keras.Input((side, side, 1), name="image")
    x = keras.layers.Conv2D(channels, 5, strides=4, padding="same", use_bias=False, name="conv")(image)
    x = keras.layers.ReLU(6.0, name="relu")(batch_norm("bn")(x))
    return keras.Model(image, [keras.layers.GlobalAveragePooling2D(name="embedding")(x), x], name="small")
