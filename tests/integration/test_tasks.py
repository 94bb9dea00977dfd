"""Models of several classes or findings, from the file to every place where a record stands."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.bundles import LABELS, change_manifest, drawn_heads, golden_films, make_bundle

from edge_agent.cli import main
from edge_agent.imaging.decode import decode_image
from edge_agent.inference.bundle import Bundle, default_bundle_path, load_bundle
from edge_agent.inference.classifier import Classifier
from edge_agent.inference.decision import SCORE_DIGITS
from edge_agent.inference.heatmap import draw_heatmap
from edge_agent.inference.manifest import DecisionRule, OperatingPoint
from edge_agent.inference.scoring import make_scorer
from edge_agent.records import NO_FINDING, Frame, Record, Task, Verdict, probability_text
from model_build.data.phantom.draw import save_phantom

TASKS: list[Task] = ["multiclass", "multilabel"]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn films, the same one a second time, and a file that is none."""
    folder = tmp_path_factory.mktemp("films")
    golden_films(default_bundle_path(), folder)
    for seed in range(2):
        save_phantom(folder / f"phantom-{seed}.jpg", seed, rows=256, columns=256, opacity_count=seed)
    shutil.copy(folder / "golden-0.png", folder / "golden-0-again.png")
    (folder / "notes.png").write_text("no film")
    return folder


@pytest.fixture(scope="module", params=TASKS)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load_bundle(make_bundle(tmp_path_factory.mktemp("bundles") / request.param, request.param))


def decode(lines: bytes) -> list[Record]:
    return [msgspec.json.decode(line, type=Record) for line in lines.splitlines()]


def check_against_manifest(record: Record | Verdict, bundle: Bundle) -> None:
    """Decide again, from the record and the manifest alone."""
    manifest = bundle.manifest
    assert list(record.scores) == manifest.labels
    assert record.scores == {label: round(score, SCORE_DIGITS) for label, score in record.scores.items()}
    sums = [round(sum(record.scores[label] for label in point.labels), SCORE_DIGITS) for point in manifest.decision.points]
    reached = [score >= point.threshold for score, point in zip(sums, manifest.decision.points, strict=True)]
    near = [point.review_low <= score <= point.review_high for score, point in zip(sums, manifest.decision.points, strict=True)]
    if manifest.task == "multilabel":
        assert record.findings == [label for label, is_finding in zip(manifest.labels, reached, strict=True) if is_finding]
        assert record.label in (record.findings or [NO_FINDING])
    else:
        # Each label is rounded by itself.
        assert sum(record.scores.values()) == pytest.approx(1.0, abs=0.6 * 10**-SCORE_DIGITS * len(record.scores))
        assert record.findings == []
        side = [label for label in manifest.labels if (label in manifest.positive) == reached[0]]
        assert record.label == max(side, key=lambda label: record.scores[label])
    if record.decision == "review":
        assert record.reason is not None
    else:
        assert record.decision == ("positive" if any(reached) else "negative")
        assert not any(near)


def test_one_result_everywhere(bundle: Bundle, films: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    home, model = tmp_path / "home", str(bundle.directory)
    shutil.copytree(films, home / "inbox")
    assert main(["run", "--once", "--home", str(home), "--model", model]) == 0
    said = capfdbinary.readouterr().err.decode()
    assert main(["export", "--home", str(home)]) == 0
    records = decode(capfdbinary.readouterr().out)
    done = {record.path: record for record in records if record.status == "done"}
    count = len(list(films.glob("golden*"))) + 2
    assert len(done) == count
    assert [record.path for record in records if record.status == "rejected"] == ["notes.png"]
    for record in done.values():
        check_against_manifest(record, bundle)
        assert record.model == bundle.identity
    # Not all alike: a model that says the same of everything would pass what follows.
    assert len({record.label for record in done.values()}) > 1
    assert any(record.findings for record in done.values()) == (bundle.manifest.task == "multilabel")

    first, again = sorted((done["golden-0.png"], done["golden-0-again.png"]), key=lambda record: record.id or 0)
    assert again.duplicate_of == first.id
    assert (again.scores, again.label, again.findings, again.decision) == (first.scores, first.label, first.findings, first.decision)

    assert decode((home / "results" / "predictions.jsonl").read_bytes()) == records
    for record in records:
        assert msgspec.json.decode((home / "results" / f"{record.path}.json").read_bytes(), type=Record) == record
    (day,) = (home / "results").glob("predictions-*.csv")
    assert main(["export", "--home", str(home), "--format", "csv"]) == 0
    exported = capfdbinary.readouterr().out.decode()
    assert day.read_bytes().decode() == exported
    for row, record in zip(csv.DictReader(io.StringIO(exported, newline="")), records, strict=True):
        assert row["label"] == (record.label or "")
        assert row["findings"].split(";") == (record.findings or [""])
        pairs = [pair.rsplit("=", 1) for pair in row["scores"].split(";") if pair]
        assert {label: float(score) for label, score in pairs} == record.scores

    assert main(["status", "--home", str(home), "--format", "json"]) == 0
    status = json.loads(capfdbinary.readouterr().out)
    decisions = [record.decision for record in records if record.decision]
    assert status["by_decision"] == {decision: decisions.count(decision) for decision in set(decisions)}
    counted = f"{decisions.count('positive')} positive, {decisions.count('negative')} negative, {decisions.count('review')} to review"
    assert f"{len(records)} images: {counted}, 1 rejected, 1 duplicates" in said

    assert main(["predict", str(films), "--model", model, "--format", "jsonl"]) == 0
    for record in decode(capfdbinary.readouterr().out):
        stored = next(other for other in records if other.path == Path(record.path).name)
        assert (record.scores, record.label, record.findings, record.decision) == (
            stored.scores,
            stored.label,
            stored.findings,
            stored.decision,
        )


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["binary", *TASKS]), st.integers(3, 9), st.integers(0, 2**32 - 1))
def test_records_of_random_bundles_agree_with_their_scores(task: Task, count: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    shipped = load_bundle(default_bundle_path())
    labels = [f"label {number}" for number in range(2 if task == "binary" else count)]
    positive = {"binary": labels[seed % 2 :][:1], "multiclass": labels[: 1 + seed % (len(labels) - 1)], "multilabel": labels}[task]
    heads = drawn_heads(positive if task == "binary" else labels, shipped.golden_embeddings, seed)
    points = [
        OperatingPoint(labels=asked, threshold=threshold, target="", review_low=low, review_high=high)
        for asked in ([[label] for label in labels] if task == "multilabel" else [positive])
        for low, threshold, high in [np.sort(random.beta(2, 2) + random.normal(scale=0.02, size=3)).clip(0, 1).tolist()]
    ]
    margin = 0.05 if task == "multiclass" else 0.0
    rule = DecisionRule(points=points, label_margin=margin, novelty_limit=1e6, novelty_quantile=0.98)
    manifest = msgspec.structs.replace(shipped.manifest, task=task, labels=labels, positive=positive, decision=rule)
    bundle = dataclasses.replace(shipped, manifest=manifest, heads=heads)
    classifier = Classifier(bundle)
    for grey in bundle.golden_inputs:
        check_against_manifest(classifier.classify(Frame(grey[:, :, 0], *grey.shape[:2], "PNG")), bundle)


def test_the_table_says_label_or_findings(
    bundle: Bundle, films: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["predict", str(films), "--model", str(bundle.directory), "--format", "jsonl"]) == 0
    records = decode(capfdbinary.readouterr().out)
    assert main(["predict", str(films), "--model", str(bundle.directory)]) == 0
    shown = capfdbinary.readouterr().out.decode()
    assert shown.split()[:4] == ["image", "decision", "label", "scores"]
    for record in records:
        for label in record.findings:
            assert f"{label} {probability_text(record.scores[label])}" in shown
        if record.scores:
            most = max(record.scores, key=lambda label: record.scores[label])
            assert f"{most} {probability_text(record.scores[most])}" in shown


def test_a_heatmap_shows_the_label_that_matters_and_says_which(
    bundle: Bundle, films: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    film, manifest = films / "phantom-1.jpg", bundle.manifest
    arguments = ["predict", str(film), "--model", str(bundle.directory), "--format", "jsonl", "--heatmaps", str(tmp_path / "maps")]
    assert main(arguments) == 0
    (record,) = decode(capfdbinary.readouterr().out)
    assert record.label is not None
    wanted = record.label if record.label in manifest.positive else max(manifest.positive, key=lambda label: record.scores[label])
    with Image.open(tmp_path / "maps" / "phantom-1.jpg.heatmap.png") as picture:
        assert picture.info["Description"] == f"what speaks for {wanted}, probability {record.scores[wanted]:.2f}"
        drawn = np.asarray(picture)
    classifier = Classifier(bundle)
    frame = decode_image(film.read_bytes(), rows=classifier.input.rows, columns=classifier.input.columns)
    classifier.classify(frame)
    feature_map = classifier._interpreter.feature_map()
    head = next(head for head in bundle.heads if head.positive == wanted)
    np.testing.assert_array_equal(drawn, draw_heatmap(frame.pixels, make_scorer(head).logits(feature_map), record.scores[wanted]))


@pytest.mark.parametrize("task", TASKS)
def test_with_nothing_found_the_heatmap_shows_the_likeliest(task: Task, films: Path, tmp_path: Path) -> None:
    path = make_bundle(tmp_path / "bundle", task)
    change_manifest(path, lambda m: [point.update(threshold=1.0, review_low=1.0, review_high=1.0) for point in m["decision"]["points"]])
    change_manifest(path, lambda m: m["decision"].update(label_margin=0.0))
    classifier = Classifier(load_bundle(path))
    verdict, _ = classifier.classify_with_heatmap(decode_image((films / "phantom-0.jpg").read_bytes(), rows=160, columns=160))
    assert (verdict.label, verdict.findings, verdict.decision) == (NO_FINDING if task == "multilabel" else "normal", [], "negative")
    positive = [label for label in LABELS[task] if label != "normal"]
    assert classifier.heatmap_label(verdict) == max(positive, key=lambda label: verdict.scores[label])
