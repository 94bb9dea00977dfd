"""Run a head: from embeddings to logits and probabilities, in float32 NumPy."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ModelContractError
from edge_agent.inference.head import (
    LEAF,
    GradientBoostingHead,
    Head,
    LinearHead,
    NearestPrototypeHead,
    RandomForestHead,
    RbfSvmHead,
    Trees,
)

Floats = NDArray[np.float32]

# A forest whose trees all agree says 0 or 1; its log odds stay within +-9.2.
FOREST_CLIP = 1e-4


class HeadScorer(ABC):
    """A head ready to run, with its numbers as float32 arrays."""

    def __init__(self, head: Head) -> None:
        self._slope = np.float32(head.calibration.slope)
        self._offset = np.float32(head.calibration.intercept)

    @abstractmethod
    def _score(self, rows: Floats) -> Floats:
        """Logits of embeddings, shape (images, D) to (images,)."""

    def logits(self, embedding: Floats) -> Floats:
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

    def probabilities(self, embedding: Floats) -> Floats:
        """Calibrated probability of the positive label; shapes as in :meth:`logits`, values in [0, 1]."""
        odds = np.clip(self._slope * self.logits(embedding) + self._offset, -60.0, 60.0)
        return np.asarray(1.0 / (1.0 + np.exp(-odds)), dtype=np.float32)


class LinearScorer(HeadScorer):
    """Logistic regression, linear discriminant and linear SVM.

    The embedding is the mean of the feature map, so the logits of the map's places have the image's own logit as their mean: the one family
    of heads that can say which place spoke for the label.
    """

    def __init__(self, head: LinearHead) -> None:
        super().__init__(head)
        self._coefficients = np.array(head.coefficients, dtype=np.float32)
        self._intercept = np.float32(head.intercept)

    def logits(self, embedding: Floats) -> Floats:
        """As :meth:`HeadScorer.logits`; one product, whatever the shape."""
        return np.asarray(embedding @ self._coefficients + self._intercept, dtype=np.float32)

    def _score(self, rows: Floats) -> Floats:
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

    def _score(self, rows: Floats) -> Floats:
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

    def _score(self, rows: Floats) -> Floats:
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

    def _leaf_values(self, rows: Floats) -> Floats:
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

    def _score(self, rows: Floats) -> Floats:
        share = np.clip(self._leaf_values(rows).mean(axis=1), FOREST_CLIP, 1.0 - FOREST_CLIP)
        return np.asarray(np.log(share) - np.log1p(-share))


class GradientBoostingScorer(_TreeScorer):
    """Sum of the trees' values."""

    def __init__(self, head: GradientBoostingHead) -> None:
        super().__init__(head, head.trees)
        self._intercept = np.float32(head.intercept)

    def _score(self, rows: Floats) -> Floats:
        return np.asarray(self._leaf_values(rows).sum(axis=1) + self._intercept)


def make_scorer(head: Head) -> HeadScorer:
    """Make a head ready to run.

    Parameters
    ----------
    head : Head
        From :func:`edge_agent.inference.head.read_head`, or just fitted.

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
    raise ModelContractError(f"head.json: this version can not run the kind {head.kind!r}")


def _array(values: list[float] | list[list[float]]) -> Floats:
    return np.array(values, dtype=np.float32)


def _nearest_square(places: Floats, prototypes: Floats) -> Floats:
    """Squared distance of each place to its nearest prototype, float32, shape (images,)."""
    nearest = np.square(places - prototypes[0]).sum(axis=1)
    for prototype in prototypes[1:]:
        nearest = np.minimum(nearest, np.square(places - prototype).sum(axis=1))
    return np.asarray(nearest)
