"""Number formats and pruning: what the files hold, how they run, what is concluded from the figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.ablations import SIDE, build_config, cohort_of, image_set, striped_images

from edge_agent.errors import ConfigError, ModelContractError

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

import keras

from model_build.config import TrainConfig, TrunkConfig
from model_build.data.cohort import split_cohort
from model_build.metrics.bootstrap import Estimate
from model_build.studies.precision import ablation
from model_build.studies.precision.result import answer_head_fit
from model_build.studies.variants import Embeddings, agreement, fit_and_choose
from model_build.training.number_formats import (
    PRECISIONS,
    Converted,
    FloatInterpreter,
    Latencies,
    convert,
    embed,
    measure_latencies_ms,
    read_kernels,
)
from model_build.training.pruning import MagnitudePruning, cubic_share, prune_and_fine_tune, zero_share
from model_build.training.train import Step
from model_build.training.trunk.trunk import build_network, save_trunk

TRUNK = TrunkConfig(block_count=2)


@pytest.fixture(scope="module")
def trunk() -> Iterator[object]:
    keras.utils.set_random_seed(1)
    yield build_network(TRUNK, SIDE, SIDE)


@pytest.fixture(scope="module")
def models(trunk: object) -> dict[str, Converted]:
    representative = striped_images(np.eye(2, dtype=np.bool_)[np.arange(8) % 2])
    return {precision: convert(trunk, precision, representative) for precision in PRECISIONS}


def test_formats_differ_in_what_their_kernels_hold(models: dict[str, Converted]) -> None:
    kernels = {name: read_kernels(model.model) for name, model in models.items()}
    assert len({found.value_count for found in kernels.values()}) == 1
    assert kernels["float32"].most_scales == kernels["float16"].most_scales == 0
    assert kernels["int8 per tensor"].most_scales == 1
    assert kernels["int8 per channel"].most_scales > 1
    sizes = {name: len(model.model) for name, model in models.items()}
    assert sizes["int8 per tensor"] < sizes["int8 per channel"] < sizes["float16"] < sizes["float32"]
    assert all(model.zipped_bytes() < len(model.model) for model in models.values())


def test_every_format_gives_nearly_the_embedding_of_the_trunk(trunk: object, models: dict[str, Converted]) -> None:
    pixels = striped_images(np.eye(2, dtype=np.bool_)[np.arange(6) % 2])
    chosen = np.array([1, 2, 5])
    expected = np.asarray(trunk(pixels[chosen].astype(np.float32) / 127.5, training=False)[0])  # type: ignore[operator]
    tolerance = {"float32": 1e-4, "float16": 5e-3}
    for name, model in models.items():
        worst = np.abs(embed(model, pixels, chosen) - expected).max() / np.abs(expected).max()
        assert worst < tolerance.get(name, 0.25), name


def test_an_int8_model_is_refused_as_a_float_one(models: dict[str, Converted]) -> None:
    with pytest.raises(ModelContractError, match="float32"):
        FloatInterpreter(models["int8 per channel"].model)


def test_latencies_come_by_round_and_compare_by_the_shortest(models: dict[str, Converted]) -> None:
    grey = striped_images(np.eye(2, dtype=np.bool_))[0]
    latencies = measure_latencies_ms({name: models[name] for name in ("float32", "int8 per channel")}, grey, rounds=3)
    for found in latencies.values():
        assert found.medians.shape == found.shortest.shape == (3,)
        assert (found.shortest > 0).all()
        assert (found.shortest <= found.medians).all()
    busy = Latencies(medians=np.array([9.0, 30.0, 8.0]), shortest=np.array([2.0, 4.0, 2.0]))
    assert busy.ratio_to(Latencies(medians=np.array([4.0, 9.0, 4.0]), shortest=np.array([4.0, 8.0, 4.0]))) == 0.5


def test_the_share_of_zeros_rises_fast_at_first() -> None:
    shares = [cubic_share(0.75, progress) for progress in (0.0, 0.25, 0.5, 1.0, 2.0)]
    assert shares == pytest.approx([0.0, 0.75 * (1 - 0.75**3), 0.75 * (1 - 0.5**3), 0.75, 0.75])


def test_pruning_takes_the_smallest_weights_and_leaves_depthwise_kernels_whole() -> None:
    keras.utils.set_random_seed(2)
    trunk = build_network(TRUNK, SIDE, SIDE)
    pointwise = [layer for layer in trunk.layers if type(layer) is keras.layers.Conv2D and layer.kernel_size == (1, 1)]
    depthwise = [layer for layer in trunk.layers if isinstance(layer, keras.layers.DepthwiseConv2D)]
    before = [np.abs(layer.get_weights()[0]) for layer in pointwise]
    depthwise_before = [layer.get_weights()[0].copy() for layer in depthwise]
    pruning = MagnitudePruning(trunk, 0.6)
    pruning.choose(1.0)
    pruning.apply()
    assert 0.6 <= zero_share(trunk) < 0.61
    for sizes, layer in zip(before, pointwise, strict=True):
        gone = layer.get_weights()[0] == 0
        assert sizes[gone].max() <= sizes[~gone].min()
    assert all(np.array_equal(layer.get_weights()[0], kernel) for layer, kernel in zip(depthwise, depthwise_before, strict=True))


def test_more_than_the_pointwise_weights_cannot_be_pruned() -> None:
    with pytest.raises(ConfigError, match="too few"):
        MagnitudePruning(build_network(TRUNK, SIDE, SIDE), 0.99)


def test_fine_tuning_ends_with_the_share_of_zeros_also_in_the_int8_file() -> None:
    keras.utils.set_random_seed(3)
    trunk = build_network(TRUNK, SIDE, SIDE)
    targets = np.eye(2, dtype=np.bool_)[np.arange(24) % 2]
    pixels = striped_images(targets)
    shares: list[float] = []

    def on_step(step: Step) -> None:
        shares.append(zero_share(trunk))

    prune_and_fine_tune(
        trunk, 0.5, pixels, targets, np.arange(24), TrainConfig(batch_size=8), epochs=2, seed=1, multilabel=False, on_step=on_step
    )
    assert shares == sorted(shares)
    assert shares[-1] >= 0.5
    assert zero_share(trunk) >= 0.5
    assert read_kernels(convert(trunk, "int8 per channel", pixels[:8]).model).zero_share >= 0.5


@pytest.mark.parametrize(
    ("task", "labels", "positive"),
    [("binary", ["no", "yes"], ["yes"]), ("multiclass", ["a", "b", "c"], ["b", "c"]), ("multilabel", ["x", "y"], ["x", "y"])],
)
def test_every_task_is_judged(task: str, labels: list[str], positive: list[str]) -> None:
    random = np.random.default_rng(4)
    targets = np.eye(len(labels), dtype=np.bool_)[np.arange(120) % len(labels)]
    if task == "multilabel":
        targets = random.random((120, 2)) < 0.4
    cohort = cohort_of(task, targets, labels, positive)
    noise = random.normal(size=(120, 5)).astype(np.float32)
    telling = noise.copy()
    telling[:, : len(labels)] += 4 * targets
    good, _ = fit_and_choose(telling[:60], telling[60:], cohort)
    bad, _ = fit_and_choose(noise[:60], noise[60:], cohort)
    everybody = np.arange(60)
    assert good.auc(everybody) > 0.95
    assert 0.3 < bad.auc(everybody) < 0.7
    assert good.figure("balanced_accuracy")(everybody) > 0.85
    assert agreement(good, good) == 1.0
    assert agreement(good, bad) < 0.9


def test_heads_fitted_on_other_embeddings_than_they_are_used_on_lose() -> None:
    random = np.random.default_rng(5)
    targets = np.eye(2, dtype=np.bool_)[np.arange(200) % 2]
    cohort = cohort_of("binary", targets, ["no", "yes"], ["yes"])
    int8 = random.normal(size=(200, 4)).astype(np.float32)
    int8[:, 0] += 2.5 * targets[:, 1]
    other = int8[:100, ::-1].copy()  # the telling channel stands elsewhere
    fit = ablation.compare_head_fits(other, Embeddings(int8[:100], int8[100:]), cohort)
    assert fit.difference["auc"].low > 0.1
    assert "wins" in answer_head_fit(fit)
    same = ablation.compare_head_fits(int8[:100], Embeddings(int8[:100], int8[100:]), cohort)
    assert same.difference["auc"] == Estimate(0.0, 0.0, 0.0)
    assert "no measurable difference" in answer_head_fit(same)


@pytest.mark.slow
def test_a_whole_ablation_has_every_variant(tmp_path: Path) -> None:
    images = image_set(np.eye(2, dtype=np.bool_)[(np.arange(80) // 2) % 2])
    cohort = split_cohort(images, build_config("binary", ["no", "yes"], ["yes"]))
    keras.utils.set_random_seed(6)
    save_trunk(build_network(TRUNK, SIDE, SIDE), tmp_path / "measured-trunk.npz")
    found = ablation.measure_precision(tmp_path, images, cohort, tmp_path, epochs=1)
    assert [v.name for v in found.variants] == [*PRECISIONS, "int8 fine-tuned", "int8 pruned 50 %", "int8 pruned 75 %"]
    by_name = {v.name: v for v in found.variants}
    assert by_name["float32"].auc_difference.value == 0.0
    assert by_name["float32"].agreement == by_name["float32"].latency_ratio == 1.0
    assert by_name["int8 pruned 50 %"].zero_share >= 0.5
    assert by_name["int8 pruned 75 %"].zero_share >= 0.75
    assert by_name["int8 pruned 75 %"].zipped_bytes < by_name["int8 pruned 50 %"].zipped_bytes < by_name["int8 fine-tuned"].zipped_bytes
    assert (tmp_path / "int8-pruned-75.tflite").stat().st_size == by_name["int8 pruned 75 %"].file_bytes


def test_pruned_weights_are_kept_until_something_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = image_set(np.eye(2, dtype=np.bool_)[np.arange(16) % 2])
    config = build_config("binary", ["no", "yes"], ["yes"])
    path = tmp_path / "measured-trunk.npz"
    save_trunk(build_network(TRUNK, SIDE, SIDE), path)
    asked: list[tuple[float, int]] = []

    def zero_at_once(trunk: object, share: float, *_: object, epochs: int, **__: object) -> None:
        asked.append((share, epochs))
        pruning = MagnitudePruning(trunk, share)
        pruning.choose(1.0)
        pruning.apply()

    monkeypatch.setattr(ablation, "prune_and_fine_tune", zero_at_once)
    trained = ablation.TrainedTrunk(path, cohort_of("binary", images.targets, ["no", "yes"], ["yes"]), images)
    for epochs in (1, 1, 2):
        assert zero_share(ablation.prune(trained, 0.5, epochs, tmp_path, lambda step: None)) >= 0.5
    assert asked == [(0.5, 1), (0.5, 2)]
    save_trunk(build_network(TRUNK, SIDE, SIDE), path)
    assert trained.config == config
    ablation.prune(trained, 0.5, 1, tmp_path, lambda step: None)
    assert len(asked) == 2, "the same weights again"


def test_a_run_without_a_trunk_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"measured-trunk\.npz: missing"):
        ablation.trunk_path(tmp_path, build_config("binary", ["no", "yes"], ["yes"]))
