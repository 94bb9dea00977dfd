"""Fine-tune the CNN: one-cycle learning rate, AdamW, balanced class weights, label smoothing, averaged weights; resumable per epoch."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from model_build.augment import augment
from model_build.config import TrainConfig
from model_build.network import INPUT_DIVISOR


@dataclass(frozen=True)
class Phase:
    """One stretch of training: its name (used in the checkpoint), how long, and the peaks of its two learning rates."""

    name: str
    epochs: int
    learning_rate: float
    head_learning_rate: float


@dataclass(frozen=True)
class Step:
    """Progress after one batch: ``loss`` is the mean over the epoch so far."""

    epoch: int
    batch: int
    batches_per_epoch: int
    loss: float


def one_cycle(progress: float, warm_up: float = 0.3) -> float:
    """Learning rate as a share of its peak, at ``progress`` in [0, 1]: a cosine rise from 1/25 to 1, then a cosine fall to 0.

    References
    ----------
    Smith and Topin, Super-Convergence, 2018.
    """
    if progress < warm_up:
        return 0.04 + 0.96 * 0.5 * (1.0 - math.cos(math.pi * progress / warm_up))
    return 0.5 * (1.0 + math.cos(math.pi * (progress - warm_up) / (1.0 - warm_up)))


def balanced_class_weights(labels: NDArray[np.int64], class_count: int) -> NDArray[np.float32]:
    """Weights, shape (classes,), that give every class the same total; their mean over the images is 1."""
    counts = np.bincount(labels, minlength=class_count)
    return (len(labels) / (class_count * np.maximum(counts, 1))).astype(np.float32)


class Trainer:
    """A trunk with a softmax head, its optimisers and its averaged weights; everything that a checkpoint holds."""

    def __init__(self, trunk: Any, class_count: int, config: TrainConfig, seed: int) -> None:
        keras.utils.set_random_seed(seed)
        logits = keras.layers.Dense(class_count, name="logits")(trunk.outputs[0])
        self.model = keras.Model(trunk.input, logits)
        self._config = config
        self._seed = seed
        self._trunk_variables = trunk.trainable_variables
        self._head_variables = [v for v in self.model.trainable_variables if not any(v is t for t in self._trunk_variables)]
        self._trunk_optimizer = keras.optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay)
        self._head_optimizer = keras.optimizers.AdamW(config.head_learning_rate, weight_decay=config.weight_decay)
        for optimizer, variables in ((self._trunk_optimizer, self._trunk_variables), (self._head_optimizer, self._head_variables)):
            optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
            optimizer.build(variables)
        self._averages = [tf.Variable(tf.convert_to_tensor(v.value), trainable=False) for v in self.model.weights]
        self.epoch_losses: list[float] = []
        self.elapsed_s = 0.0
        """How long the build took up to the last checkpoint, interrupted stretches left out."""
        self._step = tf.function(self._train_step, reduce_retracing=True)

    def _train_step(self, grey: Any, targets: Any, weights: Any, seed: Any) -> Any:
        images = augment(tf.cast(grey, tf.float32) / 255.0, self._config.augmentation, seed) * (255.0 / INPUT_DIVISOR)
        with tf.GradientTape() as tape:
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, self.model(images, training=True))
            loss = tf.reduce_mean(losses * weights)
        split = len(self._trunk_variables)
        gradients = tape.gradient(loss, [*self._trunk_variables, *self._head_variables])
        self._trunk_optimizer.apply(gradients[:split])
        self._head_optimizer.apply(gradients[split:])
        for average, variable in zip(self._averages, self.model.weights, strict=True):
            average.assign_sub((1.0 - self._config.average_decay) * (average - variable.value))
        return loss

    def _optimizer_variables(self) -> list[Any]:
        return [*self._trunk_optimizer.variables, *self._head_optimizer.variables]

    def save(self, path: Path, phase: Phase, epochs_done: int) -> None:
        """Write a checkpoint; an interrupted write leaves the old one."""
        arrays = {f"weight_{i}": v.numpy() for i, v in enumerate(self.model.weights)}
        arrays |= {f"average_{i}": v.numpy() for i, v in enumerate(self._averages)}
        arrays |= {f"optimizer_{i}": np.asarray(v.value) for i, v in enumerate(self._optimizer_variables())}
        part = path.with_suffix(".part")
        with part.open("wb") as stream:
            np.savez(
                stream,
                phase=np.array(phase.name),
                epochs_done=np.array(epochs_done),
                epoch_losses=np.array(self.epoch_losses),
                elapsed_s=np.array(self.elapsed_s),
                **arrays,
            )
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)

    def restore(self, path: Path) -> tuple[str, int]:
        """Load a checkpoint; returns the phase's name and the epochs done in it."""
        with np.load(path, allow_pickle=False) as arrays:
            for i, variable in enumerate(self.model.weights):
                variable.assign(arrays[f"weight_{i}"])
            for i, average in enumerate(self._averages):
                average.assign(arrays[f"average_{i}"])
            for i, variable in enumerate(self._optimizer_variables()):
                variable.assign(arrays[f"optimizer_{i}"])
            self.epoch_losses = arrays["epoch_losses"].tolist()
            self.elapsed_s = float(arrays["elapsed_s"])
            return str(arrays["phase"]), int(arrays["epochs_done"])

    def use_averages(self) -> None:
        """Put the averaged weights into the model, for evaluation, export or as the start of the next phase."""
        for variable, average in zip(self.model.weights, self._averages, strict=True):
            variable.assign(average)

    def restart(self) -> None:
        """Forget the optimisers' momenta: the next phase starts from the weights as they stand."""
        for variable in self._optimizer_variables():
            variable.assign(np.zeros(variable.shape, variable.dtype))

    def run(
        self,
        phase: Phase,
        pixels: NDArray[np.uint8],
        labels: NDArray[np.int64],
        *,
        epochs_done: int = 0,
        on_step: Callable[[Step], None] = lambda step: None,
        on_epoch: Callable[[int], None] = lambda epochs_done: None,
    ) -> None:
        """Train for the rest of a phase.

        Parameters
        ----------
        phase : Phase
            Length and learning rates.
        pixels : ndarray, uint8, shape (images, rows, columns, 1)
        labels : ndarray, int64, shape (images,)
        epochs_done : int
            Epochs of this phase that a checkpoint already holds.
        on_step, on_epoch : callable, optional
            Called after every batch, and after every epoch (the place to save a checkpoint).

        Notes
        -----
        Appends the mean training loss of each epoch to ``epoch_losses``, which a checkpoint keeps. The order of the images and all random
        changes follow from the seed, the phase and the epoch: a resumed run repeats an unbroken one.
        """
        class_count = int(self.model.output_shape[-1])
        smoothing = self._config.label_smoothing
        targets = np.eye(class_count, dtype=np.float32)[labels] * (1.0 - smoothing) + smoothing / class_count
        weights = balanced_class_weights(labels, class_count)[labels]
        batch_size = min(self._config.batch_size, len(labels))
        batches = len(labels) // batch_size
        for epoch in range(epochs_done, phase.epochs):
            phase_number = sum(phase.name.encode())
            order = np.random.default_rng([self._seed, phase_number, epoch]).permutation(len(labels))
            total = 0.0
            for batch in range(batches):
                share = one_cycle((epoch * batches + batch) / (phase.epochs * batches))
                self._trunk_optimizer.learning_rate.assign(phase.learning_rate * share)
                self._head_optimizer.learning_rate.assign(phase.head_learning_rate * share)
                chosen = order[batch * batch_size : (batch + 1) * batch_size]
                seed = tf.constant([self._seed * 1000 + phase_number, epoch * batches + batch], tf.int32)
                total += float(self._step(pixels[chosen], targets[chosen], weights[chosen], seed))
                on_step(Step(epoch, batch + 1, batches, total / (batch + 1)))
            self.epoch_losses.append(total / batches)
            on_epoch(epoch + 1)
