"""Run a head: from embeddings to logits and probabilities, in float32 NumPy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from edge_agent.array_types import Float32Array
from edge_agent.errors import ModelContractError
from edge_agent.inference.head import (
    LEAF,
    Calibration,
    GradientBoostingHead,
    Head,
    IsotonicCalibration,
    LinearHead,
    NearestPrototypeHead,
    PlattCalibration,
    RandomForestHead,
    RbfSvmHead,
    Trees,
)
from edge_agent.records import Task

FOREST_CLIP = 1e-4
"""A forest whose trees all agree says 0 or 1; its log odds stay within +-9.2."""
_MAX_LOG_ODDS = 60.0
"""exp(60) is far from the end of float32, and sigmoid(-60) from 0."""


def calibrate(calibration: Calibration, logits: Float32Array) -> Float32Array:
    """Turn logits into probabilities.

    Parameters
    ----------
    calibration : Calibration
    logits : ndarray, float32, any shape

    Returns
    -------
    ndarray, float32, of the same shape
        In [0, 1]; never falls as the logit rises, but where a Platt slope is negative.
    """
    if isinstance(calibration, IsotonicCalibration):
        return np.asarray(np.interp(logits, calibration.logits, calibration.probabilities), dtype=np.float32)
    if isinstance(calibration, PlattCalibration):
        odds = np.float32(calibration.slope) * logits + np.float32(calibration.intercept)
    else:
        odds = logits / np.float32(calibration.temperature)
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(odds, -_MAX_LOG_ODDS, _MAX_LOG_ODDS))), dtype=np.float32)


class HeadScorer(ABC):
    """A head ready to run, with its numbers as float32 arrays."""

    def __init__(self, head: Head) -> None:
        self._calibration = head.calibration

    @abstractmethod
    def _score(self, rows: Float32Array) -> Float32Array:
        """Logits of embeddings, shape (images, D) to (images,)."""

    def logits(self, embedding: Float32Array) -> Float32Array:
        """Uncalibrated log odds of the positive label, or what stands for them in this kind of head.

        Parameters
        ----------
        embedding : ndarray, float32, shape (..., D)

        Returns
        -------
        ndarray, float32, shape (...)
        """
        rows = embedding.reshape(-1, embedding.shape[-1])
        return np.asarray(self._score(rows), dtype=np.float32).reshape(embedding.shape[:-1])

    def probabilities(self, embedding: Float32Array) -> Float32Array:
        """Calibrated probability of the positive label; shapes as in :meth:`logits`, values in [0, 1]."""
        return calibrate(self._calibration, self.logits(embedding))


class LinearScorer(HeadScorer):
    """Logistic regression, linear discriminant and linear SVM.

    The embedding is the mean of the feature map, so the logits of the map's places have the image's own logit as their mean: the one family
    of heads that can say which place spoke for the label.
    """

    def __init__(self, head: LinearHead) -> None:
        super().__init__(head)
        self._coefficients = np.array(head.coefficients, dtype=np.float32)
        self._intercept = np.float32(head.intercept)

    def logits(self, embedding: Float32Array) -> Float32Array:
        """As :meth:`HeadScorer.logits`; one product, whatever the shape."""
        return np.asarray(embedding @ self._coefficients + self._intercept, dtype=np.float32)

    def _score(self, rows: Float32Array) -> Float32Array:
        return self.logits(rows)


class RbfSvmScorer(HeadScorer):
    """A support vector machine with radial basis functions."""

    def __init__(self, head: RbfSvmHead) -> None:
        super().__init__(head)
        self._centre, self._spread = _array(head.centre), _array(head.spread)
        self._vectors = _array(head.support_vectors)
        self._squares = np.square(self._vectors).sum(axis=1)
        self._weights = _array(head.weights)
        self._gamma, self._intercept = np.float32(head.gamma), np.float32(head.intercept)

    def _score(self, rows: Float32Array) -> Float32Array:
        places = (rows - self._centre) / self._spread
        # |z - v|^2 multiplied out: one matrix product instead of images x vectors x D differences.
        squares = np.square(places).sum(axis=1)[:, np.newaxis] + self._squares - 2.0 * (places @ self._vectors.T)
        kernel = np.exp(-self._gamma * np.maximum(squares, 0.0))
        return np.asarray(kernel @ self._weights + self._intercept)


class NearestPrototypeScorer(HeadScorer):
    """Distance to the nearest prototype of each class."""

    def __init__(self, head: NearestPrototypeHead) -> None:
        super().__init__(head)
        self._centre, self._spread = _array(head.centre), _array(head.spread)
        self._positive, self._negative = _array(head.positive_prototypes), _array(head.negative_prototypes)

    def _score(self, rows: Float32Array) -> Float32Array:
        places = (rows - self._centre) / self._spread
        return np.asarray((_nearest_square(places, self._negative) - _nearest_square(places, self._positive)) / np.float32(2.0))


class _TreeScorer(HeadScorer):
    """Walks all trees of all images one level at a time."""

    def __init__(self, head: Head, trees: Trees) -> None:
        super().__init__(head)
        self._roots, self._depth = np.array(trees.roots), trees.depth()
        feature, here = np.array(trees.feature), np.arange(len(trees.feature))
        leaf = feature == LEAF
        # A leaf leads to itself, so that short paths wait for the longest without a mask.
        self._feature = np.where(leaf, 0, feature)
        self._left, self._right = np.where(leaf, here, trees.left), np.where(leaf, here, trees.right)
        self._threshold, self._value = _array(trees.threshold), _array(trees.value)

    def _leaf_values(self, rows: Float32Array) -> Float32Array:
        """Value of each tree's leaf, float32, shape (images, trees)."""
        image = np.arange(len(rows))[:, np.newaxis]
        node = np.broadcast_to(self._roots, (len(rows), len(self._roots)))
        for _ in range(self._depth):
            goes_left = rows[image, self._feature[node]] <= self._threshold[node]
            node = np.where(goes_left, self._left[node], self._right[node])
        return np.asarray(self._value[node])


class RandomForestScorer(_TreeScorer):
    """Log odds of the trees' mean probability."""

    def __init__(self, head: RandomForestHead) -> None:
        super().__init__(head, head.trees)

    def _score(self, rows: Float32Array) -> Float32Array:
        share = np.clip(self._leaf_values(rows).mean(axis=1), FOREST_CLIP, 1.0 - FOREST_CLIP)
        return np.asarray(np.log(share) - np.log1p(-share))


class GradientBoostingScorer(_TreeScorer):
    """Sum of the trees' values."""

    def __init__(self, head: GradientBoostingHead) -> None:
        super().__init__(head, head.trees)
        self._intercept = np.float32(head.intercept)

    def _score(self, rows: Float32Array) -> Float32Array:
        return np.asarray(self._leaf_values(rows).sum(axis=1) + self._intercept)


def make_scorer(head: Head) -> HeadScorer:
    """Make a head ready to run.

    Parameters
    ----------
    head : Head
        From :func:`edge_agent.inference.head.read_heads`, or just fitted.

    Raises
    ------
    ModelContractError
        If this version has no code for its kind.
    """
    match head:
        case LinearHead():
            return LinearScorer(head)
        case RbfSvmHead():
            return RbfSvmScorer(head)
        case NearestPrototypeHead():
            return NearestPrototypeScorer(head)
        case RandomForestHead():
            return RandomForestScorer(head)
        case GradientBoostingHead():
            return GradientBoostingScorer(head)
    raise ModelContractError(f"head.json: this version cannot run the kind {head.kind!r}")


class LabelScorer:
    """A model's heads ready to run: from one embedding to a probability for each label.

    Parameters
    ----------
    task : {"binary", "multiclass", "multilabel"}
    labels : sequence of str
    heads : sequence of Head
        binary: one, of the positive label. Otherwise one for each label, in label order.

    Raises
    ------
    ModelContractError
        If these heads do not score these labels, or one is of a kind that this version cannot run.
    """

    def __init__(self, task: Task, labels: Sequence[str], heads: Sequence[Head]) -> None:
        scored = [head.positive for head in heads]
        if not (len(scored) == 1 and scored[0] in labels if task == "binary" else scored == list(labels)):
            raise ModelContractError(f"head.json: the heads score {scored}, in a {task} model of the labels {list(labels)}")
        self._task = task
        self._positive_column = list(labels).index(scored[0])
        self._scored = [(head, make_scorer(head)) for head in heads]

    def logits(self, embedding: Float32Array) -> Float32Array:
        """Uncalibrated log odds of each head's label against everything else, or what stands for them.

        Parameters
        ----------
        embedding : ndarray, float32, shape (..., D)

        Returns
        -------
        ndarray, float32, shape (..., heads)
        """
        return np.stack([scorer.logits(embedding) for _, scorer in self._scored], axis=-1)

    def probabilities(self, embedding: Float32Array) -> Float32Array:
        """Calibrated probability of each label.

        Parameters
        ----------
        embedding : ndarray, float32, shape (..., D)

        Returns
        -------
        ndarray, float32, shape (..., labels)
            In label order. Binary and multiclass: they sum to 1. Multilabel: each label by itself.
        """
        each = np.stack([scorer.probabilities(embedding) for _, scorer in self._scored], axis=-1)
        return join_probabilities(self._task, self._positive_column, each)

    def evidence(self, label: str, feature_map: Float32Array) -> Float32Array:
        """Log odds of one label at each place of a feature map; of a binary model's labels the positive one only.

        Parameters
        ----------
        label : str
        feature_map : ndarray, float32, shape (h, w, D)

        Returns
        -------
        ndarray, float32, shape (h, w)
            Their mean is the image's own logit.

        Raises
        ------
        ModelContractError
            If the label's head is not linear: its score is no sum over the places of the image, so no map of it would be true.
        """
        head, scorer = next((head, scorer) for head, scorer in self._scored if head.positive == label)
        if not isinstance(scorer, LinearScorer):
            raise ModelContractError(
                "a heatmap needs a linear head (logistic_regression, linear_discriminant or linear_svm),"
                f" and this bundle's is {head.kind!r}; classify without heatmaps"
            )
        return scorer.logits(feature_map)


def join_probabilities(task: Task, positive_column: int, each: Float32Array) -> Float32Array:
    """From one probability for each head to one for each label.

    Parameters
    ----------
    task : {"binary", "multiclass", "multilabel"}
    positive_column : int
        Column of the label that a binary task's head scores; not used otherwise.
    each : ndarray, float32, shape (..., heads)
        Calibrated, each head by itself.

    Returns
    -------
    ndarray, float32, shape (..., labels)
    """
    match task:
        case "binary":
            return np.concatenate([each, 1.0 - each] if positive_column == 0 else [1.0 - each, each], axis=-1)
        case "multiclass":
            # No calibration gives 0, so there is always something to divide by.
            return np.asarray(each / each.sum(axis=-1, keepdims=True), dtype=np.float32)
        case "multilabel":
            return each


def _array(values: list[float] | list[list[float]]) -> Float32Array:
    return np.array(values, dtype=np.float32)


def _nearest_square(places: Float32Array, prototypes: Float32Array) -> Float32Array:
    """Squared distance of each place to its nearest prototype, float32, shape (images,)."""
    nearest = np.square(places - prototypes[0]).sum(axis=1)
    for prototype in prototypes[1:]:
        nearest = np.minimum(nearest, np.square(places - prototype).sum(axis=1))
    return np.asarray(nearest)
