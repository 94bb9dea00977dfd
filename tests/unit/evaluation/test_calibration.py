"""Calibrations are probabilities, keep the order of the logits, and are compared on patients that they did not see."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.errors import ConfigError
from edge_agent.inference.head import IsotonicCalibration, PlattCalibration, TemperatureCalibration
from edge_agent.inference.scoring import calibrate
from model_build.evaluation.calibration import FITTERS, choose_calibration, fit_isotonic, fit_platt, fit_temperature, log_loss


def drawn(count: int, slope: float, intercept: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Logits whose true probability is ``sigmoid(slope * logit + intercept)``; two images a patient."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2.0, size=count).astype(np.float32)
    positive = random.random(count) < 1.0 / (1.0 + np.exp(-(slope * logits + intercept)))
    return logits, positive, [f"p{i // 2}" for i in range(count)]


def scores() -> st.SearchStrategy[list[tuple[float, bool]]]:
    logit = st.floats(-30, 30, width=32) | st.sampled_from([-1.0, 0.0, 2.0])
    return st.lists(st.tuples(logit, st.booleans()), min_size=1, max_size=60)


@pytest.mark.parametrize("method", sorted(FITTERS))
@settings(deadline=None, max_examples=40)
@given(images=scores())
def test_whatever_is_fitted_can_be_packed_and_keeps_the_order(method: str, images: list[tuple[float, bool]]) -> None:
    logits = np.array([logit for logit, _ in images], np.float32)
    calibration = FITTERS[method](logits, np.array([positive for _, positive in images]))
    calibration.check()
    everywhere = np.linspace(-40, 40, 801, dtype=np.float32)
    probabilities = calibrate(calibration, everywhere)
    assert (np.diff(probabilities) >= 0.0).all()
    assert (probabilities >= 0.0).all()
    assert (probabilities <= 1.0).all()


@settings(deadline=None, max_examples=40)
@given(images=scores())
def test_isotonic_stays_inside_0_and_1_and_tells_any_two_logits_apart(images: list[tuple[float, bool]]) -> None:
    logits = np.array([logit for logit, _ in images], np.float64).round(2)
    calibration = fit_isotonic(logits.astype(np.float32), np.array([positive for _, positive in images]))
    assert min(calibration.probabilities) > 0.0
    assert max(calibration.probabilities) < 1.0
    seen = np.unique(logits.astype(np.float32)).astype(np.float64)
    assert (np.diff(np.interp(seen, calibration.logits, calibration.probabilities)) > 0.0).all()


def test_platt_finds_the_curve_that_the_images_were_drawn_from() -> None:
    logits, positive, _ = drawn(20_000, 0.7, -1.0)
    calibration = fit_platt(logits, positive)
    assert calibration.slope == pytest.approx(0.7, abs=0.05)
    assert calibration.intercept == pytest.approx(-1.0, abs=0.05)


def test_the_temperature_undoes_a_head_that_is_too_sure() -> None:
    logits, positive, _ = drawn(20_000, 0.25, 0.0)
    assert fit_temperature(logits, positive).temperature == pytest.approx(4.0, rel=0.05)


def test_isotonic_follows_a_step_that_no_sigmoid_can() -> None:
    random = np.random.default_rng(0)
    logits = random.uniform(-4, 4, 8000).astype(np.float32)
    positive = random.random(8000) < np.where(logits > 1.0, 0.6, 0.2)
    found = calibrate(fit_isotonic(logits, positive), np.array([-3.0, -1.0, 0.5, 1.5, 3.0], np.float32))
    np.testing.assert_allclose(found, [0.2, 0.2, 0.2, 0.6, 0.6], atol=0.07)


def test_few_points_describe_many_images() -> None:
    logits, positive, _ = drawn(5000, 1.0, 0.0)
    assert len(fit_isotonic(logits, positive).logits) < 100


@pytest.mark.parametrize("method", sorted(FITTERS))
def test_separable_images_stay_finite(method: str) -> None:
    logits = np.array([-5, -4, -3, 3, 4, 5], np.float32)
    probabilities = calibrate(FITTERS[method](logits, logits > 0), logits)
    assert (probabilities[:3] < 0.4).all()
    assert (probabilities[3:] > 0.6).all()
    assert ((probabilities > 0.0) & (probabilities < 1.0)).all()


@pytest.mark.parametrize("method", sorted(FITTERS))
def test_logits_that_rank_the_wrong_way_round_are_flattened_and_not_reversed(method: str) -> None:
    logits, positive, _ = drawn(2000, -1.0, 0.0)
    low, high = calibrate(FITTERS[method](logits, positive), np.array([-1.0, 1.0], np.float32))
    assert low <= high <= low + 0.05


def test_best_is_the_lowest_log_loss_on_other_patients() -> None:
    logits, positive, patients = drawn(3000, 0.6, -2.0)
    chosen = choose_calibration(logits, positive, patients, "best", seed=1)
    assert isinstance(chosen.calibration, PlattCalibration)  # a temperature cannot move the intercept; isotonic spends images on its shape
    assert chosen.method == "platt"
    assert set(chosen.log_losses) == {"platt", "temperature", "isotonic", "uncalibrated"}
    assert min(chosen.log_losses.values()) == chosen.log_losses["platt"]
    assert chosen.log_losses["platt"] == pytest.approx(log_loss(calibrate(chosen.calibration, logits), positive), abs=0.005)


def test_simplest_takes_the_temperature_where_the_data_cannot_tell_and_platt_where_they_can() -> None:
    few, positive, patients = drawn(300, 0.6, -0.1)
    assert choose_calibration(few, positive, patients, "simplest", seed=1).method == "temperature"
    many, positive, patients = drawn(3000, 0.6, -2.0)
    assert choose_calibration(many, positive, patients, "simplest", seed=1).method == "platt"


def test_the_standard_error_counts_patients_and_not_images() -> None:
    """The same 300 patients, each image ten times: the losses are no better known than before."""
    logits, positive, _ = drawn(300, 0.6, -0.45)
    patients = [f"p{i}" for i in range(300)]
    once = choose_calibration(logits, positive, patients, "simplest", seed=1)
    tenfold = choose_calibration(
        np.repeat(logits, 10), np.repeat(positive, 10), [p for p in patients for _ in range(10)], "simplest", seed=1
    )
    assert once.method == tenfold.method == "temperature"
    as_if_independent = choose_calibration(
        np.repeat(logits, 10), np.repeat(positive, 10), [f"p{i}" for i in range(3000)], "simplest", seed=1
    )
    assert as_if_independent.method != "temperature"


@pytest.mark.parametrize(
    ("method", "kind"), [("platt", PlattCalibration), ("temperature", TemperatureCalibration), ("isotonic", IsotonicCalibration)]
)
def test_a_named_method_is_taken_whatever_its_loss(method: str, kind: type) -> None:
    logits, positive, patients = drawn(400, 0.6, -2.0)
    chosen = choose_calibration(logits, positive, patients, method, seed=1)
    assert isinstance(chosen.calibration, kind)


def test_a_memory_of_the_patients_does_not_win() -> None:
    """Each patient's five images share a logit and a label drawn by chance: only folds over patients see that it is chance."""
    random = np.random.default_rng(3)
    logits = np.repeat(random.normal(size=60).astype(np.float32), 5)
    positive = np.repeat(random.random(60) < 0.5, 5)
    losses = choose_calibration(logits, positive, [f"p{i // 5}" for i in range(300)], "best", seed=1).log_losses
    in_sample = log_loss(calibrate(fit_isotonic(logits, positive), logits), positive)
    assert in_sample < np.log(2.0)
    assert losses["isotonic"] > np.log(2.0)


def test_two_positive_images_are_enough() -> None:
    logits, _, patients = drawn(100, 1.0, 0.0)
    positive = np.zeros(100, bool)
    positive[:2] = True
    assert np.isfinite(list(choose_calibration(logits, positive, patients, "best", seed=1).log_losses.values())).all()


def test_one_patient_is_refused_with_the_next_step() -> None:
    logits, positive, _ = drawn(20, 1.0, 0.0)
    with pytest.raises(ConfigError, match="held_out_fraction"):
        choose_calibration(logits, positive, ["p"] * 20, "best", seed=1)
