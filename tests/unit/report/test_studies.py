"""The studies of a run as the report shows them: read from the JSON that their commands wrote."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("matplotlib", reason="matplotlib is not installed")
pytest.importorskip("jinja2", reason="Jinja2 is not installed")

from support.run_folders import draw_run

from edge_agent.errors import ConfigError
from model_build.report.html import read_page
from model_build.report.page import Page
from model_build.report.studies import STUDIES, read_studies
from model_build.run_folder import read_json
from model_build.studies.label_efficiency.result import LABEL_EFFICIENCY, LabelEfficiency, Point
from model_build.studies.precision.result import PrecisionAblation
from model_build.tables import render_markdown

COMMITTED = {
    "shift": "shift/shift",
    "label-efficiency": "few-labels/label-efficiency",
    "precision": "precision/precision",
    "augmentation": "augmentation/augmentation",
}
"""The project's own studies, below docs/reports."""


def measured(auc: float = 0.9) -> LabelEfficiency:
    points = [Point(10, auc, 0.0, 0.8, 0.0, auc - 0.8, 0.0)]
    return LabelEfficiency(name="<x>", labels=["a", "b"], draws=5, held_out_images=9, held_out_patients=9, points=points)


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.stem)
def test_what_the_project_committed_is_read_and_says_what_its_markdown_says(repository: Path, study) -> None:  # type: ignore[no-untyped-def]
    path = repository / "docs" / "reports" / f"{COMMITTED[study.stem]}.json"
    text = render_markdown(study.describe(read_json(path.read_bytes(), study.kind)))

    def cells(markdown: str) -> list[str]:
        return [" ".join(line.replace("|", " ").split()) for line in markdown.splitlines() if line.strip() and "---" not in line]

    assert cells(text) == cells(path.with_suffix(".md").read_text(encoding="utf-8"))


def test_a_study_stands_in_the_report_once_its_command_was_run(repository: Path, tmp_path: Path) -> None:
    draw_run(tmp_path, "binary", count=90)
    before = read_page(tmp_path)
    assert before.text.count("adds it") == 4
    assert "model-build ablate precision RUN_FOLDER" in before.text
    LABEL_EFFICIENCY.write(measured(), tmp_path)
    (tmp_path / "precision").mkdir()
    shutil.copy(repository / "docs" / "reports" / "precision" / "precision.json", tmp_path / "precision")
    after = read_page(tmp_path)
    assert after.text.count("adds it") == 2
    assert "<p>&lt;x&gt;: mean AUC of 2 labels on 9 images of 9 held-out patients" in after.text
    assert '<th scope="row">10</th><td class="n">0.900 ± 0.000</td><td class="n">0.800 ± 0.000</td>' in after.text
    assert "<p>Ship int8" in after.text
    new = [drawing.words for drawing in after.drawings if drawing.words not in {one.words for one in before.drawings}]
    assert new == ["What each further label buys", "Number formats and pruning"]
    assert_drawn(after)


def assert_drawn(page: Page) -> None:
    assert page.text.count("data:image/svg+xml") == len(page.drawings)
    assert all(drawing.uri in page.text and b"<image" not in drawing.svg for drawing in page.drawings)


def test_figures_that_could_not_be_computed_are_read_again(tmp_path: Path) -> None:
    LABEL_EFFICIENCY.write(measured(float("nan")), tmp_path)
    assert b"null" in (tmp_path / "label-efficiency.json").read_bytes()
    (section,) = [section for section in read_studies(tmp_path) if section.blocks]
    assert "| 10 | nan ± 0.000 | 0.800 ± 0.000 | +nan ± 0.000 |" in render_markdown(section.blocks)


def test_json_that_cannot_be_read_or_is_missing_is_named_with_the_command(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "shift.json").write_bytes(b"{")
    with pytest.raises(ConfigError, match=r"shift\.json: cannot be read .* write it again with `model-build simulate-shift"):
        read_studies(tmp_path)
    (tmp_path / "shift.json").unlink()
    (tmp_path / "shift.md").write_text("table")
    with pytest.raises(ConfigError, match=r"shift\.json: missing beside shift\.md.* `model-build simulate-shift .*or remove shift\.md"):
        read_studies(tmp_path)


def test_null_is_nan_only_where_a_float_stands(repository: Path) -> None:
    path = repository / "docs" / "reports" / "precision" / "precision.json"
    content = path.read_bytes().replace(b'"latency_ratio": 1.0\n', b'"latency_ratio": null\n')
    assert math.isnan(read_json(content, PrecisionAblation).variants[0].latency_ratio)
    with pytest.raises(msgspec.ValidationError, match="Expected `int`"):
        read_json(content.replace(b'"fine_tuning_epochs": 5', b'"fine_tuning_epochs": null'), PrecisionAblation)
