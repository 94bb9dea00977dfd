"""The classical head as ``head.json`` holds it: plain numbers, checked before anything is computed with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import ArrayLike

from edge_agent.errors import ModelContractError

MAX_HEAD_BYTES = 16 * 1024**2
MAX_TREE_DEPTH = 64
"""Far above what a build writes (a forest of 200 trees has about 1.5 MB), far below what would fill a board's memory."""
_MAX_MAGNITUDE = 1e9
"""Beyond this a product of two numbers of the head could leave float32."""
MIN_ISOTONIC_PROBABILITY = 1e-9
"""Isotonic regression gives 0 and 1 where a stretch of scores holds one class only; nobody can be that sure of it."""
LEAF = -1
"""Stands in a leaf where a branch has the number of the channel that it looks at."""

Vector = list[float]
SupportVectors = Annotated[list[Vector], Meta(min_length=1, max_length=20_000)]
Prototypes = Annotated[list[Vector], Meta(min_length=1, max_length=1_000)]
Roots = Annotated[list[int], Meta(min_length=1, max_length=2_000)]
Nodes = Meta(min_length=1, max_length=500_000)
IsotonicPoints = Annotated[Vector, Meta(min_length=2, max_length=10_000)]


class PlattCalibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="method", tag="platt"):
    """``probability = sigmoid(slope * logit + intercept)``, fitted on held-out patients (Platt, 1999)."""

    slope: float
    intercept: float

    def check(self) -> None:
        """Check that every number can be computed with; raises ModelContractError."""
        _check_numbers("calibration", [self.slope, self.intercept], (2,))


class TemperatureCalibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="method", tag="temperature"):
    """``probability = sigmoid(logit / temperature)``, fitted on held-out patients (Guo et al., ICML 2017)."""

    temperature: float

    def check(self) -> None:
        """Check that the number can be computed with; raises ModelContractError."""
        _check_numbers("calibration", self.temperature, ())
        if not self.temperature >= 1.0 / _MAX_MAGNITUDE:
            raise ModelContractError(f"head.json: the calibration's temperature {self.temperature!r} is not positive")


class IsotonicCalibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="method", tag="isotonic"):
    """``probability`` at each of the ``logits``, in straight lines between them and constant beyond; fitted on held-out patients.

    ``logits`` ascend; ``probabilities`` never fall, and none is so near to 0 or 1 that it claims to be certain.
    """

    logits: IsotonicPoints
    probabilities: IsotonicPoints

    def check(self) -> None:
        """Check lengths, order and range; raises ModelContractError."""
        _check_numbers("calibration's logits", self.logits, (len(self.logits),))
        _check_numbers("calibration's probabilities", self.probabilities, (len(self.logits),))
        if not (np.diff(self.logits) > 0.0).all():
            raise ModelContractError("head.json: the calibration's logits do not ascend")
        if not (np.diff(self.probabilities) >= 0.0).all():
            raise ModelContractError("head.json: the calibration's probabilities fall somewhere")
        if not MIN_ISOTONIC_PROBABILITY <= self.probabilities[0] <= self.probabilities[-1] <= 1.0 - MIN_ISOTONIC_PROBABILITY:
            raise ModelContractError(f"head.json: a probability of the calibration is nearer to 0 or 1 than {MIN_ISOTONIC_PROBABILITY:g}")


Calibration = PlattCalibration | TemperatureCalibration | IsotonicCalibration


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind"):
    """What every kind of head has: the label that it scores, and how its logit becomes a probability."""

    positive: str
    calibration: Calibration

    @property
    def kind(self) -> str:
        """The name of the kind, as in ``head.json``."""
        return str(self.__struct_config__.tag)

    def check(self, embedding_size: int) -> None:
        """Check every number and index against the embedding of ``embedding_size`` values.

        Raises
        ------
        ModelContractError
            If one does not fit.
        """
        self.calibration.check()


class LinearHead(Head, frozen=True, kw_only=True):
    """``logit = coefficients . embedding + intercept``."""

    coefficients: Vector
    intercept: float

    def check(self, embedding_size: int) -> None:
        """See :meth:`Head.check`."""
        super().check(embedding_size)
        _check_numbers("coefficients", self.coefficients, (embedding_size,))
        _check_numbers("intercept", self.intercept, ())


class LogisticRegressionHead(LinearHead, frozen=True, tag="logistic_regression"):
    """A logistic regression."""


class LinearDiscriminantHead(LinearHead, frozen=True, tag="linear_discriminant"):
    """A linear discriminant: Gaussian classes with one shrunk covariance."""


class LinearSvmHead(LinearHead, frozen=True, tag="linear_svm"):
    """A linear support vector machine; its logit is the signed margin."""


class RbfSvmHead(Head, frozen=True, kw_only=True, tag="rbf_svm"):
    """``logit = sum of weights_i * exp(-gamma * |z - support_vectors_i|^2) + intercept`` of ``z = (embedding - centre) / spread``."""

    centre: Vector
    spread: Vector
    support_vectors: SupportVectors
    weights: Vector
    gamma: Annotated[float, Meta(gt=0.0)]
    intercept: float

    def check(self, embedding_size: int) -> None:
        """See :meth:`Head.check`."""
        super().check(embedding_size)
        _check_standardisation(self.centre, self.spread, embedding_size)
        _check_numbers("support_vectors", self.support_vectors, (len(self.support_vectors), embedding_size))
        _check_numbers("weights", self.weights, (len(self.support_vectors),))
        _check_numbers("gamma and intercept", [self.gamma, self.intercept], (2,))


class NearestPrototypeHead(Head, frozen=True, kw_only=True, tag="nearest_prototype"):
    """Half the squared distance to the nearest negative prototype less that to the nearest positive one.

    Distances are those of ``z = (embedding - centre) / spread``. With one prototype for each class this is the log odds of two Gaussians of
    unit covariance.
    """

    centre: Vector
    spread: Vector
    positive_prototypes: Prototypes
    negative_prototypes: Prototypes

    def check(self, embedding_size: int) -> None:
        """See :meth:`Head.check`."""
        super().check(embedding_size)
        _check_standardisation(self.centre, self.spread, embedding_size)
        for name, vectors in (("positive_prototypes", self.positive_prototypes), ("negative_prototypes", self.negative_prototypes)):
            _check_numbers(name, vectors, (len(vectors), embedding_size))


class Trees(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Decision trees as flat lists over the nodes of all trees together.

    ``roots`` holds one node for each tree. A branch goes to the node ``left`` where ``embedding[feature] <= threshold``, else to ``right``.
    A leaf has ``feature`` -1 and gives its ``value``; what its other lists say is not looked at.
    """

    roots: Roots
    feature: Annotated[list[int], Nodes]
    threshold: Annotated[Vector, Nodes]
    left: Annotated[list[int], Nodes]
    right: Annotated[list[int], Nodes]
    value: Annotated[Vector, Nodes]

    def check(self, embedding_size: int) -> None:
        """Check that every index is in its bounds and every path to a leaf has at most ``MAX_TREE_DEPTH`` branches: no tree can loop.

        Raises
        ------
        ModelContractError
            If one does not.
        """
        count = len(self.feature)
        _check_numbers("threshold", self.threshold, (count,))
        _check_numbers("value", self.value, (count,))
        _check_indices("roots", self.roots, len(self.roots), 0, count)
        _check_indices("feature", self.feature, count, LEAF, embedding_size)
        branches = np.array(self.feature) != LEAF
        for name, children in (("left", self.left), ("right", self.right)):
            _check_indices(name, children, count, LEAF, count)
            if (np.array(children)[branches] == LEAF).any():
                raise ModelContractError(f"head.json: a branch in {name} leads nowhere")
        if self.depth() > MAX_TREE_DEPTH:
            raise ModelContractError(f"head.json: a tree has more than {MAX_TREE_DEPTH} levels, or leads back to itself")

    def depth(self) -> int:
        """The most branches from a root to a leaf; ``MAX_TREE_DEPTH`` + 1 where a path is longer or never ends."""
        branches = np.array(self.feature) != LEAF
        left, right = np.array(self.left), np.array(self.right)
        reached = np.unique(self.roots)
        for level in range(MAX_TREE_DEPTH + 1):
            inner = reached[branches[reached]]
            if len(inner) == 0:
                return level
            reached = np.unique(np.concatenate([left[inner], right[inner]]))
        return MAX_TREE_DEPTH + 1


class RandomForestHead(Head, frozen=True, kw_only=True, tag="random_forest"):
    """The log odds of the mean of the trees' values, each a probability; the mean is clipped first, so that no logit is infinite."""

    trees: Trees

    def check(self, embedding_size: int) -> None:
        """See :meth:`Head.check`."""
        super().check(embedding_size)
        self.trees.check(embedding_size)
        if min(self.trees.value) < 0.0 or max(self.trees.value) > 1.0:
            raise ModelContractError("head.json: a value of the forest is no probability")


class GradientBoostingHead(Head, frozen=True, kw_only=True, tag="gradient_boosting"):
    """``logit = intercept + sum of the trees' values``."""

    intercept: float
    trees: Trees

    def check(self, embedding_size: int) -> None:
        """See :meth:`Head.check`."""
        super().check(embedding_size)
        _check_numbers("intercept", self.intercept, ())
        self.trees.check(embedding_size)


AnyHead = (
    LogisticRegressionHead
    | LinearDiscriminantHead
    | LinearSvmHead
    | RbfSvmHead
    | NearestPrototypeHead
    | RandomForestHead
    | GradientBoostingHead
)


class OneHeadPerLabel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="one_per_label"):
    """``head.json`` of a model with several questions: a head for each label, in label order."""

    heads: Annotated[list[AnyHead], Meta(min_length=1, max_length=1_000)]


def read_heads(content: bytes, embedding_size: int) -> list[Head]:
    """Read ``head.json``: one head, or one for each label.

    Raises
    ------
    ModelContractError
        If it is nothing that this version can run, is absurdly large, or does not fit the embedding.
    """
    if len(content) > MAX_HEAD_BYTES:
        raise ModelContractError(f"head.json has {len(content):,} bytes; at most {MAX_HEAD_BYTES:,} are read")
    try:
        held: AnyHead | OneHeadPerLabel = msgspec.json.decode(content, type=AnyHead | OneHeadPerLabel)
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise ModelContractError(f"head.json: {fault}") from fault
    heads: list[Head] = [*held.heads] if isinstance(held, OneHeadPerLabel) else [held]
    for head in heads:
        try:
            head.check(embedding_size)
        except ModelContractError as fault:
            raise ModelContractError(f"{fault} (head of {head.positive!r})") from None
    return heads


def encode_heads(heads: Sequence[Head]) -> bytes:
    """Write ``head.json``, so that :func:`read_heads` gives the same heads.

    Raises
    ------
    ModelContractError
        If they are more than would be read.
    """
    held = heads[0] if len(heads) == 1 else {"kind": "one_per_label", "heads": heads}
    content = msgspec.json.format(msgspec.json.encode(held), indent=1)
    if len(content) > MAX_HEAD_BYTES:
        raise ModelContractError(
            f"the heads take {len(content):,} bytes; at most {MAX_HEAD_BYTES:,} are read: choose a kind of head with fewer numbers"
        )
    return content


def _check_numbers(name: str, values: ArrayLike, shape: tuple[int, ...]) -> None:
    try:
        numbers = np.asarray(values, dtype=np.float64)
    except ValueError:  # rows of different lengths
        raise ModelContractError(f"head.json: {name} has rows of different lengths") from None
    if numbers.shape != shape:
        raise ModelContractError(f"head.json: {name} has shape {numbers.shape}; this embedding needs {shape}")
    # Written so that NaN fails too.
    if not (np.abs(numbers) <= _MAX_MAGNITUDE).all():
        raise ModelContractError(f"head.json: {name} holds a number that is not finite, or beyond {_MAX_MAGNITUDE:g}")


def _check_indices(name: str, values: list[int], count: int, low: int, end: int) -> None:
    if len(values) != count:
        raise ModelContractError(f"head.json: {name} has {len(values)} entries for {count} nodes")
    if min(values) < low or max(values) >= end:
        raise ModelContractError(f"head.json: {name} holds an index outside {low} to {end - 1}")


def _check_standardisation(centre: Vector, spread: Vector, embedding_size: int) -> None:
    _check_numbers("centre", centre, (embedding_size,))
    _check_numbers("spread", spread, (embedding_size,))
    if not (np.asarray(spread) >= 1.0 / _MAX_MAGNITUDE).all():
        raise ModelContractError("head.json: spread holds a number that is not positive")
