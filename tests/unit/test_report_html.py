"""What the HTML report shows, without a build: tables, mistakes, figures."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from edge_agent.errors import ConfigError

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("jinja2", reason="Jinja2 is not installed")

from model_build import figures
from model_build.held_out import keep_held_out, read_held_out, worst_mistakes
from model_build.report_html import class_rows, coverage_rows, rewrite_html_report

PROBABILITIES = np.array([0.95, 0.55, 0.2, 0.02, 0.6, 0.99], np.float32)
POSITIVE = np.array([True, True, True, False, False, False])


def test_class_rows() -> None:
    normal, opacity = class_rows(np.array([[8, 2], [1, 3]]), ["NORMAL", "OPACITY"])
    assert (normal.precision, normal.recall, normal.images) == pytest.approx((8 / 9, 0.8, 10))
    assert (opacity.precision, opacity.recall, opacity.images) == pytest.approx((0.6, 0.75, 4))
    assert opacity.f1 == pytest.approx(2 * 0.6 * 0.75 / 1.35)
    never_called, _ = class_rows(np.array([[0, 5], [0, 5]]), ["NORMAL", "OPACITY"])
    assert np.isnan(never_called.precision)
    assert never_called.recall == 0.0


def test_coverage_rows_count_what_the_model_still_decides() -> None:
    nothing, band, *_ = coverage_rows(PROBABILITIES, POSITIVE, 0.5, (0.4, 0.7))
    assert (nothing.kept, nothing.handed_over, nothing.missed, nothing.false_alarms) == (6, 0, 1, 2)
    assert (nothing.sensitivity, nothing.specificity) == pytest.approx((2 / 3, 1 / 3))
    assert (band.kept, band.handed_over, band.missed, band.false_alarms) == (4, 2, 1, 1)
    assert (band.sensitivity, band.specificity) == pytest.approx((0.5, 0.5))


def test_worst_mistakes_are_the_most_certain_ones() -> None:
    assert worst_mistakes(PROBABILITIES, POSITIVE, 0.5).tolist() == [2, 5, 4]
    assert len(worst_mistakes(np.full(20, 0.1, np.float32), np.ones(20, np.bool_), 0.5)) == 6


def test_held_out_keeps_no_name(tmp_path: Path) -> None:
    path = tmp_path / "held_out.npz"
    keep_held_out(
        path,
        probabilities=PROBABILITIES,
        cross_fitted=PROBABILITIES,
        positive=POSITIVE,
        patients=["doe_b", "doe_b", "doe_a", "x", "x", "y"],
        held_out=np.array([False, True, True, True, True, True, True]),
        threshold=0.5,
        evidence_of=lambda index: np.full((2, 2), index, np.float32),
    )
    kept = read_held_out(path)
    assert kept.patients.tolist() == [0, 0, 1, 2, 2, 3]
    # Position 2 of the held-out images is image 3 of the set.
    assert kept.evidence[:, 0, 0].tolist() == [3.0, 6.0, 5.0]
    assert b"doe" not in path.read_bytes()
    keep_held_out(
        path,
        probabilities=PROBABILITIES,
        cross_fitted=PROBABILITIES,
        positive=POSITIVE,
        patients=list("abcdef"),
        held_out=np.ones(6, np.bool_),
        threshold=0.5,
        evidence_of=None,  # a head of which no heatmap can be drawn
    )
    assert len(read_held_out(path).evidence) == 0
    path.write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"held_out\.npz: is not what a build wrote"):
        read_held_out(path)


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"report\.json: missing; name the run folder"):
        rewrite_html_report(tmp_path, None)


def test_figures_are_svg_and_the_same_each_time() -> None:
    patients = np.arange(6)
    drawn = [
        figures.draw_roc(PROBABILITIES, POSITIVE, patients, 0.5, 0.6, 1),
        figures.draw_precision_recall(PROBABILITIES, POSITIVE, patients, 0.999, 0.6, 1),  # nothing called positive
        figures.draw_confusion(np.array([[8, 2], [1, 3]]), ["NORMAL", "OPACITY"]),
        figures.draw_reliability(PROBABILITIES, POSITIVE, 0.1),
        figures.draw_risk_coverage(PROBABILITIES, POSITIVE, patients, 0.5, 0.1, 1),
        figures.draw_scores(PROBABILITIES, POSITIVE, ("NORMAL", "OPACITY"), 0.5, (0.4, 0.7)),
        figures.draw_losses([0.7]),
    ]
    for content in drawn:
        assert ElementTree.fromstring(content).tag.endswith("svg")  # noqa: S314  our own figures
    assert figures.draw_losses([0.7]) == drawn[-1]
