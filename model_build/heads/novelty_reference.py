"""Statistics of the training images for the novelty score, and a small core set of embeddings."""

from __future__ import annotations

import numpy as np

from edge_agent.inference.novelty import Reference
from model_build.array_types import BoolArray, Int64Array
from model_build.arrays import pack_arrays
from model_build.heads.embed import Embedded

_CORE_PER_CLASS = 100
_SHRINKAGE = 1e-3
"""Share of the mean variance added to every direction: one in which the training images hardly differ must not decide alone."""


def fit_reference(embedded: Embedded, labels: Int64Array, chosen: BoolArray, seed: int) -> Reference:
    """Fit class means and the shared covariance on the chosen images.

    Parameters
    ----------
    embedded : Embedded
        Of all images.
    labels : ndarray, int64, shape (images,)
    chosen : ndarray, bool, shape (images,)
        The images trained on.
    seed : int
        Of the core set's draw.

    Returns
    -------
    Reference
    """
    features, classes = embedded.features[chosen].astype(np.float64), labels[chosen]
    names, index = np.unique(classes, return_inverse=True)
    means = np.stack([features[classes == name].mean(axis=0) for name in names])
    residuals = features - means[index]
    covariance = residuals.T @ residuals / len(residuals)
    covariance += _SHRINKAGE * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    # precision = L L^T, so that |L^T (x - mean)| is the Mahalanobis distance.
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    random = np.random.default_rng(seed)
    core = np.concatenate(
        [
            random.choice(members, min(_CORE_PER_CLASS, len(members)), replace=False)
            for members in (np.flatnonzero(chosen & (labels == name)) for name in names)
        ]
    )
    return Reference(means.astype(np.float32), whitening.astype(np.float32), embedded.embeddings[core], labels[core])


def pack_reference(reference: Reference) -> bytes:
    """The bytes of ``reference.npz``. The core set is for a refit of the head on the box; the novelty score does not read it."""
    return pack_arrays(
        class_means=reference.class_means,
        whitening=reference.whitening,
        core_embeddings=reference.core_embeddings,
        core_labels=reference.core_labels,
    )
