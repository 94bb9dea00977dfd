"""Fit the classical heads on the int8 embedding: one for the positive label, or one for each label."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from edge_agent.errors import ConfigError
from edge_agent.inference.head import Calibration, Head
from edge_agent.inference.scoring import calibrate, join_probabilities, make_scorer
from edge_agent.records import Task
from model_build.array_types import BoolArray, Float32Array
from model_build.config import HeadConfig


def fit_head(embeddings: Float32Array, positive: BoolArray, label: str, config: HeadConfig) -> Head:
    """Fit the kind of head that the config names, with balanced classes.

    Parameters
    ----------
    embeddings : ndarray, float32, shape (images, D)
        What the int8 model gives, dequantised: the same numbers that the device will see.
    positive : ndarray, bool, shape (images,)
    label : str
        Name of the positive label.
    config : HeadConfig

    Returns
    -------
    Head
        Not calibrated yet (slope 1, intercept 0).

    Raises
    ------
    ConfigError
        If no image, or every image, has the label.
    """
    from model_build.heads.estimators import FITTERS

    if positive.all() or not positive.any():
        share = "every" if positive.all() else "no"
        raise ConfigError(
            f"{share} image to train on has the label {label!r}: a head needs both; add images or remove it from source.labels"
        )
    return FITTERS[config.kind](embeddings, positive, label, config.regularization)


def scored_labels(labels: Sequence[str], task: Task, positive: Sequence[str]) -> list[str]:
    """The labels that have a head of their own: the positive one of a binary task, else all."""
    return [positive[0]] if task == "binary" else list(labels)


def fit_heads(
    embeddings: Float32Array, targets: BoolArray, labels: Sequence[str], task: Task, positive: Sequence[str], config: HeadConfig
) -> list[Head]:
    """Fit a head for each label that has one, each label against all other images.

    Parameters
    ----------
    embeddings : ndarray, float32, shape (images, D)
    targets : ndarray, bool, shape (images, labels)
    labels, task, positive
        As in the build's config.
    config : HeadConfig

    Returns
    -------
    list of Head
        Not calibrated yet; the order of :func:`scored_labels`.

    Raises
    ------
    ConfigError
        As :func:`fit_head`.
    """
    order = list(labels)
    return [fit_head(embeddings, targets[:, order.index(label)], label, config) for label in scored_labels(labels, task, positive)]


def head_logits(heads: Sequence[Head], embeddings: Float32Array) -> Float32Array:
    """Uncalibrated logits, float32, shape (images, heads), computed by the very code that runs on the device."""
    return np.stack([make_scorer(head).logits(embeddings) for head in heads], axis=1)


def calibrated(heads: Sequence[Head], calibrations: Sequence[Calibration]) -> list[Head]:
    """The same heads with other calibrations."""
    return [msgspec.structs.replace(head, calibration=chosen) for head, chosen in zip(heads, calibrations, strict=True)]


def label_probabilities(
    task: Task, labels: Sequence[str], positive: Sequence[str], logits: Float32Array, calibrations: Sequence[Calibration]
) -> Float32Array:
    """What the device makes of its heads' logits: calibrated probabilities, float32, shape (images, labels).

    Parameters
    ----------
    task, labels, positive
        As in the build's config.
    logits : ndarray, float32, shape (images, heads)
        From :func:`head_logits`.
    calibrations : sequence of Calibration
        One for each head.
    """
    own = np.stack([calibrate(chosen, logits[:, i]) for i, chosen in enumerate(calibrations)], axis=1)
    return join_probabilities(task, list(labels).index(positive[0]), own)
