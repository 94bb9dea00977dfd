"""What training minimises: targets, balanced weights and the loss of one image, for exclusive classes and for independent findings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from model_build.array_types import BoolArray, Float32Array, Int64Array
from model_build.config import LossName

FINDING_WEIGHT_LIMIT = 10.0
"""No image weighs more for a finding than ten average ones.

A finding that 3 of 700 images show would weigh 117 by balance alone. In a batch of 32 one such image would outweigh all others nearly four
times, and the step would follow that single film, with whatever else is on it. At the limit it carries at most about a third of the batch.
"""
_FOCUS = 2.0


def balanced_class_weights(labels: Int64Array, class_count: int) -> Float32Array:
    """Weights, shape (classes,), that give every class the same total; their mean over the images is 1."""
    counts = np.bincount(labels, minlength=class_count)
    return (len(labels) / (class_count * np.maximum(counts, 1))).astype(np.float32)


def balanced_finding_weights(targets: BoolArray) -> Float32Array:
    """Weights of every image for every finding, so that the images with a finding weigh as much together as those without it.

    Parameters
    ----------
    targets : ndarray, bool, shape (images, labels)

    Returns
    -------
    ndarray, float32, shape (images, labels)
        At most :data:`FINDING_WEIGHT_LIMIT`: findings that fewer than one image in twenty shows stay below balance.
    """
    count, positives = len(targets), targets.sum(axis=0)
    present = count / (2.0 * np.maximum(positives, 1))
    absent = count / (2.0 * np.maximum(count - positives, 1))
    weights: Float32Array = np.minimum(np.where(targets, present, absent), FINDING_WEIGHT_LIMIT).astype(np.float32)
    return weights


def smooth(targets: BoolArray, smoothing: float, *, multilabel: bool) -> Float32Array:
    """Targets, float32, shape (images, labels), moved by the share ``smoothing`` towards "any label is as likely".

    References
    ----------
    Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, section 7.
    """
    outcomes = 2 if multilabel else targets.shape[1]
    smoothed: Float32Array = targets.astype(np.float32) * (1.0 - smoothing) + smoothing / outcomes
    return smoothed


def make_loss(name: LossName, *, multilabel: bool) -> Callable[[Any, Any], Any]:
    """The loss of each image before its weight.

    Parameters
    ----------
    name : "cross_entropy" or "focal"
        Focal loss scales each term by (1 - p)^2, p being the probability that the model gives it: what is learned counts little.
    multilabel : bool
        Sigmoid of each label by itself, rather than softmax over the labels.

    Returns
    -------
    callable
        From targets and logits, both float32, shape (batch, labels), to losses, float32: of shape (batch, labels) if multilabel, else
        (batch,).

    References
    ----------
    Lin et al., Focal Loss for Dense Object Detection, ICCV 2017.
    """
    if name == "cross_entropy":
        if multilabel:
            return lambda targets, logits: tf.nn.sigmoid_cross_entropy_with_logits(labels=targets, logits=logits)
        return lambda targets, logits: tf.nn.softmax_cross_entropy_with_logits(labels=targets, logits=logits)

    def focal_softmax(targets: Any, logits: Any) -> Any:
        log_p = tf.nn.log_softmax(logits)
        return -tf.reduce_sum(targets * (1.0 - tf.exp(log_p)) ** _FOCUS * log_p, axis=-1)

    def focal_sigmoid(targets: Any, logits: Any) -> Any:
        p = tf.sigmoid(logits)
        present = targets * (1.0 - p) ** _FOCUS * tf.nn.softplus(-logits)
        return present + (1.0 - targets) * p**_FOCUS * tf.nn.softplus(logits)

    return focal_sigmoid if multilabel else focal_softmax
