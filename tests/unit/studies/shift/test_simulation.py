"""What the shift simulation says follows from the scores, and no choice is counted on what it was made from."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from support.films import save_film
from support.run_folders import DrawnRun, draw_run

from edge_agent.errors import ConfigError
from edge_agent.inference.bundle import default_bundle_path
from edge_agent.inference.head import LogisticRegressionHead, PlattCalibration, encode_heads
from edge_agent.inference.novelty import Reference
from edge_agent.records import Task
from model_build.cli import cli
from model_build.config import load_build_config
from model_build.data.images import read_images
from model_build.data.split import hold_out
from model_build.evaluation.held_out_metrics import Counts, HeldOutOutputs, calibrate_and_choose, measure
from model_build.evaluation.held_out_outputs import keep_held_out, read_held_out
from model_build.evaluation.measured_run import FoldModel, MeasuredRun, read_measured_run
from model_build.heads.embed import embed_images
from model_build.heads.fit import fit_heads, head_logits
from model_build.heads.novelty_reference import fit_reference, pack_reference
from model_build.run_folder import read_json
from model_build.studies.shift.result import SHIFT, PointChoice, ShiftResult, answer_shift, compare_runs
from model_build.studies.shift.rule_choice import CHOSEN_ON, RULES, compare_choices, shift_folds
from model_build.studies.shift.simulation import ShiftOutputs, embed_under_shift, measure_shifts
from model_build.studies.shift.transforms import AS_IT_IS, SHIFTS
from model_build.tables import render_markdown

TASKS: list[Task] = ["binary", "multiclass", "multilabel"]
FAMILIES = [AS_IT_IS.family, *(shift.family for shift in SHIFTS)]


def drawn(folder: Path, task: Task = "binary", folds: int = 0) -> tuple[DrawnRun, MeasuredRun]:
    """A run whose models are never asked."""
    made = draw_run(folder, task, folds=folds, count=180 if folds else 300)  # a third is held out where there are no folds
    head = LogisticRegressionHead(positive="x", calibration=PlattCalibration(1.0, 0.0), coefficients=[1.0], intercept=0.0)
    none = np.zeros((1, 2), np.float32)
    model = FoldModel(b"", [head], Reference(none, np.eye(2, dtype=np.float32), none[:, :1], np.zeros(1, np.int64)))
    return made, MeasuredRun(made.config, made.report.measured, read_held_out(folder / "held_out.npz"), [model] * max(1, folds))


def outputs_of(run: MeasuredRun, moved: dict[str, float]) -> ShiftOutputs:
    """Scores that separate the sides with some overlap; under the shifts of a family ``moved`` they all rise by so much."""
    targets = run.held_out.targets[:, 1:] if run.config.task == "binary" else run.held_out.targets
    noise = np.random.default_rng(2).standard_normal(targets.shape)
    logits = np.stack([np.where(targets, 1.5, -1.5) + 1.2 * noise + moved.get(family, 0.0) for family in FAMILIES])
    return ShiftOutputs(logits.astype(np.float32), np.zeros(logits.shape[:2], np.float32))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("folds", [0, 3])
def test_where_nothing_changes_every_shift_has_the_figures_of_the_build(task: Task, folds: int, tmp_path: Path) -> None:
    made, run = drawn(tmp_path, task, folds)
    outputs = outputs_of(run, {})
    found = measure_shifts(run, outputs)
    for figures in found.shifts:
        assert figures.balanced_accuracy == found.as_they_are.balanced_accuracy
    assert found.mean_balanced_accuracy.value == pytest.approx(found.as_they_are.balanced_accuracy.value)
    assert found.images == len(run.held_out.indices)
    assert found.as_they_are.novel_share == 0.0
    assert found.points == sum(point.positives >= 20 for point in made.report.measured.points)
    assert found.as_they_are.auc.value > 0.8


def test_higher_scores_everywhere_are_more_alarms_and_fewer_misses(tmp_path: Path) -> None:
    _, run = drawn(tmp_path)
    found = measure_shifts(run, outputs_of(run, {"framing": 3.0}))
    by_family = {figures.family: figures for figures in found.shifts}
    assert by_family["framing"].specificity.value < found.as_they_are.specificity.value - 0.2
    assert by_family["framing"].sensitivity.value >= found.as_they_are.sensitivity.value
    assert by_family["framing"].auc.value == pytest.approx(found.as_they_are.auc.value, abs=1e-6)
    assert next(figures.family for figures in found.shifts if figures.name == found.worst) == "framing"
    values = [figures.balanced_accuracy.value for figures in found.shifts]
    assert found.mean_balanced_accuracy.value == pytest.approx(np.mean(values))


def test_novel_images_are_not_decided_alone(tmp_path: Path) -> None:
    _, run = drawn(tmp_path)
    outputs = outputs_of(run, {})
    outputs.distances[1:3] = 10.0
    found = measure_shifts(run, outputs)
    assert [figures.novel_share for figures in found.shifts[:3]] == [1.0, 1.0, 0.0]
    assert found.shifts[0].decided_balanced_accuracy is None
    decided = found.shifts[2].decided_balanced_accuracy
    assert decided is not None
    assert decided.value > found.shifts[2].balanced_accuracy.value  # the review band takes the doubtful ones out


@pytest.mark.parametrize("chosen_on", CHOSEN_ON)
def test_every_image_is_counted_once_under_every_shift_by_what_saw_neither(chosen_on: str) -> None:
    folds = np.array([0, 1, 2, 0, 1, 2, 2])
    counted = np.zeros((len(FAMILIES), len(folds)), np.int64)
    for fold in shift_folds(folds, chosen_on):  # type: ignore[arg-type]
        counted[np.ix_(fold.counted_rows, fold.counted_images)] += 1
        assert not set(folds[fold.seen_images]) & set(folds[fold.counted_images])
        seen = {FAMILIES[row] for row in fold.seen_rows.tolist()}
        assert "none" in seen
        if chosen_on == "as they are":
            assert seen == {"none"}
        else:
            assert not (seen & {FAMILIES[row] for row in fold.counted_rows.tolist()}) - {"none"}
            assert len(seen) >= len(set(FAMILIES)) - 1
    assert (counted == 1).all()


@pytest.mark.parametrize("task", TASKS)
def test_a_point_chosen_under_shifts_that_all_raise_the_scores_wins(task: Task, tmp_path: Path) -> None:
    _, run = drawn(tmp_path, task)
    steps: list[int] = []
    found = compare_choices(run, outputs_of(run, {shift.family: 2.0 for shift in SHIFTS}), lambda done, _: steps.append(done))
    assert steps == [1, 2]
    assert [(choice.rule, choice.chosen_on) for choice in found.points] == [(rule, on) for on in CHOSEN_ON for rule in RULES]
    by_choice = {(choice.rule, choice.chosen_on): choice for choice in found.points}
    alone, others = by_choice["Youden", "as they are"], by_choice["Youden", "and other shifts"]
    assert others.mean.value > alone.mean.value + 0.02
    assert min(choice.behind_best.value for choice in found.points) == 0.0
    best = max(found.points, key=lambda choice: choice.mean.value)
    for choice in found.points:
        assert choice.behind_best.value == pytest.approx(best.mean.value - choice.mean.value)
        assert choice.worst <= choice.mean.value + 1e-9
    fitted = {(choice.method, choice.chosen_on): choice.mean.value for choice in found.calibrations}
    assert fitted["platt", "and other shifts"] < fitted["platt", "as they are"]


def test_the_answer_names_the_best_and_whom_it_cannot_be_told_from(tmp_path: Path) -> None:
    _, run = drawn(tmp_path)
    choices = compare_choices(run, outputs_of(run, {}), lambda done, name: None)
    said = answer_shift(choices)
    best = max(choices.points, key=lambda choice: choice.mean.value)
    near = [choice.rule for choice in choices.points if choice is not best and choice.behind_best.low <= 0.0]
    assert f"is {best.rule} on images" in said
    assert near
    assert all(rule in said for rule in near)
    alone = msgspec.structs.replace(choices, points=[best], calibrations=choices.calibrations[:1])
    assert "do not tell it" not in answer_shift(alone)


def read_written(folder: Path) -> ShiftResult:
    return read_json((folder / "shift.json").read_bytes(), ShiftResult)


def test_what_is_written_is_read_again_and_several_runs_are_ranked(tmp_path: Path) -> None:
    _, run = drawn(tmp_path)
    good = ShiftResult(simulation=measure_shifts(run, outputs_of(run, {})))
    bad = ShiftResult(simulation=measure_shifts(run, outputs_of(run, {"framing": 5.0})))
    text = SHIFT.write(good, tmp_path)
    assert read_written(tmp_path) == good
    assert (tmp_path / "shift.md").read_text() == text + "\n"
    assert (tmp_path / "shift.png").read_bytes().startswith(b"\x89PNG")
    assert all(f"| {shift.name} |" in text for shift in SHIFTS)
    lines = render_markdown([compare_runs({"bad": bad, "good": good})]).splitlines()
    assert [line.split()[1] for line in lines[2:]] == ["good", "bad"]


def test_a_shift_result_without_numbers_can_be_written(tmp_path: Path) -> None:
    """All images novel under a shift: none is decided, and JSON knows no NaN."""
    _, run = drawn(tmp_path)
    outputs = outputs_of(run, {})
    outputs.distances[:] = 10.0
    result = ShiftResult(simulation=measure_shifts(run, outputs))
    assert "100.0% | - |" in SHIFT.write(result, tmp_path)
    assert read_written(tmp_path) == result


CONFIG = """
name = "phantoms"
version = "0.0.1"
serial = 1
task = "binary"
[source]
labels = ["NORMAL", "OPACITY"]
positive = ["OPACITY"]
patient_pattern = '^(p\\d+)'
held_out_fraction = 0.5
title = "phantoms"
licence = "ours"
attribution = "none"
[input]
rows = 160
columns = 160
[card]
population = "synthetic phantoms"
intended_use = "tests"
limitations = ["Not for real films."]
"""


@pytest.fixture(scope="module")
def measured_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Films, and a run folder as a build leaves it, with the CNN of the shipped bundle."""
    data, folder = tmp_path_factory.mktemp("films"), tmp_path_factory.mktemp("run")
    for label, opacities in (("NORMAL", 0), ("OPACITY", 3)):
        (data / label).mkdir()
        for number in range(8):
            seed = 2 * number + bool(opacities)
            save_film(data / label / f"p{seed}_1.png", seed, side=160, opacity_count=opacities)
    (folder / "config.toml").write_text(CONFIG)
    config = load_build_config(folder / "config.toml")
    images = read_images(data, config.source, config.input, task=config.task)
    held_out, _ = hold_out(images.files, config.source, config.seed)
    model = (default_bundle_path() / "model.tflite").read_bytes()
    embedded = embed_images(model, images.pixels)
    heads = fit_heads(
        embedded.embeddings[~held_out], images.targets[~held_out], config.source.labels, config.task, config.source.positive, config.head
    )
    (folder / "measured.tflite").write_bytes(model)
    (folder / "measured-heads.json").write_bytes(encode_heads(heads))
    (folder / "measured-reference.npz").write_bytes(pack_reference(fit_reference(embedded, images.strata, ~held_out, 1)))
    chosen = np.flatnonzero(held_out)
    logits = head_logits(heads, embedded.embeddings)[chosen]
    outputs = HeldOutOutputs(
        logits=logits,
        float_logits=logits,
        baseline_logits=logits,
        distances=np.linspace(1.0, 2.0, len(chosen), dtype=np.float32),
        targets=images.targets[chosen],
        strata=images.strata[chosen],
        patients=[images.files[index].patient for index in chosen.tolist()],
        indices=chosen,
        folds=np.zeros(len(chosen), np.int64),
    )
    decided = calibrate_and_choose(outputs, config)
    keep_held_out(folder / "held_out.npz", outputs, decided, config.source.labels, images.files, None)
    nobody = Counts(0, 0, {})
    measured = measure(outputs, decided, config, official_split=False, training=nobody, held_out=nobody, epoch_losses=[])
    (folder / "measured.json").write_bytes(msgspec.json.encode(measured))
    return folder, data


def test_the_command_measures_a_run_and_answers(measured_run: tuple[Path, Path], tmp_path: Path) -> None:
    folder, data = measured_run
    ran = CliRunner().invoke(cli, ["simulate-shift", str(folder), "--data", str(data), "--out", str(tmp_path)], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    assert "The operating point that loses least" in ran.output
    result = read_written(tmp_path)
    run = read_measured_run(folder)
    as_built = run.measured.points[0].metrics
    assert result.simulation.as_they_are.sensitivity.value == as_built["sensitivity"].value
    assert result.simulation.as_they_are.auc.value == as_built["auc"].value
    assert result.choices is not None
    assert all(isinstance(choice, PointChoice) for choice in result.choices.points)
    assert not any(entry.patient in (tmp_path / "shift.md").read_text() for entry in images_of(run, data).files)


def images_of(run: MeasuredRun, data: Path):  # type: ignore[no-untyped-def]
    return read_images(data, run.config.source, run.config.input, task=run.config.task)


def test_other_data_than_the_build_had_is_refused(measured_run: tuple[Path, Path]) -> None:
    run = read_measured_run(measured_run[0])
    images = images_of(run, measured_run[1])
    images.targets[:] = ~images.targets
    with pytest.raises(ConfigError, match="not the images that the run was built from"):
        embed_under_shift(run, images, lambda done, name: None)


@pytest.mark.parametrize("name", ["measured.json", "measured-reference.npz", "measured.tflite", "held_out.npz", "config.toml"])
def test_a_run_without_one_of_its_files_is_refused_by_name(name: str, measured_run: tuple[Path, Path], tmp_path: Path) -> None:
    for entry in measured_run[0].iterdir():
        if entry.name != name:
            (tmp_path / entry.name).write_bytes(entry.read_bytes())
    with pytest.raises(ConfigError, match=name):
        read_measured_run(tmp_path)


def test_one_output_folder_is_not_for_several_runs(measured_run: tuple[Path, Path], tmp_path: Path) -> None:
    folder, data = str(measured_run[0]), str(measured_run[1])
    ran = CliRunner().invoke(cli, ["simulate-shift", folder, folder, "--data", data, "--out", str(tmp_path)])
    assert ran.exit_code == 2
    assert "--out is for one run folder" in ran.output
