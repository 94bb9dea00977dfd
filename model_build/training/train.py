"""Fine-tune the CNN: one-cycle learning rate, balanced weights, label smoothing, averaged weights; resumable per epoch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from edge_agent.errors import ConfigError, ModelError
from model_build.array_types import BoolArray, Int64Array, UInt8Array
from model_build.arrays import read_arrays, write_arrays
from model_build.config import TrainConfig
from model_build.data.pixels import Pixels
from model_build.training.augment import augment
from model_build.training.distillation import Distillation
from model_build.training.losses import balanced_class_weights, balanced_finding_weights, make_loss, smooth
from model_build.training.trunk.trunk import INPUT_DIVISOR, TRAINING_HEAD

_SGD_MOMENTUM = 0.9


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


def _make_optimizer(config: TrainConfig, learning_rate: float) -> Any:
    match config.optimizer:
        case "adamw":
            optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=config.decay)
            optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
            return optimizer
        case "adam":
            return keras.optimizers.Adam(learning_rate)
        case "sgd":
            return keras.optimizers.SGD(learning_rate, momentum=_SGD_MOMENTUM, nesterov=True)


class Trainer:
    """A trunk with a linear training head, its optimisers and its averaged weights; everything that a checkpoint holds.

    Parameters
    ----------
    trunk : keras.Model
        From :func:`model_build.training.trunk.trunk.build_network`; it is trained in place.
    label_count : int
        Outputs of the training head.
    config : TrainConfig
    seed : int
        Of the training head's first weights, the order of the images and their random changes.
    multilabel : bool
        An image may have any number of the labels: sigmoid of each, rather than softmax over them.
    teacher : keras.Model, optional
        From :func:`model_build.training.teacher.load_teacher`, where ``config.distillation`` is given; else None.
    """

    def __init__(
        self, trunk: Any, label_count: int, config: TrainConfig, seed: int, *, multilabel: bool = False, teacher: Any = None
    ) -> None:
        if (teacher is None) != (config.distillation is None):
            raise ConfigError(
                "a teacher needs the section [train.distillation], and the section needs a teacher: name its run by --teacher"
            )
        keras.utils.set_random_seed(seed)
        logits = keras.layers.Dense(label_count, name=TRAINING_HEAD)(trunk.outputs[0])
        self.model = keras.Model(trunk.input, logits)
        self._config, self._seed, self._multilabel = config, seed, multilabel
        self._loss = make_loss(config.loss, multilabel=multilabel)
        self._with_features = keras.Model(trunk.input, [logits, trunk.outputs[1]])
        self._distillation = Distillation(teacher, trunk, config.distillation, multilabel=multilabel) if config.distillation else None
        self._trunk_variables = trunk.trainable_variables
        self._head_variables = [v for v in self.model.trainable_variables if not any(v is t for t in self._trunk_variables)]
        self._dropped_variables = list(self._distillation.variables) if self._distillation else []
        self._head_variables += self._dropped_variables
        self._trunk_optimizer = _make_optimizer(config, config.learning_rate)
        self._head_optimizer = _make_optimizer(config, config.head_learning_rate)
        self._trunk_optimizer.build(self._trunk_variables)
        self._head_optimizer.build(self._head_variables)
        self._averages = [tf.Variable(tf.convert_to_tensor(v.value), trainable=False) for v in self.model.weights]
        self.epoch_losses: list[float] = []
        self.elapsed_s = 0.0
        """How long the build took up to the last checkpoint, interrupted stretches left out."""
        self._step = tf.function(self._train_step, reduce_retracing=True)

    def _train_step(self, grey: Any, targets: Any, weights: Any, seed: Any) -> Any:
        images = augment(tf.cast(grey, tf.float32) / 255.0, self._config.augmentation, seed) * (255.0 / INPUT_DIVISOR)
        with tf.GradientTape() as tape:
            logits, feature_map = self._with_features(images, training=True)
            loss = tf.reduce_mean(self._loss(targets, logits) * weights)
            if self._distillation is not None:
                loss += self._distillation.loss(images, logits, feature_map)
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
        arrays |= {f"dropped_{i}": v.numpy() for i, v in enumerate(self._dropped_variables)}
        arrays |= {f"optimizer_{i}": np.asarray(v.value) for i, v in enumerate(self._optimizer_variables())}
        write_arrays(
            path,
            phase=np.array(phase.name),
            epochs_done=np.array(epochs_done),
            epoch_losses=np.array(self.epoch_losses),
            elapsed_s=np.array(self.elapsed_s),
            **arrays,
        )

    def restore(self, path: Path) -> tuple[str, int]:
        """Load a checkpoint; returns the phase's name and the epochs done in it.

        Raises
        ------
        ModelError
            If the file is damaged or was written by another build.
        """
        arrays = read_arrays(path)
        try:
            for i, variable in enumerate(self.model.weights):
                variable.assign(arrays[f"weight_{i}"])
            for i, average in enumerate(self._averages):
                average.assign(arrays[f"average_{i}"])
            for i, variable in enumerate(self._dropped_variables):
                variable.assign(arrays[f"dropped_{i}"])
            for i, variable in enumerate(self._optimizer_variables()):
                variable.assign(arrays[f"optimizer_{i}"])
            self.epoch_losses = arrays["epoch_losses"].tolist()
            self.elapsed_s = float(arrays["elapsed_s"])
            return str(arrays["phase"]), int(arrays["epochs_done"])
        except (KeyError, ValueError) as fault:
            raise ModelError(f"{path}: is no checkpoint of this build ({fault}); name another --out and train from the start") from fault

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
        pixels: Pixels,
        targets: BoolArray,
        *,
        chosen: Int64Array,
        epochs_done: int = 0,
        on_step: Callable[[Step], None] = lambda step: None,
        on_epoch: Callable[[int], None] = lambda epochs_done: None,
    ) -> None:
        """Train for the rest of a phase.

        Parameters
        ----------
        phase : Phase
            Length and learning rates.
        pixels : Pixels, uint8, shape (images, rows, columns, 1)
            All images; each batch is read when its turn comes.
        targets : ndarray, bool, shape (images, labels)
            Which labels each image has; exactly one unless the trainer is a multilabel one.
        chosen : ndarray, int64, shape (chosen,)
            The images to train on, each once; not empty.
        epochs_done : int
            Epochs of this phase that a checkpoint already holds.
        on_step, on_epoch : callable, optional
            Called after every batch, and after every epoch (the place to save a checkpoint).

        Notes
        -----
        Appends the mean training loss of each epoch to ``epoch_losses``, which a checkpoint keeps. The order of the images and all random
        changes follow from the seed, the phase and the epoch: a resumed run repeats an unbroken one.
        """
        own = targets[chosen]
        soft_targets = smooth(own, self._config.label_smoothing, multilabel=self._multilabel)
        if self._multilabel:
            weights = balanced_finding_weights(own)
        else:
            weights = balanced_class_weights(own.argmax(axis=1), own.shape[1])[own.argmax(axis=1)]
        batch_size, batches = self._batches(len(chosen))
        phase_number = sum(phase.name.encode())
        for epoch in range(epochs_done, phase.epochs):
            order = self._order(len(chosen), phase_number, epoch)
            total = 0.0
            for batch in range(batches):
                share = one_cycle((epoch * batches + batch) / (phase.epochs * batches))
                self._trunk_optimizer.learning_rate.assign(phase.learning_rate * share)
                self._head_optimizer.learning_rate.assign(phase.head_learning_rate * share)
                places = order[batch * batch_size : (batch + 1) * batch_size]
                seed = tf.constant([self._seed * 1000 + phase_number, epoch * batches + batch], tf.int32)
                grey = _read_batch(pixels, chosen[places])
                total += float(self._step(grey, soft_targets[places], weights[places], seed))
                on_step(Step(epoch, batch + 1, batches, total / (batch + 1)))
            self.epoch_losses.append(total / batches)
            on_epoch(epoch + 1)

    def batches_per_epoch(self, image_count: int) -> int:
        """How many steps an epoch over so many images takes; what does not fill a batch is left to another epoch."""
        return self._batches(image_count)[1]

    def _batches(self, image_count: int) -> tuple[int, int]:
        batch_size = min(self._config.batch_size, image_count)
        return batch_size, image_count // batch_size

    def _order(self, image_count: int, phase_number: int, epoch: int) -> Int64Array:
        """The order of the images in an epoch, as places in ``chosen``."""
        if self._config.shuffle:
            return np.random.default_rng([self._seed, phase_number, epoch]).permutation(image_count)
        # As given, going round: each epoch begins where the one before it stopped, so that no image is always the one left over.
        batch_size, batches = self._batches(image_count)
        return (epoch * batches * batch_size + np.arange(image_count)) % image_count


def _read_batch(pixels: Pixels, indices: Int64Array) -> UInt8Array:
    """Read images in ascending order, as a disk likes it, and hand them out in the order asked for."""
    ascending = np.argsort(indices)
    return pixels[indices[ascending]][np.argsort(ascending)]
