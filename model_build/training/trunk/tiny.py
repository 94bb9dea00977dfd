"""The tiny trunk, for boards of the Zero class: a small MobileNetV2 for one grey channel, under a third of a megabyte as int8."""

from __future__ import annotations

from typing import Any

from model_build.training.trunk.efficientnet import ResidualBlock, build_residual_network

_STEM_CHANNELS = 16
BLOCKS: tuple[ResidualBlock, ...] = (
    ResidualBlock(3, 1, 1, 16),
    ResidualBlock(3, 2, 3, 24),
    ResidualBlock(3, 1, 3, 24),
    ResidualBlock(3, 2, 3, 40),
    ResidualBlock(3, 1, 3, 40),
    ResidualBlock(3, 1, 3, 40),
    ResidualBlock(3, 2, 3, 80),
    ResidualBlock(3, 1, 3, 80),
    ResidualBlock(3, 1, 3, 80),
    ResidualBlock(3, 1, 3, 128),
)
"""Channels expand by 3, not MobileNetV2's 6: as int8, each channel costs 37 bytes of scales, bias and structure beside its weights."""


def _widened(channels: int, width: float) -> int:
    # Multiples of eight: the int8 kernels of LiteRT work on eight channels at a time.
    return max(8, round(channels * width / 8) * 8)


def build_tiny(rows: int, columns: int, width: float) -> Any:
    """Build the tiny trunk with random weights.

    Parameters
    ----------
    rows, columns : int
        Input size in pixels.
    width : float
        The factor on every layer's channels, > 0.

    Returns
    -------
    keras.Model
        Inputs and outputs as :func:`model_build.training.trunk.trunk.build_network` says.

    References
    ----------
    Sandler et al., MobileNetV2, CVPR 2018.
    """
    blocks = [ResidualBlock(block.kernel, block.stride, block.expansion, _widened(block.channels, width)) for block in BLOCKS]
    return build_residual_network(rows, columns, _widened(_STEM_CHANNELS, width), blocks, "tiny")
