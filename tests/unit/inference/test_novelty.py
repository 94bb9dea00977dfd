"""The novelty score is the Mahalanobis distance, computed two ways."""

from __future__ import annotations

import io

import numpy as np
import pytest

from edge_agent.errors import ModelContractError
from edge_agent.inference.novelty import NoveltyScorer, Reference, novelty_features, read_reference


def packed(**arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def arrays_of(size: int) -> dict[str, np.ndarray]:
    return {
        "class_means": np.zeros((2, 2 * size), np.float32),
        "whitening": np.eye(2 * size, dtype=np.float32),
        "core_embeddings": np.zeros((3, size), np.float32),
        "core_labels": np.zeros(3, np.int64),
    }


def test_distance_is_mahalanobis_to_the_nearest_class() -> None:
    random = np.random.default_rng(0)
    mixing = random.normal(size=(6, 6))
    covariance = mixing @ mixing.T + np.eye(6)
    means = np.stack([np.zeros(6), np.full(6, 4.0)])
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    scorer = NoveltyScorer(Reference(means.astype(np.float32), whitening.astype(np.float32), np.zeros((0, 3)), np.zeros(0, np.int64)))
    features = random.normal(size=(20, 6)).astype(np.float32) * 3.0
    inverse = np.linalg.inv(covariance)
    expected = [min(float(np.sqrt((row - mean) @ inverse @ (row - mean))) for mean in means) for row in features]
    np.testing.assert_allclose(scorer.distances(features), expected, rtol=1e-4)


def test_features_are_mean_and_spread_of_each_channel() -> None:
    feature_map = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    embedding = feature_map.mean(axis=(0, 1))
    features = novelty_features(embedding, feature_map)
    np.testing.assert_allclose(features, [*embedding, feature_map[..., 0].std(), feature_map[..., 1].std()], rtol=1e-6)


def test_reads_what_fits() -> None:
    assert read_reference(packed(**arrays_of(4)), 4).core_embeddings.shape == (3, 4)


@pytest.mark.parametrize("name", ["class_means", "whitening", "core_embeddings", "core_labels"])
def test_refuses_a_missing_or_misshapen_array(name: str) -> None:
    good = arrays_of(4)
    with pytest.raises(ModelContractError, match=r"reference\.npz"):
        read_reference(packed(**{key: value for key, value in good.items() if key != name}), 4)
    with pytest.raises(ModelContractError, match=r"reference\.npz"):
        read_reference(packed(**(good | {name: np.zeros((1, 1), np.float32)})), 4)


def test_refuses_what_is_not_finite() -> None:
    with pytest.raises(ModelContractError, match="not finite"):
        read_reference(packed(**(arrays_of(4) | {"whitening": np.full((8, 8), np.nan, np.float32)})), 4)


def test_refuses_pickled_objects_and_rubbish() -> None:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=True, **(arrays_of(4) | {"class_means": np.array([{"a": 1}], dtype=object)}))
    for content in (stream.getvalue(), b"", b"not a zip", packed(**arrays_of(4))[:200]):
        with pytest.raises(ModelContractError, match=r"reference\.npz"):
            read_reference(content, 4)
