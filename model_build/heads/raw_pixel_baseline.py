"""What raw pixels alone reach on the same patients: a logistic regression on small images, without any CNN."""

from __future__ import annotations

import numpy as np

from edge_agent.imaging.preprocess import InputContract, prepare_input
from model_build.array_types import BoolArray, Float32Array, Int64Array
from model_build.config import BuildConfig, HeadConfig
from model_build.data.images import ImageSet
from model_build.heads.fit import fit_heads, head_logits

SIDE_PX = 48
_HEAD = HeadConfig(kind="logistic_regression", inverse_regularization=0.001)
"""The head on 2,304 pixels; better on the paediatric chest films (AUC 0.990) and faster than with a hundred times as much (0.987)."""
_MOST_TRAINED_ON = 20_000
"""More would only take memory: a linear model of raw pixels has learned what it can by then."""


def raw_pixels(images: ImageSet, chosen: Int64Array) -> Float32Array:
    """The images at 48 x 48 pixels as rows of grey values, white 1, float32, shape (chosen, 2304)."""
    contract = InputContract(rows=SIDE_PX, columns=SIDE_PX)
    return np.stack([prepare_input(images.pixels[int(index)][:, :, 0], contract).ravel() for index in chosen]).astype(np.float32) / 255.0


def baseline_logits(images: ImageSet, trained_on: BoolArray, held_out: BoolArray, config: BuildConfig) -> Float32Array:
    """Fit one logistic regression for each head of the build on raw pixels, and score the held-out images.

    Parameters
    ----------
    images : ImageSet
    trained_on, held_out : ndarray, bool, shape (images,)
    config : BuildConfig
        Labels, task and seed; at most 20,000 of the images trained on are drawn.

    Returns
    -------
    ndarray, float32, shape (held out, heads)
        Not calibrated: for AUC only.
    """
    source, candidates = config.source, np.flatnonzero(trained_on)
    if len(candidates) > _MOST_TRAINED_ON:
        candidates = np.sort(np.random.default_rng(config.seed).choice(candidates, _MOST_TRAINED_ON, replace=False))
    heads = fit_heads(raw_pixels(images, candidates), images.targets[candidates], source.labels, config.task, source.positive, _HEAD)
    return head_logits(heads, raw_pixels(images, np.flatnonzero(held_out)))
