"""EfficientNet-Lite0 in Keras, cut after any of its sixteen blocks, for one grey channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ConfigError, ModelError

_BATCH_NORM_EPSILON = 1e-3


@dataclass(frozen=True)
class ResidualBlock:
    """One inverted-residual block: kernel size in pixels, stride, expansion ratio, output channels."""

    kernel: int
    stride: int
    expansion: int
    channels: int


def _stage(repeats: int, kernel: int, stride: int, expansion: int, channels: int) -> list[ResidualBlock]:
    return [ResidualBlock(kernel, stride if i == 0 else 1, expansion, channels) for i in range(repeats)]


BLOCKS: tuple[ResidualBlock, ...] = (
    *_stage(1, 3, 1, 1, 16),
    *_stage(2, 3, 2, 6, 24),
    *_stage(2, 5, 2, 6, 40),
    *_stage(3, 3, 2, 6, 80),
    *_stage(3, 5, 1, 6, 112),
    *_stage(4, 5, 2, 6, 192),
    *_stage(1, 3, 1, 6, 320),
)
"""Tan and Le, EfficientNet, ICML 2019, table 1, with the Lite changes: no squeeze-and-excitation, ReLU6."""


def batch_norm(name: str) -> Any:
    """Batch normalisation as EfficientNet has it."""
    return keras.layers.BatchNormalization(epsilon=_BATCH_NORM_EPSILON, momentum=0.99, name=name)


def inverted_residual(x: Any, block: ResidualBlock, name: str) -> Any:
    """Expand, filter each channel, project; with a shortcut where the shape stays. Layers are named after ``name``."""
    input_channels = x.shape[-1]
    y = x
    if block.expansion != 1:
        y = keras.layers.Conv2D(input_channels * block.expansion, 1, use_bias=False, name=f"{name}_expand_conv")(y)
        y = keras.layers.ReLU(6.0, name=f"{name}_expand_relu")(batch_norm(f"{name}_bn0")(y))
    y = keras.layers.DepthwiseConv2D(block.kernel, strides=block.stride, padding="same", use_bias=False, name=f"{name}_depthwise_conv")(y)
    y = keras.layers.ReLU(6.0, name=f"{name}_depthwise_relu")(batch_norm(f"{name}_bn1")(y))
    y = keras.layers.Conv2D(block.channels, 1, use_bias=False, name=f"{name}_project_conv")(y)
    y = batch_norm(f"{name}_bn2")(y)
    if block.stride == 1 and input_channels == block.channels:
        y = keras.layers.Add(name=f"{name}_add")([x, y])
    return y


def build_residual_network(rows: int, columns: int, stem_channels: int, blocks: Sequence[ResidualBlock], name: str) -> Any:
    """A stem, blocks and the mean over the area, with random weights: input and outputs as ``trunk.build_network`` describes them."""
    image = keras.Input((rows, columns, 1), name="image")
    x = keras.layers.Conv2D(stem_channels, 3, strides=2, padding="same", use_bias=False, name="stem_conv")(image)
    x = keras.layers.ReLU(6.0, name="stem_relu")(batch_norm("stem_bn0")(x))
    for i, block in enumerate(blocks):
        x = inverted_residual(x, block, f"block{i}")
    embedding = keras.layers.GlobalAveragePooling2D(name="embedding")(x)
    return keras.Model(image, [embedding, x], name=name)


def build_efficientnet_lite0(rows: int, columns: int, block_count: int) -> Any:
    """Build the trunk with random weights.

    Parameters
    ----------
    rows, columns : int
        Input size in pixels.
    block_count : int
        Blocks kept, 1 to 16. 11 gives 0.70 M parameters and a 112-value embedding.

    Returns
    -------
    keras.Model
        Input and outputs as :func:`model_build.training.trunk.trunk.build_network` says.

    Raises
    ------
    ConfigError
        If ``block_count`` is out of range.
    """
    if not 1 <= block_count <= len(BLOCKS):
        raise ConfigError(f"trunk.block_count must lie between 1 and {len(BLOCKS)}, not {block_count}")
    return build_residual_network(rows, columns, 32, BLOCKS[:block_count], f"efficientnet_lite0_{block_count}")


def load_imagenet_weights(trunk: Any, state: dict[str, NDArray[Any]]) -> None:
    """Put ImageNet weights into a trunk, in place; the first kernel becomes the sum of its three colour filters.

    Parameters
    ----------
    trunk : keras.Model
        From :func:`build_efficientnet_lite0`.
    state : dict of str to ndarray
        From :func:`model_build.training.trunk.imagenet_weights.read_state_dict`; kernels (out, in, rows, columns).

    Raises
    ------
    ModelError
        If a tensor is missing or has another shape.
    """
    for layer in trunk.layers:
        if not layer.weights:
            continue
        prefix, _, part = layer.name.partition("_")
        in_block = f"_blocks.{prefix.removeprefix('block')}._{part}"
        key = {"stem_conv": "_conv_stem", "stem_bn0": "_bn0"}.get(layer.name, in_block)
        try:
            if isinstance(layer, keras.layers.BatchNormalization):
                mean = state[f"{key}.running_mean"]
                if prefix == "stem":
                    # The weights expect (x / 127.5 - 1): what the -1 adds to each filter's output moves into the mean.
                    mean = mean + state["_conv_stem.weight"].sum(axis=(1, 2, 3))
                layer.set_weights([state[f"{key}.weight"], state[f"{key}.bias"], mean, state[f"{key}.running_var"]])
                continue
            kernel = state[f"{key}.weight"]
        except KeyError as missing:
            raise ModelError(f"the ImageNet weights hold no tensor {missing}") from None
        if prefix == "stem":
            kernel = kernel.sum(axis=1, keepdims=True)
        order = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0)
        layer.set_weights([np.ascontiguousarray(kernel.transpose(order))])
