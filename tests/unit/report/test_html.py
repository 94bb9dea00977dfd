"""What the HTML report shows, without a build: tables, mistakes, figures, and pages of all three tasks."""

from __future__ import annotations

import dataclasses
import html
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import ConfigError

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("jinja2", reason="Jinja2 is not installed")
pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from support.run_folders import DrawnRun, draw_run

from edge_agent.records import Task
from model_build.evaluation.held_out_outputs import read_held_out
from model_build.evaluation.subgroups import measure_subgroups
from model_build.metrics.classification import Scored, roc_auc
from model_build.metrics.curves import RiskCoverage
from model_build.report import curve_figures, score_figures
from model_build.report.figures import gather_evidence, measure_calibration_errors
from model_build.report.html import rewrite_html_report, write_html_report
from model_build.report.tables import class_rows, coverage_rows, distance_from_points
from model_build.report.training_figure import draw_training
from model_build.training.epoch_log import Epoch, read_epochs

PROBABILITIES = np.array([0.95, 0.55, 0.2, 0.02, 0.6, 0.99], np.float32)
POSITIVE = np.array([True, True, True, False, False, False])
PATIENTS = np.arange(6)
SCORED = Scored(PROBABILITIES, POSITIVE, PROBABILITIES >= 0.5, PATIENTS)
# Figures of each task: what every report has, and what only some have.
FIGURES = {"binary": 7, "multiclass": 9, "multilabel": 5}
TASKS: tuple[Task, ...] = ("binary", "multiclass", "multilabel")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DrawnRun]:
    return {task: draw_run(tmp_path_factory.mktemp(task), task, folds=0 if task == "binary" else 3, count=120) for task in TASKS}


@pytest.fixture(scope="module")
def pages(runs: dict[str, DrawnRun]) -> dict[str, str]:
    return {task: page_of(run, with_images=True) for task, run in runs.items()}


def page_of(run: DrawnRun, *, with_images: bool = False) -> str:
    return write_html_report(run.folder, run.report, run.config, run.images if with_images else None).read_text(encoding="utf-8")


def test_class_rows() -> None:
    normal, opacity = class_rows(np.array([[8, 2], [1, 3]]), ["NORMAL", "OPACITY"])
    assert (normal.precision, normal.recall, normal.images) == pytest.approx((8 / 9, 0.8, 10))
    assert (opacity.precision, opacity.recall, opacity.images) == pytest.approx((0.6, 0.75, 4))
    assert opacity.f1 == pytest.approx(2 * 0.6 * 0.75 / 1.35)
    never_called, _ = class_rows(np.array([[0, 5], [0, 5]]), ["NORMAL", "OPACITY"])
    assert np.isnan(never_called.precision)
    assert never_called.recall == 0.0


def test_coverage_rows_count_what_the_model_still_decides() -> None:
    nothing, band, *_ = coverage_rows([SCORED], [0.5], (PROBABILITIES >= 0.4) & (PROBABILITIES <= 0.7))
    assert (nothing.kept, nothing.handed_over, nothing.missed, nothing.false_alarms) == (6, 0, 1, 2)
    assert (nothing.sensitivity, nothing.specificity) == pytest.approx((2 / 3, 1 / 3))
    assert (band.kept, band.handed_over, band.missed, band.false_alarms) == (4, 2, 1, 1)
    assert (band.sensitivity, band.specificity) == pytest.approx((0.5, 0.5))


def test_several_findings_are_as_uncertain_as_the_nearest_one_and_counted_together() -> None:
    certain = Scored(np.full(6, 0.999, np.float32), np.ones(6, np.bool_), np.ones(6, np.bool_), PATIENTS)
    assert distance_from_points([SCORED, certain], [0.5, 0.5]) == pytest.approx(distance_from_points([SCORED], [0.5]))
    nothing = coverage_rows([SCORED, certain], [0.5, 0.5], np.zeros(6, np.bool_))[0]
    assert (nothing.kept, nothing.missed, nothing.false_alarms) == (6, 1, 2)
    assert (nothing.sensitivity, nothing.specificity) == pytest.approx((8 / 9, 1 / 3))


@pytest.mark.parametrize("task", TASKS)
def test_the_page_is_whole_and_names_nobody(runs: dict[str, DrawnRun], pages: dict[str, str], task: Task) -> None:
    mistakes = len(read_held_out(runs[task].folder / "held_out.npz").worst)
    assert mistakes > 0
    text = pages[task]
    assert (text.count("data:image/png"), text.count("data:image/svg+xml")) == (2 * mistakes, FIGURES[task])
    assert "It stays with the data" in text
    check_whole(text)


def test_the_report_starts_without_the_libraries_of_the_training() -> None:
    listing = subprocess.run(
        [sys.executable, "-c", "import model_build.report.html, sys; print(*{name.split('.')[0] for name in sys.modules})"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert {"jinja2", "matplotlib"} <= set(listing)
    assert set(listing) & {"tensorflow", "keras", "sklearn", "scipy"} == set()


def check_whole(text: str) -> None:
    assert "Not a diagnosis" in text
    assert "Not for real films." in text
    assert not re.search(r"<script|http://|https://|<link|\bp\d+_\d", text)
    assert "{{" not in text
    assert len(text) < 5_000_000


def test_without_images_it_may_be_passed_on(runs: dict[str, DrawnRun], pages: dict[str, str]) -> None:
    text = page_of(runs["binary"])
    assert "data:image/png" not in text
    assert "It stays with the data" not in text
    check_whole(text)
    drawn = re.compile(r"data:image/svg[^\"]+")
    assert drawn.findall(text) == drawn.findall(pages["binary"])


@pytest.mark.parametrize("task", TASKS)
def test_every_figure_of_report_json_is_on_the_page(runs: dict[str, DrawnRun], pages: dict[str, str], task: Task) -> None:
    text, measured = html.unescape(re.sub(r"<[^>]+>", "", pages[task])), runs[task].report.measured
    wanted = [*measured.overall.values(), *(entry.threshold_interval for entry in measured.points)]
    for entry in measured.points:
        wanted += [entry.metrics["auc"], entry.baseline_auc, *entry.metrics_cross_fitted.values()][: 4 if task == "multilabel" else None]
        assert all(f"{value:.4f}" in text for value in (entry.float_auc, entry.point.review_low, entry.point.review_high))
    for estimate in wanted:
        assert f"{estimate.value:.4f} ({estimate.low:.4f}" in text
        assert str(estimate) in text or f"{estimate.value:.4f} ({estimate.low:.4f}\N{EN DASH}{estimate.high:.4f})" in text
    assert all(f"{loss:.4f}" in text for chosen in measured.calibrations for loss in chosen.log_losses.values())
    assert "That is an alarm" in text
    assert ("fold\N{NO-BREAK SPACE}3" in text) == (task != "binary")


def test_curves_are_of_the_same_auc_as_the_report(runs: dict[str, DrawnRun]) -> None:
    for run in runs.values():
        evidence = gather_evidence(read_held_out(run.folder / "held_out.npz"), run.report, run.config)
        for scored, entry in zip(evidence.scored, run.report.measured.points, strict=True):
            curve = curve_figures.measure_curves(entry.name, scored, evidence.kept.patients, 1, with_point=True)["roc"]
            assert curve.area == pytest.approx(entry.metrics["auc"].value)
            assert np.all((curve.low <= curve.values + 1e-9) & (curve.values <= curve.high + 1e-9))
            assert curve.point is not None
            assert curve.point[1] == pytest.approx(entry.metrics["sensitivity"].value)
        assert evidence.reviewed.mean() == pytest.approx(run.report.measured.review_share_held_out)
        for known in measure_calibration_errors(evidence):
            assert 0.0 <= known.error.low <= known.error.high <= 1.0


def test_subgroups(runs: dict[str, DrawnRun], pages: dict[str, str]) -> None:
    run = runs["multilabel"]
    kept = read_held_out(run.folder / "held_out.npz")
    evidence = gather_evidence(kept, run.report, run.config)
    everybody, *rows = measure_subgroups(kept, evidence.scored, run.report.measured, run.config)
    assert everybody.auc == run.report.measured.overall["mean_auc"]
    groups = {(row.attribute, row.name): row for row in rows}
    assert {attribute for attribute, _ in groups} == {"view", "sex", "age, years"}
    assert sum(row.images for row in rows if row.attribute == "age, years") == everybody.images == 120
    ap, own = groups["view", "AP"], kept.views == "AP"
    frequent = [column for column in range(3) if kept.targets[:, column].sum() >= 20]
    aucs = [roc_auc(kept.probabilities[own, c], kept.targets[own, c], kept.folds[own]) for c in frequent]
    assert ap.auc is not None
    assert ap.auc.value == pytest.approx(np.nanmean(aucs))
    assert ap.auc.low < ap.auc.value < ap.auc.high
    assert ap.sensitivity is not None
    assert ap.sensitivity.value == pytest.approx(kept.cross_predicted[own].any(axis=1)[kept.targets[own].any(axis=1)].mean())
    oldest = groups["age, years", "80 and over"]
    assert (oldest.images < 20, oldest.auc, oldest.reason) == (True, None, "fewer than 20 images")
    assert "fewer than 20 images" in pages["multilabel"]
    single = runs["binary"]
    kept = read_held_out(single.folder / "held_out.npz")
    evidence = gather_evidence(kept, single.report, single.config)
    everybody = measure_subgroups(kept, evidence.scored, single.report.measured, single.config)[0]
    point = single.report.measured.points[0]
    assert (everybody.auc, everybody.sensitivity) == (point.metrics["auc"], point.metrics_cross_fitted["sensitivity"])


def test_a_folder_that_is_no_run_is_named(runs: dict[str, DrawnRun], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"report\.json: missing; name the run folder"):
        rewrite_html_report(tmp_path, None)
    run = draw_run(tmp_path, "binary", count=90)
    (tmp_path / "epochs.jsonl").write_text("no epoch\n")
    with pytest.raises(ConfigError, match=r"epochs\.jsonl: is not what a build wrote"):
        rewrite_html_report(tmp_path, None)
    (tmp_path / "epochs.jsonl").unlink()
    assert "Nothing was fine-tuned" in rewrite_html_report(tmp_path, None).read_text(encoding="utf-8")
    with pytest.raises(ConfigError, match="was built from other images"):
        write_html_report(tmp_path, run.report, run.config, dataclasses.replace(runs["binary"].images, fingerprint="0" * 64))
    (tmp_path / "held_out.npz").write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"held_out\.npz: is not what a build wrote"):
        rewrite_html_report(tmp_path, None)


def test_figures_are_svg_and_the_same_each_time(runs: dict[str, DrawnRun]) -> None:
    never = Scored(PROBABILITIES, POSITIVE, np.zeros(6, np.bool_), PATIENTS)
    curves = curve_figures.measure_curves("OPACITY", never, PATIENTS, 1, with_point=True)
    shown = score_figures.Calibrated("OPACITY", PROBABILITIES, POSITIVE, 0.1)
    risk = RiskCoverage(distance_from_points([SCORED], [0.5]), SCORED.predicted != SCORED.positive)
    drawn = [
        *(curve_figures.draw_curves([curve]) for curve in curves.values()),
        curve_figures.draw_curve_panels([curves["roc"]] * 7),
        score_figures.draw_confusion(np.array([[8, 2], [1, 3]]), ["NORMAL", "OPACITY"]),
        score_figures.draw_reliability(shown),
        score_figures.draw_reliability_panels([shown, shown]),
        score_figures.draw_risk_coverage(risk, PATIENTS, 0.9, "wrong labels", 1),
        score_figures.draw_scores(PROBABILITIES, POSITIVE, ("NORMAL", "OPACITY"), 0.5, (0.4, 0.7)),
        *(draw_training(read_epochs(run.folder / "epochs.jsonl")) for run in runs.values()),
        draw_training([Epoch("finish", 1, 0.7, 1.0)]),
        draw_training([Epoch("measure", 1, 0.7, 1.0)]),
    ]
    for content in drawn:
        assert ElementTree.fromstring(content).tag.endswith("svg")  # noqa: S314  our own figures
        assert b"<image" not in content
    assert draw_training([Epoch("measure", 1, 0.7, 1.0)]) == drawn[-1]
