"""The head that runs on the device gives what scikit-learn gives."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.errors import ModelContractError
from edge_agent.inference.head import Head, LinearHead, PlattCalibration, read_head


def a_head(coefficients: list[float], **changes: object) -> Head:
    fields = {
        "kind": "logistic_regression",
        "positive": "SICK",
        "coefficients": coefficients,
        "intercept": 0.5,
        "calibration": PlattCalibration(1.0, 0.0),
    }
    return Head(**(fields | changes))  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(1, 40), count=st.integers(10, 60))
def test_equals_scikit_learn_on_random_models(seed: int, size: int, count: int) -> None:
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(seed)
    embeddings = random.normal(size=(count, size)).astype(np.float32)
    truth = np.arange(count) % 2 == 0
    model = LogisticRegression().fit(embeddings, truth)
    head = LinearHead(a_head(model.coef_[0].tolist(), intercept=float(model.intercept_[0])))
    np.testing.assert_allclose(head.probabilities(embeddings), model.predict_proba(embeddings)[:, 1], atol=1e-5)


def test_calibration_stretches_the_log_odds() -> None:
    embeddings = np.array([[1.0, 2.0], [-3.0, 0.5]], np.float32)
    plain = LinearHead(a_head([0.3, -0.2]))
    stretched = LinearHead(a_head([0.3, -0.2], calibration=PlattCalibration(2.0, -1.0)))
    expected = 1.0 / (1.0 + np.exp(-(2.0 * plain.logits(embeddings) - 1.0)))
    np.testing.assert_allclose(stretched.probabilities(embeddings), expected, rtol=1e-6)


def test_extreme_logits_stay_probabilities() -> None:
    head = LinearHead(a_head([1e6]))
    assert head.probabilities(np.array([[1.0], [-1.0]], np.float32)).tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "head.json"),
        (msgspec.json.encode(a_head([1.0])), "1 coefficients for an embedding of 2"),
        (msgspec.json.encode(a_head([1.0, 2.0])).replace(b"logistic_regression", b"pickled_forest"), "head.json"),
        (msgspec.json.encode(a_head([1.0, 2.0])).replace(b"2.0", b"1e999"), "head.json"),
    ],
)
def test_refuses_what_it_can_not_run(content: bytes, message: str) -> None:
    with pytest.raises(ModelContractError, match=message):
        read_head(content, 2)
