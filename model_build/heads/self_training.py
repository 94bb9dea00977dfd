"""Self-training: a head from few labels, and from the other images of the training patients without theirs."""

from __future__ import annotations

import numpy as np

from edge_agent.inference.head import Head
from edge_agent.inference.scoring import make_scorer
from model_build.array_types import BoolArray, Float32Array
from model_build.config import BuildConfig
from model_build.heads.estimators import fit_logistic_regression
from model_build.heads.fit import fit_heads


def fit_self_trained_heads(
    embeddings: Float32Array, targets: BoolArray, labelled: BoolArray, unlabelled: BoolArray, config: BuildConfig
) -> list[Head]:
    """Fit each head on the labelled images, let it label the others, and fit it once more on all.

    Parameters
    ----------
    embeddings : ndarray, float32, shape (images, D)
        Of all images, from the int8 model.
    targets : ndarray, bool, shape (images, labels)
        Only the rows of labelled images are read.
    labelled, unlabelled : ndarray, bool, shape (images,)
        Neither holds a held-out image. Where no image is unlabelled, the heads are those of the labelled images alone.
    config : BuildConfig
        Task, labels and the strength of the logistic regression.

    Returns
    -------
    list of Head
        Not calibrated yet; the order of :func:`model_build.heads.fit.scored_labels`.

    Notes
    -----
    Every unlabelled image takes part, on the side that the first head gives it; together they weigh as much as the labelled images.
    Taking the most confident ones only, more rounds and other weights were no better over 10 to 250 labels per class.

    References
    ----------
    Scudder, Probability of error of some adaptive pattern-recognition machines, IEEE Trans. Information Theory, 1965.
    """
    source = config.source
    heads = fit_heads(embeddings[labelled], targets[labelled], source.labels, config.task, source.positive, config.head)
    if not unlabelled.any():
        return heads
    return [
        _fit_again(head, embeddings, targets[:, source.labels.index(head.positive)], labelled, unlabelled, config.head.regularization)
        for head in heads
    ]


def _fit_again(
    head: Head, embeddings: Float32Array, positive: BoolArray, labelled: BoolArray, unlabelled: BoolArray, inverse_regularization: float
) -> Head:
    predicted = make_scorer(head).logits(embeddings[unlabelled]) > 0
    weights = np.ones(int(labelled.sum()) + len(predicted), np.float32)
    weights[-len(predicted) :] = labelled.sum() / len(predicted)
    return fit_logistic_regression(
        np.concatenate([embeddings[labelled], embeddings[unlabelled]]),
        np.concatenate([positive[labelled], predicted]),
        head.positive,
        inverse_regularization,
        weights,
    )
