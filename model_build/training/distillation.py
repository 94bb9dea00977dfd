"""Distillation: a small network learns from what a large one says of the same augmented image, beside the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from model_build.config import DistillationConfig

_VARIANCE_FLOOR = 1e-6


class Distillation:
    """The teacher, frozen, and the projection from the student's feature map to the teacher's, which is trained and dropped afterwards.

    Parameters
    ----------
    teacher : keras.Model
        From :func:`model_build.training.teacher.load_teacher`: grey / 127.5 in, logits and feature map out.
    student : keras.Model
        The trunk that is trained.
    config : DistillationConfig
    multilabel : bool
        Whether each label is a yes or no of its own.
    """

    def __init__(self, teacher: Any, student: Any, config: DistillationConfig, *, multilabel: bool) -> None:
        self._teacher, self._config, self._multilabel = teacher, config, multilabel
        self._projection = keras.layers.Conv2D(teacher.outputs[1].shape[-1], 1, name="projection")
        self._projection.build(student.outputs[1].shape)

    @property
    def variables(self) -> Sequence[Any]:
        """What is trained beside the student."""
        return list(self._projection.trainable_variables)

    def loss(self, images: Any, logits: Any, feature_map: Any) -> Any:
        """How far the student is from the teacher on a batch.

        Parameters
        ----------
        images : tf.Tensor, float32, shape (batch, rows, columns, 1)
            What the student saw, grey / 127.5; resized to what the teacher takes.
        logits : tf.Tensor, float32, shape (batch, labels)
            The student's.
        feature_map : tf.Tensor, float32, shape (batch, h, w, D)
            The student's.

        Returns
        -------
        tf.Tensor, float32, scalar
            The cross-entropy against the teacher's probabilities, both at the temperature and multiplied by its square so that the gradient
            keeps its size, plus the mean squared distance of the projected feature map from the teacher's, in units of each channel's
            variance in the batch; each with its weight from the config.

        References
        ----------
        Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015; Romero et al., FitNets, ICLR 2015.
        """
        seen = tf.image.resize(images, self._teacher.input_shape[1:3])
        taught_logits, taught = self._teacher(seen, training=False)
        taught_logits, taught = tf.stop_gradient(taught_logits), tf.stop_gradient(taught)
        return self._config.logit_weight * self._logit_loss(taught_logits, logits) + self._config.feature_weight * self._feature_loss(
            taught, feature_map
        )

    def _logit_loss(self, taught_logits: Any, logits: Any) -> Any:
        temperature = self._config.temperature
        if self._multilabel:
            losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=tf.sigmoid(taught_logits / temperature), logits=logits / temperature)
        else:
            losses = tf.nn.softmax_cross_entropy_with_logits(labels=tf.nn.softmax(taught_logits / temperature), logits=logits / temperature)
        return temperature**2 * tf.reduce_mean(losses)

    def _feature_loss(self, taught: Any, feature_map: Any) -> Any:
        projected = self._projection(feature_map)
        taught = tf.image.resize(taught, tf.shape(projected)[1:3])
        variance = tf.math.reduce_variance(taught, axis=(0, 1, 2)) + _VARIANCE_FLOOR
        return tf.reduce_mean(tf.math.squared_difference(projected, taught) / variance)
