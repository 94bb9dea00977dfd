"""Magnitude pruning: the smallest weights of a trunk become zero while it is fine-tuned, and stay zero."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from edge_agent.errors import ConfigError
from model_build.array_types import BoolArray, Float32Array, Int64Array
from model_build.config import TrainConfig
from model_build.data.pixels import Pixels
from model_build.training.train import Phase, Step, Trainer

RAMP_SHARE = 0.5
"""The share of zeros rises during this part of the fine-tuning; the rest of it heals."""


def _kernels(trunk: Any) -> list[Any]:
    """Kernels of all convolutions, the depthwise ones too."""
    return [layer.kernel for layer in trunk.layers if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D)]


def _pointwise_kernels(trunk: Any) -> list[Any]:
    return [layer.kernel for layer in trunk.layers if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1)]


def zero_share(trunk: Any) -> float:
    """Share of zeros among the weights of all convolutions, in [0, 1]."""
    kernels = [np.asarray(kernel.value) for kernel in _kernels(trunk)]
    return sum(int(np.count_nonzero(k == 0)) for k in kernels) / sum(k.size for k in kernels)


def cubic_share(target: float, progress: float) -> float:
    """The share of zeros at ``progress`` in [0, 1] of the ramp: fast at first, while many weights do little, and slow at the end.

    References
    ----------
    Zhu and Gupta, To Prune, or Not to Prune, 2017, equation 1.
    """
    return float(target * (1.0 - (1.0 - min(max(progress, 0.0), 1.0)) ** 3))


class MagnitudePruning:
    """Masks on the pointwise (1 x 1) kernels of a trunk, which hold nearly all its weights.

    Stem and depthwise kernels are left whole, as in Zhu and Gupta: a depthwise filter has 9 or 25 weights and nothing that could stand in
    for one. Every pointwise kernel loses the same share, because the batch normalisation behind each makes magnitudes of different layers
    no measure of importance. That share is chosen so that of the weights of *all* convolutions the share asked for is zero.
    """

    def __init__(self, trunk: Any, share: float) -> None:
        """Prepare; nothing is zero yet.

        Parameters
        ----------
        trunk : keras.Model
        share : float
            Of the weights of all convolutions, in [0, 1).

        Raises
        ------
        ConfigError
            If the pointwise kernels are too small a part of the trunk for it.
        """
        self._kernels = _pointwise_kernels(trunk)
        every, pointwise = (sum(math.prod(kernel.shape) for kernel in kernels) for kernels in (_kernels(trunk), self._kernels))
        if share * every >= pointwise:
            raise ConfigError(f"the trunk's pointwise kernels hold {pointwise} of {every} weights: too few to make {share:.0%} of all zero")
        self._share = share * every / pointwise
        self._masks: list[Float32Array] = [np.ones(kernel.shape, np.float32) for kernel in self._kernels]
        self.is_settled = False
        """Whether the ramp is over: the masks hold the share asked for."""

    def choose(self, progress: float) -> None:
        """Choose anew which weights are zero, by their size now, at ``progress`` of the ramp; 1 and above is its end."""
        self.is_settled = progress >= 1.0
        share = cubic_share(self._share, progress)
        for index, kernel in enumerate(self._kernels):
            sizes = np.abs(np.asarray(kernel.value)).ravel()
            count = math.ceil(share * sizes.size)
            mask = np.ones(sizes.size, np.float32)
            mask[np.argpartition(sizes, count - 1)[:count] if count else []] = 0.0
            self._masks[index] = mask.reshape(kernel.shape)

    def apply(self) -> None:
        """Make zero what the masks say, in place."""
        for kernel, mask in zip(self._kernels, self._masks, strict=True):
            kernel.assign(kernel.value * mask)


def prune_and_fine_tune(
    trunk: Any,
    share: float,
    pixels: Pixels,
    targets: BoolArray,
    chosen: Int64Array,
    config: TrainConfig,
    *,
    epochs: int,
    seed: int,
    multilabel: bool,
    on_step: Callable[[Step], None] = lambda step: None,
) -> None:
    """Prune a trained trunk in place and fine-tune it on the way.

    Parameters
    ----------
    trunk : keras.Model
        With its trained weights.
    share : float
        Of the weights of all convolutions that become zero, in [0, 1); 0 fine-tunes only, which is what pruning is to be compared with.
    pixels, targets, chosen
        As :meth:`model_build.training.train.Trainer.run`; images of training patients only.
    config : TrainConfig
        Its augmentation, loss, optimiser and batch size; half its learning rate for the trunk, which is trained already.
    epochs : int
        Length of the fine-tuning, at least 1. The masks are chosen anew at every step of the first half, and kept during the second.
    seed : int
    multilabel : bool
    on_step : callable, optional

    Raises
    ------
    ConfigError
        As :class:`MagnitudePruning`.
    """
    pruning = MagnitudePruning(trunk, share)
    trainer = Trainer(trunk, targets.shape[1], config, seed, multilabel=multilabel)
    phase = Phase("prune", epochs, config.learning_rate / 2.0, config.head_learning_rate)

    def after_step(step: Step) -> None:
        if not pruning.is_settled:
            pruning.choose((step.epoch * step.batches_per_epoch + step.batch) / (RAMP_SHARE * epochs * step.batches_per_epoch))
        pruning.apply()
        on_step(step)

    trainer.run(phase, pixels, targets, chosen=chosen, on_step=after_step)
    trainer.use_averages()
    # The averages still remember what the weights were before they became zero.
    pruning.apply()
    reached = zero_share(trunk)
    assert reached >= share, f"only {reached:.4f} of the weights are zero"  # noqa: S101 - arithmetic of this module, not input
