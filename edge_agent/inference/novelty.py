"""Is this image like the training images? Mahalanobis distance to the nearest class."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass

import numpy as np

from edge_agent.array_types import Float32Array, Int64Array
from edge_agent.errors import ModelContractError


@dataclass(frozen=True)
class Reference:
    """Statistics of the training images, as ``reference.npz`` holds them; no image can be made from them.

    ``class_means`` is float32, shape (classes, F), in the novelty features. ``whitening`` is float32, shape (F, F): features times it have
    unit covariance within a class. ``core_embeddings`` (float32, shape (M, D)) and ``core_labels`` (int64, shape (M,)) are a small draw of
    training embeddings, from which a head can be fitted again on the device.
    """

    class_means: Float32Array
    whitening: Float32Array
    core_embeddings: Float32Array
    core_labels: Int64Array


def novelty_features(embedding: Float32Array, feature_map: Float32Array) -> Float32Array:
    """Compute what the distance is measured on: mean and spread of every channel.

    Parameters
    ----------
    embedding : ndarray, float32, shape (D,)
        The channels' means over the image.
    feature_map : ndarray, float32, shape (h, w, D)

    Returns
    -------
    ndarray, float32, shape (2 D,)
        The embedding, then each channel's standard deviation over the map: an unusual layout with usual means shows in the second half.
    """
    return np.concatenate([embedding, feature_map.std(axis=(0, 1), dtype=np.float32)])


def read_reference(content: bytes, embedding_size: int) -> Reference:
    """Read ``reference.npz``.

    Raises
    ------
    ModelContractError
        If an array is missing, not finite or of the wrong shape.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            reference = Reference(
                arrays["class_means"].astype(np.float32),
                arrays["whitening"].astype(np.float32),
                arrays["core_embeddings"].astype(np.float32),
                arrays["core_labels"].astype(np.int64),
            )
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as fault:
        raise ModelContractError(f"reference.npz: {fault}") from fault
    size = 2 * embedding_size
    if (
        reference.class_means.ndim != 2
        or reference.class_means.shape[1] != size
        or reference.whitening.shape != (size, size)
        or reference.core_embeddings.shape[1:] != (embedding_size,)
        or reference.core_labels.shape != reference.core_embeddings.shape[:1]
    ):
        raise ModelContractError(f"reference.npz does not fit an embedding of {embedding_size} values")
    if not (np.isfinite(reference.class_means).all() and np.isfinite(reference.whitening).all()):
        raise ModelContractError("reference.npz holds a number that is not finite")
    return reference


class NoveltyScorer:
    """Mahalanobis distance to the nearest class mean, with one covariance shared by the classes.

    References
    ----------
    Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples, NeurIPS 2018.
    """

    def __init__(self, reference: Reference) -> None:
        self._whitening = reference.whitening
        self._centres = reference.class_means @ reference.whitening

    def distances(self, features: Float32Array) -> Float32Array:
        """Distance of each row of ``features`` (float32, shape (images, F)); float32, shape (images,), 0 and up."""
        white = features @ self._whitening
        differences = white[:, np.newaxis] - self._centres[np.newaxis]
        return np.asarray(np.sqrt((differences**2).sum(axis=2).min(axis=1)), dtype=np.float32)

    def distance(self, embedding: Float32Array, feature_map: Float32Array) -> float:
        """Distance of one image; arguments as in :func:`novelty_features`."""
        return float(self.distances(novelty_features(embedding, feature_map)[np.newaxis])[0])
