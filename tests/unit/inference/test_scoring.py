"""Heads of a whole model: calibrations, and probabilities for each label in all three tasks."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_agent.errors import ModelContractError
from edge_agent.inference import head as format_of_heads
from edge_agent.inference.head import (
    Calibration,
    IsotonicCalibration,
    LogisticRegressionHead,
    NearestPrototypeHead,
    PlattCalibration,
    TemperatureCalibration,
    encode_heads,
    read_heads,
)
from edge_agent.inference.scoring import LabelScorer, calibrate, make_scorer
from edge_agent.records import Task

SIZE = 5


def a_head(label: str, calibration: Calibration, seed: int = 0, scale: float = 1.0) -> LogisticRegressionHead:
    random = np.random.default_rng([seed, *label.encode()])
    coefficients = random.normal(scale=scale, size=SIZE).tolist()
    return LogisticRegressionHead(positive=label, coefficients=coefficients, intercept=float(random.normal()), calibration=calibration)


def logits(*values: float) -> NDArray[np.float32]:
    return np.array(values, np.float32)


@st.composite
def calibrations(draw: st.DrawFn) -> Calibration:
    match draw(st.sampled_from(["platt", "temperature", "isotonic"])):
        case "platt":
            return PlattCalibration(draw(st.floats(0.01, 100)), draw(st.floats(-100, 100)))
        case "temperature":
            return TemperatureCalibration(draw(st.floats(0.01, 100)))
    places = draw(st.lists(st.floats(-100, 100), min_size=2, max_size=6, unique=True))
    least = format_of_heads.MIN_ISOTONIC_PROBABILITY
    chances = draw(st.lists(st.floats(least, 1 - least), min_size=len(places), max_size=len(places)))
    return IsotonicCalibration(sorted(places), sorted(chances))


# calibration


def test_each_calibration_by_hand() -> None:
    raw = logits(-2.0, 0.0, 3.0)
    np.testing.assert_allclose(calibrate(PlattCalibration(2.0, 1.0), raw), 1 / (1 + np.exp([3.0, -1.0, -7.0])), rtol=1e-6)
    np.testing.assert_allclose(calibrate(TemperatureCalibration(2.0), raw), 1 / (1 + np.exp([1.0, 0.0, -1.5])), rtol=1e-6)
    steps = IsotonicCalibration([-1.0, 1.0, 2.0], [0.1, 0.3, 0.9])
    np.testing.assert_allclose(calibrate(steps, logits(-9.0, -1.0, 0.0, 1.5, 2.0, 50.0)), [0.1, 0.1, 0.2, 0.6, 0.9, 0.9], rtol=1e-6)


@given(calibrations(), st.lists(st.floats(-1e9, 1e9, width=32), min_size=1, max_size=20))
def test_every_calibration_is_monotonic_and_read_as_it_was_written(calibration: Calibration, raw: list[float]) -> None:
    (head,) = read_heads(encode_heads([a_head("A", calibration)]), SIZE)
    assert head.calibration == calibration
    probabilities = calibrate(calibration, np.sort(logits(*raw)))
    assert probabilities.dtype == np.float32
    assert (np.diff(probabilities) >= 0).all()
    assert probabilities.min() > 0
    assert probabilities.max() <= 1
    assert calibrate(calibration, logits(*raw).reshape(-1, 1, 1)).shape == (len(raw), 1, 1)
    assert calibrate(calibration, logits(raw[0])[0]).shape == ()


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        ({"slope": 1.0, "intercept": 0.0}, "method"),
        ({"method": "beta", "slope": 1.0}, "beta"),
        ({"method": "platt", "slope": 1e30, "intercept": 0.0}, "beyond 1e"),
        ({"method": "platt", "slope": 1.0, "temperature": 1.0}, "temperature"),
        ({"method": "temperature", "temperature": 0.0}, "not positive"),
        ({"method": "temperature", "temperature": -1.0}, "not positive"),
        ({"method": "temperature", "temperature": 1e300}, "beyond 1e"),
        ({"method": "isotonic", "logits": [0.0], "probabilities": [0.5]}, "length >= 2"),
        ({"method": "isotonic", "logits": [0.0, 1.0, 2.0], "probabilities": [0.1, 0.5]}, "probabilities has shape"),
        ({"method": "isotonic", "logits": [0.0, 0.0], "probabilities": [0.1, 0.5]}, "do not ascend"),
        ({"method": "isotonic", "logits": [1.0, 0.0], "probabilities": [0.1, 0.5]}, "do not ascend"),
        ({"method": "isotonic", "logits": [0.0, 1e12], "probabilities": [0.1, 0.5]}, "beyond 1e"),
        ({"method": "isotonic", "logits": [0.0, 1.0], "probabilities": [0.5, 0.1]}, "fall somewhere"),
        ({"method": "isotonic", "logits": [0.0, 1.0], "probabilities": [0.0, 0.5]}, "nearer to 0 or 1"),
        ({"method": "isotonic", "logits": [0.0, 1.0], "probabilities": [0.5, 1.0]}, "nearer to 0 or 1"),
        ({"method": "isotonic", "logits": [0.0, 1.0], "probabilities": [-0.5, 1.5]}, "nearer to 0 or 1"),
    ],
)
def test_a_calibration_that_cannot_be_computed_is_refused(calibration: dict[str, object], message: str) -> None:
    fields = json.loads(encode_heads([a_head("A", PlattCalibration(1.0, 0.0))]))
    with pytest.raises(ModelContractError, match=message):
        read_heads(json.dumps(fields | {"calibration": calibration}).encode(), SIZE)


# head.json with several heads


def test_one_head_for_each_label_is_read_as_it_was_written() -> None:
    prototype = NearestPrototypeHead(
        positive="B",
        calibration=TemperatureCalibration(2.0),
        centre=[0.0] * SIZE,
        spread=[1.0] * SIZE,
        positive_prototypes=[[1.0] * SIZE],
        negative_prototypes=[[0.0] * SIZE],
    )
    heads = [a_head("A", PlattCalibration(1.0, 0.0)), prototype, a_head("C", IsotonicCalibration([0.0, 1.0], [0.2, 0.8]))]
    content = encode_heads(heads)
    assert json.loads(content)["kind"] == "one_per_label"
    assert read_heads(content, SIZE) == heads


def test_a_bad_head_among_several_is_named() -> None:
    heads = [a_head("A", PlattCalibration(1.0, 0.0)), a_head("B", PlattCalibration(1.0, 0.0))]
    fields = json.loads(encode_heads(heads))
    fields["heads"][1]["coefficients"].pop()
    with pytest.raises(ModelContractError, match=r"coefficients has shape \(4,\).*head of 'B'"):
        read_heads(json.dumps(fields).encode(), SIZE)


@pytest.mark.parametrize("heads", [[], [{"kind": "one_per_label", "heads": []}], {}, None])
def test_several_heads_that_are_none_are_refused(heads: object) -> None:
    with pytest.raises(ModelContractError, match=r"head\.json"):
        read_heads(json.dumps({"kind": "one_per_label", "heads": heads}).encode(), SIZE)


def test_heads_too_large_to_be_read_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    heads = [a_head(f"label {number}", PlattCalibration(1.0, 0.0)) for number in range(10)]
    monkeypatch.setattr(format_of_heads, "MAX_HEAD_BYTES", len(encode_heads(heads)) - 1)
    with pytest.raises(ModelContractError, match="choose a kind of head with fewer numbers"):
        encode_heads(heads)


# the labels of a model


@given(st.data(), st.integers(0, 1000), st.integers(3, 9), st.floats(0.1, 1e6))
def test_probabilities_of_random_models(data: st.DataObject, seed: int, count: int, scale: float) -> None:
    labels = [f"label {number}" for number in range(count)]
    heads = [a_head(label, data.draw(calibrations()), seed, scale) for label in labels]
    embeddings = np.random.default_rng(seed).normal(size=(4, 3, SIZE)).astype(np.float32)
    each = LabelScorer("multilabel", labels, heads).probabilities(embeddings)
    classes = LabelScorer("multiclass", labels, heads).probabilities(embeddings)
    assert each.shape == classes.shape == (4, 3, count)
    assert each.dtype == classes.dtype == np.float32
    for column, head in enumerate(heads):
        np.testing.assert_array_equal(each[..., column], make_scorer(head).probabilities(embeddings))
    assert classes.min() >= 0
    np.testing.assert_allclose(classes.sum(axis=-1), 1.0, atol=1e-6)
    # Divided by one number, the classes keep their order.
    assert (np.take_along_axis(classes, each.argmax(axis=-1)[..., np.newaxis], axis=-1)[..., 0] == classes.max(axis=-1)).all()
    (lone,) = LabelScorer("multiclass", labels, heads).logits(embeddings[:1, 0])
    np.testing.assert_array_equal(lone, LabelScorer("multilabel", labels, heads).logits(embeddings[0, 0]))


@pytest.mark.parametrize("labels", [["NORMAL", "SICK"], ["SICK", "NORMAL"]])
def test_a_binary_model_gives_both_labels_in_their_order(labels: list[str]) -> None:
    head = a_head("SICK", PlattCalibration(0.7, 0.1))
    scorer = LabelScorer("binary", labels, [head])
    embeddings = np.random.default_rng(0).normal(size=(6, SIZE)).astype(np.float32)
    probabilities = scorer.probabilities(embeddings)
    expected = make_scorer(head).probabilities(embeddings)
    np.testing.assert_array_equal(probabilities[:, labels.index("SICK")], expected)
    np.testing.assert_array_equal(probabilities[:, labels.index("NORMAL")], 1 - expected)
    assert scorer.logits(embeddings).shape == (6, 1)


@pytest.mark.parametrize(
    ("task", "scored"),
    [
        ("binary", ["OTHER"]),
        ("binary", ["NORMAL", "SICK"]),
        ("binary", []),
        ("multiclass", ["SICK"]),
        ("multiclass", ["SICK", "NORMAL"]),
        ("multilabel", ["SICK", "NORMAL"]),
        ("multilabel", ["NORMAL", "SICK", "SICK"]),
    ],
)
def test_heads_that_do_not_answer_for_the_labels_are_refused(task: Task, scored: list[str]) -> None:
    heads = [a_head(label, PlattCalibration(1.0, 0.0)) for label in scored]
    with pytest.raises(ModelContractError, match="the heads score"):
        LabelScorer(task, ["NORMAL", "SICK"], heads)


def test_evidence_of_a_label_has_its_logit_as_its_mean() -> None:
    labels = ["A", "B", "C"]
    scorer = LabelScorer("multilabel", labels, [a_head(label, TemperatureCalibration(3.0)) for label in labels])
    feature_map: NDArray[Any] = np.random.default_rng(0).normal(size=(4, 4, SIZE)).astype(np.float32)
    for column, label in enumerate(labels):
        evidence = scorer.evidence(label, feature_map)
        assert evidence.shape == (4, 4)
        assert evidence.mean() == pytest.approx(scorer.logits(feature_map.mean(axis=(0, 1)))[column], abs=1e-5)


def test_a_head_of_an_unknown_kind_is_refused() -> None:
    class Oracle(format_of_heads.Head, frozen=True, tag="oracle"):
        pass

    with pytest.raises(ModelContractError, match="cannot run the kind 'oracle'"):
        make_scorer(
            msgspec.convert({"positive": "A", "calibration": {"method": "temperature", "temperature": 1.0}, "kind": "oracle"}, Oracle)
        )
