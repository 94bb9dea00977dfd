"""Builds with three classes and with findings, by folds over patients: from labelled drawings to a bundle that the agent runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.build_command import model_build
from support.films import save_film
from support.real_agent import edge_agent

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from edge_agent.inference.bundle import load_bundle
from edge_agent.records import NO_FINDING

pytestmark = pytest.mark.timeout(1800)  # whole builds, on a machine that may have much else to do

COMMON = """
version = "0.0.1"
serial = 1
[input]
rows = 64
columns = 64
[trunk]
block_count = 3
[train]
epochs = 1
batch_size = 8
[decision]
rule = "youden"
[card]
population = "synthetic phantoms"
intended_use = "tests"
limitations = ["Not for real films."]
[source]
layout = "manifest"
folds = 2
title = "phantoms"
licence = "ours"
attribution = "none"
"""
CLASSES = 'name = "classes"\ntask = "multiclass"' + COMMON + 'labels = ["clear", "few", "many"]\npositive = ["few", "many"]\n'
FINDINGS = 'name = "findings"\ntask = "multilabel"' + COMMON + 'labels = ["few", "many"]\nnegative = ["clear"]\n'


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("films")
    rows = ["path,label,patient"]
    for number in range(36):
        label, opacity_count = (("clear", 0), ("few", 1), ("many", 4))[number % 3]
        save_film(root / f"{number}.png", number, opacity_count=opacity_count)
        rows.append(f"{number}.png,{label},p{number // 3 // 2}-{number % 3}")
    (root / "manifest.csv").write_text("\n".join(rows))
    return root


def build(config: str, films: Path, folder: Path) -> Path:
    (folder / "build.toml").write_text(config)
    done = model_build("train", folder / "build.toml", "--data", films, "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    assert "2-fold cross-validation over patients" in done.stdout
    return folder / "run"


@pytest.fixture(scope="module")
def classes(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(CLASSES, films, tmp_path_factory.mktemp("classes"))


@pytest.fixture(scope="module")
def findings(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(FINDINGS, films, tmp_path_factory.mktemp("findings"))


def test_classes_are_measured_on_every_patient_once(classes: Path) -> None:
    report = json.loads((classes / "report.json").read_text())
    measured = report["measured"]
    assert (report["task"], measured["fold_count"], measured["held_out"]["images"]) == ("multiclass", 2, 36)
    counts = measured["class_confusion"]
    assert [sum(row) for row in counts] == [12, 12, 12]
    hits = sum(counts[i][i] for i in range(3))
    assert measured["overall"]["accuracy"]["value"] == pytest.approx(hits / 36)
    assert [point["point"]["labels"] for point in measured["points"]] == [["few", "many"]]
    assert len(measured["calibrations"]) == 3
    text = (classes / "report.md").read_text()
    assert "said many" in text
    assert "2 models, each trained on the patients of all folds but one" in text
    phases = [json.loads(line)["phase"] for line in (classes / "epochs.jsonl").read_text().splitlines()]
    assert phases == ["fold 1", "fold 2", "finish"]


def test_findings_have_a_point_each(findings: Path) -> None:
    measured = json.loads((findings / "report.json").read_text())["measured"]
    assert [entry["name"] for entry in measured["points"]] == ["few", "many"]
    assert [entry["positives"] for entry in measured["points"]] == [12, 12]
    assert measured["class_confusion"] == []
    assert set(measured["overall"]) == {"mean_auc", "mean_auc_raw_pixels"}
    manifest = load_bundle(findings / "bundle").manifest
    assert (manifest.task, manifest.positive) == ("multilabel", ["few", "many"])


@pytest.mark.parametrize("task", ["classes", "findings"])
def test_the_agent_runs_the_bundle(task: str, films: Path, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    folder: Path = request.getfixturevalue(task)
    done = edge_agent("predict", films, "--model", folder / "bundle", "--format", "jsonl", "--heatmaps", tmp_path / "maps")
    records = [json.loads(line) for line in done.stdout.splitlines() if '"status":"done"' in line]
    assert len(records) == 36, done.stderr
    for record in records:
        if task == "classes":
            assert sum(record["scores"].values()) == pytest.approx(1.0, abs=1e-5)
            assert record["label"] in ("clear", "few", "many")
            assert record["findings"] == []
        else:
            assert set(record["scores"]) == {"few", "many"}
            assert record["label"] in ([*record["findings"]] or [NO_FINDING])
    assert len(list((tmp_path / "maps").iterdir())) == 36


@pytest.mark.parametrize(("task", "line"), [("classes", "| accuracy |"), ("findings", "many:")])
def test_evaluate_reads_the_layout_from_the_bundle(task: str, line: str, films: Path, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(task)
    done = model_build("evaluate", folder / "bundle", films)
    assert done.returncode == 0, done.stderr
    assert "36 images of 18 patients" in done.stdout
    assert line in done.stdout
    wrong = model_build("evaluate", folder / "bundle", films, "--layout", "folders", "--patient-pattern", "(.+)")
    assert (wrong.returncode, "Traceback" in wrong.stderr) == (10, False), wrong.stderr
