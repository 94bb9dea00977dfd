"""Few labels: the CNN stays as it is, only the head is fitted, and the curve is measured on the same held-out patients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from support.films import save_film

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from edge_agent.errors import ConfigError
from model_build.config import BuildConfig, load_build_config, parse_build_config
from model_build.data.images import ImageSet, read_images
from model_build.studies.label_efficiency.curve import make_label_split, measure_label_efficiency
from model_build.studies.label_efficiency.result import describe_label_efficiency
from model_build.tables import render_markdown

pytestmark = pytest.mark.timeout(1800)  # whole builds, on a machine that may have much else to do


@pytest.fixture(scope="module")
def config(repository: Path) -> BuildConfig:
    """The shipped config, made small: its labels and patient names stay."""
    shipped = load_build_config(repository / "model_build" / "configs" / "few-labels.toml")
    small = msgspec.structs.replace(shipped.input, rows=64, columns=64)
    return msgspec.structs.replace(shipped, input=small, trunk=msgspec.structs.replace(shipped.trunk, block_count=5))


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("films")
    for label, pattern, opacity_count in (("NORMAL", "IM-{0:04d}-{0:04d}.png", 0), ("PNEUMONIA", "person{0}_virus_{0}.png", 3)):
        (root / label).mkdir()
        for number in range(36):
            save_film(root / label / pattern.format(number), number + 100 * opacity_count, side=80, opacity_count=opacity_count)
    return root


def test_the_shipped_config_freezes_the_cnn(config: BuildConfig) -> None:
    assert config.train.labels_per_class == 100
    assert config.train.is_frozen
    assert config.train.self_training
    for count in (0, config.train.fine_tune_from):
        assert not msgspec.structs.replace(config.train, labels_per_class=count, self_training=False).is_frozen


def test_a_build_of_few_labels_trains_on_just_these(config: BuildConfig, films: Path, tmp_path: Path) -> None:
    from model_build.build import Build
    from model_build.run_folder import prepare_out

    class Silent:
        def stage(self, name: str, total: int) -> None:
            assert not name.startswith("training"), "the CNN must stay as it is"

        def advance(self, done: int, note: str) -> None:
            pass

    few = msgspec.structs.replace(config, train=msgspec.structs.replace(config.train, labels_per_class=10))
    prepare_out(tmp_path, "", resume=False, warn=print)
    report, bundle = Build(few, films, tmp_path, Silent()).run(resume=False)
    assert report.measured.training.per_label == {"NORMAL": 10, "PNEUMONIA": 10}
    assert report.shipped == report.measured.training
    assert report.shipped_finish_epochs == 0
    assert report.shipped_agreement_with_measured == 1.0
    assert bundle.manifest.training["shipped_model"]["images"] == 20
    assert "never trained on" in (tmp_path / "report.md").read_text()


def test_self_training_reads_no_label_of_the_other_images(config: BuildConfig) -> None:
    from model_build.heads.self_training import fit_self_trained_heads

    random = np.random.default_rng(0)
    truth = random.random(400) < 0.5
    embeddings = (random.normal(size=(400, 12)) + truth[:, np.newaxis] * 0.8).astype(np.float32)
    targets, labelled = np.stack([~truth, truth], axis=1), np.zeros(400, np.bool_)
    labelled[:16] = True
    unlabelled = np.zeros(400, np.bool_)
    unlabelled[16:300] = True
    heads = fit_self_trained_heads(embeddings, targets, labelled, unlabelled, config)
    wrong = targets.copy()
    wrong[16:] = ~wrong[16:]
    assert heads == fit_self_trained_heads(embeddings, wrong, labelled, unlabelled, config)
    # What is neither labelled nor allowed has no part in it.
    other = embeddings.copy()
    other[300:] = 1000.0
    assert heads == fit_self_trained_heads(other, targets, labelled, unlabelled, config)


def test_self_training_learns_from_the_other_images(config: BuildConfig) -> None:
    from model_build.heads.fit import head_logits
    from model_build.heads.self_training import fit_self_trained_heads
    from model_build.metrics.classification import roc_auc

    gains = []
    for seed in range(8):
        random = np.random.default_rng(seed)
        truth = random.random(900) < 0.5
        embeddings = (random.normal(size=(900, 20)) + truth[:, np.newaxis] * 0.7).astype(np.float32)
        targets, labelled, unlabelled = np.stack([~truth, truth], axis=1), np.zeros(900, np.bool_), np.zeros(900, np.bool_)
        labelled[np.flatnonzero(truth)[:6]] = labelled[np.flatnonzero(~truth)[:6]] = True
        unlabelled[:600] = ~labelled[:600]
        alone, helped = (
            fit_self_trained_heads(embeddings, targets, labelled, others, config) for others in (np.zeros(900, np.bool_), unlabelled)
        )
        better, worse = (roc_auc(head_logits(heads, embeddings[600:])[:, 0], truth[600:]) for heads in (helped, alone))
        gains.append(better - worse)
    assert np.mean(gains) > 0.005, gains


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("labels_per_class = 100", "labels_per_class = 250"), "self_training needs labels_per_class"),
        (('kind = "logistic_regression"\ninverse_regularization = 0.1', 'kind = "random_forest"'), "'random_forest'"),
    ],
)
def test_self_training_is_refused_where_it_cannot_be_done(repository: Path, change: tuple[str, str], message: str) -> None:
    text = (repository / "model_build" / "configs" / "few-labels.toml").read_text()
    assert change[0] in text
    with pytest.raises(ConfigError, match=message):
        parse_build_config(text.replace(*change), "few.toml")


def test_the_curve_is_measured_as_far_as_the_labels_reach(config: BuildConfig, films: Path) -> None:
    measured = measure_label_efficiency(config, read_images(films, config.source, config.input, task=config.task))
    assert [point.labels_per_class for point in measured.points] == [10, 25]
    assert (measured.labels, measured.held_out_images, measured.held_out_patients) == (["PNEUMONIA"], 14, 14)
    for point in measured.points:
        assert 0.5 < point.embedding_auc <= 1.0
        assert point.lead == pytest.approx(point.embedding_auc - point.raw_pixel_auc)


@pytest.fixture(scope="module")
def three_classes(config: BuildConfig, films: Path) -> tuple[BuildConfig, ImageSet]:
    """Classes by the films' patients, so that every image stays where it is."""
    images = read_images(films, config.source, config.input, task=config.task)
    strata = np.where(images.targets[:, 0], 0, 1 + np.arange(len(images.files)) % 2)
    source = msgspec.structs.replace(config.source, labels=["a", "b", "c"], positive=["b", "c"])
    files = [replace(entry, labels=(int(stratum),)) for entry, stratum in zip(images.files, strata, strict=True)]
    few = msgspec.structs.replace(config, task="multiclass", source=source)
    return few, replace(images, targets=np.eye(3, dtype=np.bool_)[strata], strata=strata.astype(np.int64), files=files)


def test_a_curve_of_three_classes_is_the_mean_over_them(three_classes: tuple[BuildConfig, ImageSet]) -> None:
    config, images = three_classes
    measured = measure_label_efficiency(config, images)
    assert measured.labels == ["a", "b", "c"]
    assert [point.labels_per_class for point in measured.points] == [10]
    assert "mean AUC of 3 labels" in render_markdown(describe_label_efficiency(measured))


def test_a_curve_of_findings_takes_all_of_a_rare_one(three_classes: tuple[BuildConfig, ImageSet]) -> None:
    config, images = three_classes
    train = msgspec.structs.replace(config.train, self_training=False)
    findings = msgspec.structs.replace(
        config, task="multilabel", train=train, source=msgspec.structs.replace(config.source, positive=["a", "b", "c"])
    )
    split = make_label_split(findings, images)
    assert split.sizes() == [10, 25]
    drawn = split.draw(25, 0)
    assert images.targets[drawn].sum(axis=0).tolist() == [25, 14, 14]
    assert not (drawn & split.held_out).any()


def test_too_few_images_for_a_curve_are_refused_by_name(config: BuildConfig, films: Path) -> None:
    images = read_images(films, config.source, config.input, task=config.task)
    kept = np.flatnonzero((images.strata == 0) | (np.cumsum(images.strata) <= 8))
    few = replace(
        images, pixels=images.pixels[kept], targets=images.targets[kept], strata=images.strata[kept], files=[images.files[i] for i in kept]
    )
    with pytest.raises(ConfigError, match="have 6 images of 'PNEUMONIA'"):
        make_label_split(config, few)
