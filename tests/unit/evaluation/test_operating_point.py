"""The operating point does what its rule says, the review band holds what was asked for, and wrong settings are refused by name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from edge_agent.errors import ConfigError
from model_build.config import DecisionConfig
from model_build.evaluation.operating_point import choose_operating_point, threshold_interval

LABELS = ["SICK"]


def images() -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """Scores with ties and with exact 0 and 1, and truths of both kinds."""
    score = st.floats(0, 1, width=32) | st.sampled_from([0.0, 0.25, 0.5, 1.0])
    pairs = st.lists(st.tuples(score, st.booleans()), min_size=2, max_size=60).filter(lambda found: len({truth for _, truth in found}) == 2)
    return pairs.map(lambda found: (np.array([s for s, _ in found], np.float32), np.array([truth for _, truth in found])))


def rates(scores: np.ndarray, positive: np.ndarray, threshold: float) -> tuple[float, float]:
    scores = scores.astype(np.float64)  # as the device compares: a threshold between two float32 neighbours is none of them
    return float((scores[positive] >= threshold).mean()), float((scores[~positive] < threshold).mean())


def every_threshold(scores: np.ndarray) -> list[float]:
    """One threshold on each score: with 1.5, all that make a difference."""
    return [*np.unique(scores).astype(np.float64).tolist(), 1.5]


def overlapping(count: int = 1000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    positive = random.random(count) < 0.4
    return (1.0 / (1.0 + np.exp(-random.normal(size=count) - 2.0 * positive + 1.0))).astype(np.float32), positive


@settings(deadline=None)
@given(found=images(), target=st.sampled_from([0.05, 0.5, 0.9, 0.97, 0.999]))
def test_the_target_sensitivity_is_reached_and_by_no_higher_threshold(found: tuple[np.ndarray, np.ndarray], target: float) -> None:
    scores, positive = found
    point = choose_operating_point(scores, positive, LABELS, DecisionConfig(target_sensitivity=target))
    reached, specificity = rates(scores, positive, point.threshold)
    assert reached >= target - 1e-9
    for other in every_threshold(scores):
        sensitivity, better = rates(scores, positive, other)
        assert sensitivity < target - 1e-9 or better <= specificity


@settings(deadline=None)
@given(found=images(), target=st.sampled_from([0.05, 0.5, 0.9, 0.97, 0.999]))
def test_the_target_specificity_is_reached_and_by_no_lower_threshold(found: tuple[np.ndarray, np.ndarray], target: float) -> None:
    scores, positive = found
    config = DecisionConfig(rule="target_specificity", target_specificity=target)
    if (scores[~positive] == 1.0).mean() > 1.0 - target + 1e-9:
        with pytest.raises(ConfigError, match="target_specificity"):
            choose_operating_point(scores, positive, LABELS, config)
        return
    point = choose_operating_point(scores, positive, LABELS, config)
    sensitivity, reached = rates(scores, positive, point.threshold)
    assert reached >= target - 1e-9
    for other in every_threshold(scores):
        better, specificity = rates(scores, positive, other)
        assert specificity < target - 1e-9 or better <= sensitivity


@settings(deadline=None)
@given(found=images())
@example(found=(np.array([0.0, 1e-45], np.float32), np.array([False, True])))  # nothing of float32 lies between the two
def test_youden_finds_no_better_sum_anywhere(found: tuple[np.ndarray, np.ndarray]) -> None:
    scores, positive = found
    point = choose_operating_point(scores, positive, LABELS, DecisionConfig(rule="youden"))
    best = max(sum(rates(scores, positive, other)) for other in every_threshold(scores))
    assert sum(rates(scores, positive, point.threshold)) == pytest.approx(best)


@settings(deadline=None)
@given(found=images(), missed=st.floats(0.1, 20), alarm=st.floats(0.1, 20), prevalence=st.none() | st.floats(0.01, 0.99))
def test_no_threshold_costs_less(found: tuple[np.ndarray, np.ndarray], missed: float, alarm: float, prevalence: float | None) -> None:
    scores, positive = found
    assume(scores.max() < 1.0)  # else nothing can be said to be negative altogether
    config = DecisionConfig(rule="cost", cost_missed=missed, cost_false_alarm=alarm, prevalence=prevalence)
    share = float(positive.mean()) if prevalence is None else prevalence

    def cost(threshold: float) -> float:
        sensitivity, specificity = rates(scores, positive, threshold)
        return missed * share * (1.0 - sensitivity) + alarm * (1.0 - share) * (1.0 - specificity)

    chosen = cost(choose_operating_point(scores, positive, LABELS, config).threshold)
    assert chosen <= min(cost(other) for other in every_threshold(scores)) + 1e-8


@settings(deadline=None)
@given(found=images(), target=st.sampled_from([0.1, 0.9, 0.97]), share=st.floats(0, 0.49))
def test_no_score_lies_on_the_threshold_and_the_band_holds_it(found: tuple[np.ndarray, np.ndarray], target: float, share: float) -> None:
    scores, positive = found
    point = choose_operating_point(scores, positive, LABELS, DecisionConfig(target_sensitivity=target, review_fraction=share))
    assert 0.0 <= point.review_low <= point.threshold <= point.review_high <= 1.0
    assert point.threshold not in scores.astype(np.float64) or point.threshold == 0.0


@settings(deadline=None)
@given(seed=st.integers(0, 50), count=st.integers(2, 300), share=st.floats(0, 0.49))
def test_the_band_holds_the_stated_share(seed: int, count: int, share: float) -> None:
    scores, positive = overlapping(count, seed)
    assume(0 < positive.sum() < count and len(np.unique(scores)) == count)
    point = choose_operating_point(scores, positive, LABELS, DecisionConfig(review_fraction=share))
    in_band = int(((scores >= point.review_low) & (scores <= point.review_high)).sum())
    # The two scores next to the threshold are equally far from it: the band takes both or none.
    assert in_band - round(share * count) in ((0,) if round(share * count) != 1 else (0, 1))


@settings(deadline=None)
@given(seed=st.integers(0, 50), target=st.sampled_from([0.05, 0.08, 0.1]))
def test_the_band_is_the_smallest_that_leaves_the_target_error(seed: int, target: float) -> None:
    scores, positive = overlapping(400, seed)
    config = DecisionConfig(rule="youden", review_target_error=target)
    point = choose_operating_point(scores, positive, LABELS, config)
    decided = (scores < point.review_low) | (scores > point.review_high)
    wrong = (scores.astype(np.float64) >= point.threshold) != positive
    assert decided.mean() >= 0.5
    assume("not reached" not in point.target)
    assert wrong[decided].mean() <= target
    in_band = int((~decided).sum())
    for fewer in range(in_band):
        narrower = choose_operating_point(scores, positive, LABELS, DecisionConfig(rule="youden", review_fraction=fewer / 400))
        rest = (scores < narrower.review_low) | (scores > narrower.review_high)
        assert wrong[rest].mean() > target


def test_an_error_target_out_of_reach_gives_the_best_band_and_is_said() -> None:
    random = np.random.default_rng(0)
    scores, positive = random.random(200).astype(np.float32), random.random(200) < 0.5
    point = choose_operating_point(scores, positive, LABELS, DecisionConfig(rule="youden", review_target_error=0.01))
    assert "not reached by sending half of the images to review" in point.target
    assert ((scores >= point.review_low) & (scores <= point.review_high)).mean() <= 0.5


def test_no_band_where_none_is_asked_for() -> None:
    scores, positive = overlapping()
    point = choose_operating_point(scores, positive, LABELS, DecisionConfig(review_fraction=0.0))
    assert not ((scores >= point.review_low) & (scores <= point.review_high)).any()


def test_the_threshold_stands_midway_in_log_odds() -> None:
    scores = np.array([0.1, 0.2, 0.8, 0.9], np.float32)
    point = choose_operating_point(scores, scores > 0.5, LABELS, DecisionConfig())
    assert point.threshold == pytest.approx(0.5)
    assert point.labels == LABELS
    assert point.target == "held-out sensitivity of 0.97"


def test_a_higher_cost_of_missing_lowers_the_threshold() -> None:
    scores, positive = overlapping()
    low, high = (
        choose_operating_point(scores, positive, LABELS, DecisionConfig(rule="cost", cost_missed=missed, cost_false_alarm=1.0)).threshold
        for missed in (10.0, 1.0)
    )
    assert low < high


@pytest.mark.parametrize(("positive", "said"), [(np.zeros(5, bool), "no held-out image"), (np.ones(5, bool), "every held-out image")])
def test_one_side_missing_is_refused(positive: np.ndarray, said: str) -> None:
    scores = np.linspace(0.1, 0.9, 5, dtype=np.float32)
    with pytest.raises(ConfigError, match=f"{said} is SICK or ILL.*held_out_fraction"):
        choose_operating_point(scores, positive, ["SICK", "ILL"], DecisionConfig())
    with pytest.raises(ConfigError, match=said):
        threshold_interval(scores, positive, list("abcde"), DecisionConfig(), seed=1)


def test_the_interval_holds_the_threshold_and_narrows_with_more_patients() -> None:
    widths = []
    for count in (200, 5000):
        scores, positive = overlapping(count)
        found = threshold_interval(scores, positive, [f"p{i // 2}" for i in range(count)], DecisionConfig(rule="youden"), seed=1)
        point = choose_operating_point(scores, positive, LABELS, DecisionConfig(rule="youden"))
        assert found.low <= found.value == point.threshold <= found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0]


def test_one_positive_patient_gives_an_interval_from_the_draws_that_have_it() -> None:
    scores, positive = np.linspace(0.1, 0.9, 9, dtype=np.float32), np.arange(9) == 6
    found = threshold_interval(scores, positive, list("abcdefghi"), DecisionConfig(), seed=1)
    assert found.value == pytest.approx(0.65, abs=0.01)
    assert found.low <= found.value <= found.high


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ({"rule": "youden", "target_sensitivity": 0.9}, "target_sensitivity"),
        ({"target_specificity": 0.9}, "target_specificity"),
        ({"rule": "target_specificity", "prevalence": 0.1}, "prevalence"),
        ({"rule": "cost", "cost_missed": 5.0}, "cost_false_alarm"),
        ({"review_fraction": 0.1, "review_target_error": 0.01}, "review_target_error"),
    ],
)
def test_a_key_that_the_rule_does_not_read_is_refused_by_name(said: dict[str, object], names: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=names):
        msgspec.convert(said, DecisionConfig)


def test_what_was_not_said_is_filled_in_and_can_be_read_again() -> None:
    for said in ({}, {"rule": "target_specificity"}, {"rule": "youden", "review_target_error": 0.02}):
        config = msgspec.convert(said, DecisionConfig)
        assert msgspec.convert(msgspec.to_builtins(config), DecisionConfig) == config
    assert DecisionConfig().target_sensitivity == 0.97
    assert DecisionConfig().review_fraction == 0.05


def test_the_shipped_configs_still_read() -> None:
    from model_build.config import load_build_config

    for path in sorted((Path(__file__).parents[3] / "model_build" / "configs").glob("*.toml")):
        assert load_build_config(path).decision.novelty_quantile > 0.9
