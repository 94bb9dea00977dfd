"""scikit-learn trains a head; plain numbers come out. One function for each kind of head.

Every kind gives both classes the same weight, and the same images always give the same head.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.class_weight import compute_sample_weight

from edge_agent.inference.head import (
    LEAF,
    GradientBoostingHead,
    Head,
    LinearDiscriminantHead,
    LinearHead,
    LinearSvmHead,
    LogisticRegressionHead,
    NearestPrototypeHead,
    PlattCalibration,
    RandomForestHead,
    RbfSvmHead,
    Trees,
)
from model_build.array_types import BoolArray, Float32Array, Float64Array

Fitter = Callable[[Float32Array, BoolArray, str, float], Head]
"""Embeddings, which of them are positive, the positive label, the inverse regularisation (scikit-learn's C)."""

UNCALIBRATED = PlattCalibration(1.0, 0.0)
PROTOTYPES_PER_CLASS = 4
FOREST = {"n_estimators": 200, "max_depth": 16, "min_samples_leaf": 3, "class_weight": "balanced", "random_state": 0}
BOOSTING = {"n_estimators": 200, "learning_rate": 0.1, "max_depth": 3, "subsample": 0.5, "max_features": "sqrt", "random_state": 0}
"""Stochastic gradient boosting (Friedman, 2002): half the images and a few channels for each tree; ten times faster and no worse here."""


def fit_logistic_regression(
    embeddings: Float32Array, positive: BoolArray, label: str, inverse_regularization: float, weights: Float32Array | None = None
) -> Head:
    """Logistic regression on the standardised embedding; ``weights``, float32, shape (images,), say how much each image counts."""
    model = LogisticRegression(C=inverse_regularization, class_weight="balanced", max_iter=2000)
    return _fit_linear(LogisticRegressionHead, model, embeddings, positive, label, weights)


def fit_linear_discriminant(embeddings: Float32Array, positive: BoolArray, label: str, _: float) -> Head:
    """Linear discriminant; the covariance is shrunk as Ledoit and Wolf (2004) find it best."""
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5])
    return _fit_linear(LinearDiscriminantHead, model, embeddings, positive, label)


def fit_linear_svm(embeddings: Float32Array, positive: BoolArray, label: str, inverse_regularization: float) -> Head:
    """Linear support vector machine with squared hinge loss."""
    model = LinearSVC(C=inverse_regularization, class_weight="balanced", dual=False, max_iter=5000)
    return _fit_linear(LinearSvmHead, model, embeddings, positive, label)


def _fit_linear(
    kind: type[LinearHead], model: Any, embeddings: Float32Array, positive: BoolArray, label: str, weights: Float32Array | None = None
) -> Head:
    scaler = StandardScaler().fit(embeddings, sample_weight=weights)
    # Not every model that comes here takes weights.
    model.fit(scaler.transform(embeddings), positive, **({} if weights is None else {"sample_weight": weights}))
    # The standardisation is folded in: the device multiplies once.
    coefficients = model.coef_[0] / scaler.scale_
    intercept = float(model.intercept_[0] - coefficients @ scaler.mean_)
    return kind(positive=label, coefficients=coefficients.tolist(), intercept=intercept, calibration=UNCALIBRATED)


def fit_rbf_svm(embeddings: Float32Array, positive: BoolArray, label: str, inverse_regularization: float) -> Head:
    """Support vector machine with radial basis functions; ``gamma`` is one over the number of channels that vary."""
    scaler = StandardScaler().fit(embeddings)
    gamma = 1.0 / max(1, int(np.count_nonzero(scaler.var_)))
    model = SVC(C=inverse_regularization, gamma=gamma, class_weight="balanced")
    model.fit(scaler.transform(embeddings), positive)
    return export_rbf_svm(model, gamma, scaler, label)


def export_rbf_svm(model: SVC, gamma: float, scaler: StandardScaler, label: str) -> RbfSvmHead:
    """The numbers of a fitted binary ``SVC`` on embeddings standardised by ``scaler``."""
    return RbfSvmHead(
        positive=label,
        calibration=UNCALIBRATED,
        centre=scaler.mean_.tolist(),
        spread=scaler.scale_.tolist(),
        support_vectors=[_shortest(row) for row in model.support_vectors_],
        weights=_shortest(model.dual_coef_[0]),
        gamma=gamma,
        intercept=float(model.intercept_[0]),
    )


def fit_nearest_prototype(embeddings: Float32Array, positive: BoolArray, label: str, _: float) -> Head:
    """Up to ``PROTOTYPES_PER_CLASS`` k-means centres for each class, on the standardised embedding."""
    scaler = StandardScaler().fit(embeddings)
    places = scaler.transform(embeddings)
    centres = {}
    for flag in (True, False):
        own = places[positive == flag]
        count = min(PROTOTYPES_PER_CLASS, len(np.unique(own, axis=0)))
        centres[flag] = KMeans(count, n_init=5, random_state=0).fit(own).cluster_centers_
    return NearestPrototypeHead(
        positive=label,
        calibration=UNCALIBRATED,
        centre=scaler.mean_.tolist(),
        spread=scaler.scale_.tolist(),
        positive_prototypes=[_shortest(row) for row in centres[True]],
        negative_prototypes=[_shortest(row) for row in centres[False]],
    )


def fit_random_forest(embeddings: Float32Array, positive: BoolArray, label: str, _: float) -> Head:
    """Random forest as ``FOREST`` says."""
    return export_random_forest(RandomForestClassifier(**FOREST).fit(embeddings, positive), label)


def export_random_forest(model: RandomForestClassifier, label: str) -> RandomForestHead:
    """The numbers of a fitted binary forest; a node's value is its share of the positive class."""
    trees = [tree.tree_ for tree in model.estimators_]
    shares = [tree.value[:, 0, 1] / tree.value[:, 0].sum(axis=1) for tree in trees]
    return RandomForestHead(positive=label, calibration=UNCALIBRATED, trees=_flatten(trees, shares))


def fit_gradient_boosting(embeddings: Float32Array, positive: BoolArray, label: str, _: float) -> Head:
    """Gradient boosting as ``BOOSTING`` says."""
    weights = compute_sample_weight("balanced", positive)
    return export_gradient_boosting(GradientBoostingClassifier(**BOOSTING).fit(embeddings, positive, weights), label)


def export_gradient_boosting(model: GradientBoostingClassifier, label: str) -> GradientBoostingHead:
    """The numbers of a fitted binary booster: the prior's log odds, and trees whose values are scaled by the learning rate."""
    prior = float(model.init_.class_prior_[1])
    trees = [stage[0].tree_ for stage in model.estimators_]
    values = [model.learning_rate * tree.value[:, 0, 0] for tree in trees]
    intercept = float(np.log(prior) - np.log1p(-prior))
    return GradientBoostingHead(positive=label, calibration=UNCALIBRATED, intercept=intercept, trees=_flatten(trees, values))


def _flatten(trees: list[Any], values: list[Float64Array]) -> Trees:
    """One list of nodes for all trees; ``values`` has each tree's values in the order of its nodes."""
    roots = np.cumsum([0, *(tree.node_count for tree in trees[:-1])])
    leaf = np.concatenate([tree.children_left == LEAF for tree in trees])
    left = np.concatenate([tree.children_left + root for tree, root in zip(trees, roots, strict=True)])
    right = np.concatenate([tree.children_right + root for tree, root in zip(trees, roots, strict=True)])
    # scikit-learn compares float32 embeddings with float64 thresholds. The next float32 below splits them in exactly the same way.
    exact = np.concatenate([tree.threshold for tree in trees])
    threshold = exact.astype(np.float32)
    threshold = np.where(threshold > exact, np.nextafter(threshold, np.float32(-np.inf)), threshold)
    return Trees(
        roots=roots.tolist(),
        feature=np.where(leaf, LEAF, np.concatenate([tree.feature for tree in trees])).tolist(),
        threshold=_shortest(np.where(leaf, np.float32(0), threshold)),
        left=np.where(leaf, LEAF, left).tolist(),
        right=np.where(leaf, LEAF, right).tolist(),
        value=_shortest(np.where(leaf, np.concatenate(values), 0.0)),
    )


def _shortest(values: NDArray[Any]) -> list[float]:
    """The shortest decimals that read back as the same float32: a third of the bytes in ``head.json``."""
    return [float(str(value)) for value in values.astype(np.float32)]


FITTERS: dict[str, Fitter] = {
    "logistic_regression": fit_logistic_regression,
    "linear_discriminant": fit_linear_discriminant,
    "linear_svm": fit_linear_svm,
    "rbf_svm": fit_rbf_svm,
    "nearest_prototype": fit_nearest_prototype,
    "random_forest": fit_random_forest,
    "gradient_boosting": fit_gradient_boosting,
}
