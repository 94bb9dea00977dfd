"""The heads that run on the device give what scikit-learn gives, and a head that cannot run is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edge_agent.errors import ModelContractError
from edge_agent.inference import head as format_of_heads
from edge_agent.inference.bundle import default_bundle_path, load_bundle
from edge_agent.inference.head import LinearHead, LogisticRegressionHead, PlattCalibration, encode_heads, read_heads
from edge_agent.inference.scoring import FOREST_CLIP, make_scorer
from model_build.heads import estimators


def a_head(coefficients: list[float], calibration: PlattCalibration = PlattCalibration(1.0, 0.0)) -> LogisticRegressionHead:  # noqa: B008
    return LogisticRegressionHead(positive="SICK", coefficients=coefficients, intercept=0.5, calibration=calibration)


def sigmoid(logits: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(1.0 / (1.0 + np.exp(-logits.astype(np.float64))))


def device_logits(head: format_of_heads.Head, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """As the device gives them: written to head.json and read again."""
    return make_scorer(read_heads(encode_heads([head]), embeddings.shape[1])[0]).logits(embeddings)


def draw(seed: int, size: int, count: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.float32]]:
    """Training embeddings in quantised steps with their truth, and unseen ones, some of them right on a step."""
    random = np.random.default_rng(seed)
    step = np.float32(0.0235)
    truth = np.arange(count) % 3 == 0
    train = np.rint(random.normal(size=(count, size)) * 40 + truth[:, np.newaxis] * 15).astype(np.float32) * step
    unseen = np.concatenate([random.normal(size=(30, size)).astype(np.float32), train[:20] + step / 2])
    return train, truth, unseen.astype(np.float32)


SHAPES = {"seed": st.integers(0, 10_000), "size": st.integers(1, 40), "count": st.integers(12, 60)}


@settings(max_examples=25, deadline=None)
@given(**SHAPES)
@pytest.mark.parametrize("kind", ["logistic_regression", "linear_discriminant", "linear_svm"])
def test_linear_heads_equal_scikit_learn(kind: str, seed: int, size: int, count: int) -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    model = {
        "logistic_regression": LogisticRegression(C=0.3, class_weight="balanced", max_iter=2000),
        "linear_discriminant": LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5]),
        "linear_svm": LinearSVC(C=0.3, class_weight="balanced", dual=False, max_iter=5000),
    }[kind]
    train, truth, unseen = draw(seed, size, count)
    pipeline = make_pipeline(StandardScaler(), model).fit(train, truth)
    head = estimators.FITTERS[kind](train, truth, "SICK", 0.3)
    assert head.kind == kind
    expected = pipeline.decision_function(unseen)
    np.testing.assert_allclose(sigmoid(device_logits(head, unseen)), sigmoid(expected), atol=1e-5)
    np.testing.assert_allclose(device_logits(head, unseen), expected, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(expected).max()))


@settings(max_examples=25, deadline=None)
@given(**SHAPES, regularization=st.sampled_from([0.1, 1.0, 10.0]))
def test_the_rbf_svm_equals_scikit_learn(seed: int, size: int, count: int, regularization: float) -> None:
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    train, truth, unseen = draw(seed, size, count)
    scaler = StandardScaler().fit(train)
    model = SVC(C=regularization, gamma=1.0 / size, class_weight="balanced").fit(scaler.transform(train), truth)
    expected = model.decision_function(scaler.transform(unseen))
    head = estimators.FITTERS["rbf_svm"](train, truth, "SICK", regularization)
    np.testing.assert_allclose(sigmoid(device_logits(head, unseen)), sigmoid(expected), atol=1e-5)
    # What float32 loses grows with the weights that are added up: at most 8e-8 of their sum in 3,000 draws.
    np.testing.assert_allclose(device_logits(head, unseen), expected, rtol=1e-6, atol=1e-6 + 3e-7 * np.abs(model.dual_coef_).sum())


@settings(max_examples=15, deadline=None)
@given(**SHAPES)
def test_nearest_prototype_equals_the_distances_of_scikit_learn(seed: int, size: int, count: int) -> None:
    from sklearn.cluster import KMeans
    from sklearn.preprocessing import StandardScaler

    train, truth, unseen = draw(seed, size, count)
    scaler = StandardScaler().fit(train)
    places = scaler.transform(train)
    squares = [
        KMeans(min(4, len(np.unique(places[truth == flag], axis=0))), n_init=5, random_state=0)
        .fit(places[truth == flag])
        .transform(scaler.transform(unseen))
        .min(axis=1)
        .astype(np.float64)
        ** 2
        for flag in (True, False)
    ]
    head = estimators.FITTERS["nearest_prototype"](train, truth, "SICK", 1.0)
    # scikit-learn multiplies the square out in the float32 of its input, so the error stands relative to the squares, not their difference.
    limit = 1e-5 * max(1.0, float(np.max(squares)))
    np.testing.assert_allclose(device_logits(head, unseen), (squares[1] - squares[0]) / 2.0, atol=limit)


@settings(max_examples=15, deadline=None)
@given(**SHAPES, trees=st.integers(1, 12), depth=st.sampled_from([1, 4, None]), bootstrap=st.booleans())
def test_the_random_forest_equals_scikit_learn(seed: int, size: int, count: int, trees: int, depth: int | None, bootstrap: bool) -> None:
    from sklearn.ensemble import RandomForestClassifier

    train, truth, unseen = draw(seed, size, count)
    model = RandomForestClassifier(trees, max_depth=depth, bootstrap=bootstrap, random_state=seed, class_weight="balanced")
    model.fit(train, truth)
    expected = np.clip(model.predict_proba(unseen)[:, 1], FOREST_CLIP, 1 - FOREST_CLIP)
    head = estimators.export_random_forest(model, "SICK")
    np.testing.assert_allclose(sigmoid(device_logits(head, unseen)), expected, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(**SHAPES, trees=st.integers(1, 12), depth=st.integers(1, 5))
def test_gradient_boosting_equals_scikit_learn(seed: int, size: int, count: int, trees: int, depth: int) -> None:
    from sklearn.ensemble import GradientBoostingClassifier

    train, truth, unseen = draw(seed, size, count)
    model = GradientBoostingClassifier(n_estimators=trees, max_depth=depth, subsample=0.7, random_state=seed).fit(train, truth)
    head = estimators.export_gradient_boosting(model, "SICK")
    np.testing.assert_allclose(device_logits(head, unseen), model.decision_function(unseen), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["random_forest", "gradient_boosting"])
def test_a_threshold_between_two_float32_splits_as_in_scikit_learn(kind: str) -> None:
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

    # Neighbours in float32: their middle rounds to one of them, and half of the time to the wrong side.
    low = np.linspace(2.1, 15.9, 20, dtype=np.float32)
    for value in low:
        train = np.array([[value], [np.nextafter(value, np.float32(9))]], np.float32).repeat(3, axis=0)
        truth = np.array([False] * 3 + [True] * 3)
        forest = kind == "random_forest"
        model = RandomForestClassifier(3, bootstrap=False) if forest else GradientBoostingClassifier(n_estimators=3)
        model.fit(train, truth)
        head = estimators.export_random_forest(model, "S") if forest else estimators.export_gradient_boosting(model, "S")
        np.testing.assert_array_equal(device_logits(head, train) > 0, truth)


@pytest.mark.parametrize("kind", list(estimators.FITTERS))
def test_every_kind_scores_any_shape_and_gives_probabilities(kind: str) -> None:
    train, truth, unseen = draw(1, 6, 60)
    head = estimators.FITTERS[kind](train, truth, "SICK", 1.0)
    assert json.loads(msgspec.json.encode(head))["kind"] == kind
    assert read_heads(encode_heads([head]), 6) == [head]
    scorer = make_scorer(head)
    logits = scorer.logits(unseen)
    assert logits.dtype == np.float32
    assert scorer.logits(unseen[0]) == pytest.approx(logits[0], rel=1e-5)
    np.testing.assert_allclose(scorer.logits(unseen.reshape(5, 10, 6)), logits.reshape(5, 10), rtol=1e-5, atol=1e-6)
    probabilities = scorer.probabilities(train)
    assert probabilities.min() >= 0
    assert probabilities.max() <= 1
    assert probabilities[truth].mean() > probabilities[~truth].mean() + 0.2


def test_the_head_that_ships_is_read_as_it_always_was() -> None:
    bundle = load_bundle(default_bundle_path())
    fields = json.loads((default_bundle_path() / "head.json").read_bytes())
    (head,) = bundle.heads
    assert isinstance(head, LinearHead)
    assert head.kind == fields["kind"]
    assert json.loads(encode_heads(bundle.heads)) == fields
    embedding = np.random.default_rng(0).normal(size=len(fields["coefficients"])).astype(np.float32)
    expected = embedding @ np.array(fields["coefficients"], np.float32) + np.float32(fields["intercept"])
    assert make_scorer(head).logits(embedding) == expected


def test_calibration_stretches_the_log_odds() -> None:
    embeddings = np.array([[1.0, 2.0], [-3.0, 0.5]], np.float32)
    plain = make_scorer(a_head([0.3, -0.2]))
    stretched = make_scorer(a_head([0.3, -0.2], PlattCalibration(2.0, -1.0)))
    expected = 1.0 / (1.0 + np.exp(-(2.0 * plain.logits(embeddings) - 1.0)))
    np.testing.assert_allclose(stretched.probabilities(embeddings), expected, rtol=1e-6)


def test_extreme_logits_stay_probabilities() -> None:
    head = make_scorer(a_head([1e6]))
    assert head.probabilities(np.array([[1.0], [-1.0]], np.float32)).tolist() == pytest.approx([1.0, 0.0])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "head.json"),
        (b'"\xff"', "head.json"),
        (b" " * (format_of_heads.MAX_HEAD_BYTES + 1), "bytes"),
        (msgspec.json.encode(a_head([1.0])), r"coefficients has shape \(1,\); this embedding needs \(2,\)"),
        (msgspec.json.encode(a_head([1.0, 2.0])).replace(b"logistic_regression", b"pickled_forest"), "pickled_forest"),
        (msgspec.json.encode(a_head([1.0, 2.0])).replace(b"2.0", b"1e999"), "head.json"),
        (msgspec.json.encode(a_head([1.0, 2.0])).replace(b"2.0", b"1e30"), "beyond 1e"),
    ],
)
def test_refuses_what_it_cannot_run(content: bytes, message: str) -> None:
    with pytest.raises(ModelContractError, match=message):
        read_heads(content, 2)


STUMP = {"roots": [0], "feature": [1, -1, -1], "threshold": [0.5, 0, 0], "left": [1, -1, -1], "right": [2, -1, -1], "value": [0, 0.2, 0.8]}


def a_forest(**changes: object) -> bytes:
    calibration = {"method": "platt", "slope": 1.0, "intercept": 0.0}
    return json.dumps({"kind": "random_forest", "positive": "SICK", "calibration": calibration, "trees": STUMP | changes}).encode()


def test_a_stump_by_hand() -> None:
    scorer = make_scorer(read_heads(a_forest(), 2)[0])
    probabilities = sigmoid(scorer.logits(np.array([[9.0, 0.5], [9.0, 0.6]], np.float32)))
    np.testing.assert_allclose(probabilities, [0.2, 0.8], rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"left": [0, -1, -1]}, "leads back to itself"),
        ({"feature": [1, 1, -1], "left": [1, 0, -1], "right": [2, 2, -1]}, "leads back to itself"),
        ({"left": [3, -1, -1]}, "left holds an index"),
        ({"right": [-2, -1, -1]}, "right holds an index"),
        ({"right": [-1, -1, -1]}, "right leads nowhere"),
        ({"left": [10**30, -1, -1]}, "head.json"),
        ({"roots": [3]}, "roots holds an index"),
        ({"roots": [-1]}, "roots holds an index"),
        ({"roots": []}, "roots"),
        ({"roots": [0] * 2_001}, "roots"),
        ({"feature": [2, -1, -1]}, "feature holds an index"),
        ({"feature": [-2, -1, -1]}, "feature holds an index"),
        ({"left": [1, -1]}, "left has 2 entries for 3 nodes"),
        ({"threshold": [0.5, 0]}, "threshold has shape"),
        ({"value": [0, 0.2, 1.5]}, "no probability"),
        ({"value": [0, 0.2, None]}, "value"),
    ],
)
def test_refuses_a_tree_that_loops_or_leaves_its_bounds(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ModelContractError, match=message):
        read_heads(a_forest(**changes), 2)


def test_refuses_a_tree_of_too_many_levels() -> None:
    """A chain, each branch with one leaf and the next branch."""
    for branches, fits in ((format_of_heads.MAX_TREE_DEPTH, True), (format_of_heads.MAX_TREE_DEPTH + 1, False)):
        chain = range(branches)
        trees = {
            "feature": [0] * branches + [-1] * (branches + 1),
            "left": [branches + i for i in chain] + [-1] * (branches + 1),
            "right": [i + 1 if i < branches - 1 else 2 * branches for i in chain] + [-1] * (branches + 1),
            "threshold": [0.0] * (2 * branches + 1),
            "value": [0.5] * (2 * branches + 1),
        }
        if fits:
            read_heads(a_forest(**trees), 2)
        else:
            with pytest.raises(ModelContractError, match="levels"):
                read_heads(a_forest(**trees), 2)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("rbf_svm", {"gamma": 0.0}, "gamma"),
        ("rbf_svm", {"support_vectors": [[1.0, 2.0], [1.0]]}, "different lengths"),
        ("rbf_svm", {"support_vectors": []}, "support_vectors"),
        ("rbf_svm", {"weights": [1.0]}, "weights has shape"),
        ("rbf_svm", {"spread": [1.0, 0.0]}, "not positive"),
        ("nearest_prototype", {"negative_prototypes": [[0.0]]}, "negative_prototypes"),
        ("nearest_prototype", {"positive_prototypes": [[0.0, 0.0]] * 1_001}, "positive_prototypes"),
        ("nearest_prototype", {"centre": [0.0]}, "centre"),
        ("gradient_boosting", {"intercept": 1e300}, "intercept"),
        ("linear_svm", {"weights": []}, "weights"),
    ],
)
def test_refuses_numbers_that_do_not_fit(kind: str, changes: dict[str, object], message: str) -> None:
    train, truth, _ = draw(1, 2, 30)
    fields = json.loads(msgspec.json.encode(estimators.FITTERS[kind](train, truth, "SICK", 1.0)))
    with pytest.raises(ModelContractError, match=message):
        read_heads(json.dumps(fields | changes).encode(), 2)
