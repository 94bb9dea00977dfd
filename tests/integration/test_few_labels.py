"""Few labels: the CNN stays as it is, only the head is fitted, and the curve is measured on the same held-out patients."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from model_build.config import BuildConfig, load_build_config
from model_build.data.images import read_images
from model_build.data.phantom import save_phantom
from model_build.label_efficiency import Point, draw_curve, measure_label_efficiency, render_table, write_label_efficiency


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
            save_phantom(
                root / label / pattern.format(number), number + 100 * opacity_count, rows=80, columns=80, opacity_count=opacity_count
            )
    return root


def test_the_shipped_config_freezes_the_cnn(config: BuildConfig) -> None:
    assert config.train.labels_per_class == 100
    assert config.train.is_frozen
    assert not msgspec.structs.replace(config.train, labels_per_class=0).is_frozen
    assert not msgspec.structs.replace(config.train, labels_per_class=config.train.fine_tune_from).is_frozen


def test_a_build_of_few_labels_trains_on_just_these(config: BuildConfig, films: Path, tmp_path: Path) -> None:
    from model_build.build import Build, prepare_out

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


def test_the_curve_is_measured_as_far_as_the_labels_reach(config: BuildConfig, films: Path) -> None:
    points = measure_label_efficiency(config, read_images(films, config.source, config.input, task=config.task))
    assert [point.labels_per_class for point in points] == [10, 25]
    for point in points:
        assert 0.5 < point.embedding_auc <= 1.0
        assert 0.0 <= point.raw_pixel_auc <= 1.0


def test_table_and_figure_hold_the_points(tmp_path: Path) -> None:
    points = [Point(10, 0.9, 0.02, 0.8, 0.03), Point(100, 0.95, 0.01, 0.85, 0.02)]
    assert "| 100 | 0.950 ± 0.010 | 0.850 ± 0.020 |" in render_table(points)
    assert draw_curve(points).startswith(b"\x89PNG")
    write_label_efficiency(points, tmp_path / "new")
    assert json.loads((tmp_path / "new" / "label-efficiency.json").read_text())[1]["labels_per_class"] == 100
    assert (tmp_path / "new" / "label-efficiency.png").stat().st_size > 5000
