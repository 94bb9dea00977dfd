"""The whole build on synthetic films: data to bundle, killed and resumed, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.build_command import LIMIT_S, building, model_build, wait_for_file, wait_for_line
from support.films import save_film

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from edge_agent.imaging.decode import decode_image
from edge_agent.inference.bundle import load_bundle
from edge_agent.inference.classifier import Classifier

pytestmark = pytest.mark.timeout(1800)  # whole builds, on a machine that may have much else to do

CONFIG = """
name = "tiny"
version = "0.0.1"
serial = 3
task = "binary"
[source]
labels = ["NORMAL", "OPACITY"]
positive = ["OPACITY"]
patient_pattern = '^(p\\d+)'
held_out_fraction = 0.3
title = "phantoms"
licence = "ours"
attribution = "none"
[input]
rows = 64
columns = 64
[trunk]
block_count = 3
[train]
epochs = 2
batch_size = 8
finish_epochs = 1
[card]
population = "synthetic phantoms"
intended_use = "tests"
limitations = ["Not for real films."]
"""


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("films")
    for label, opacity_count, first in (("NORMAL", 0, 0), ("OPACITY", 3, 100)):
        (root / label).mkdir()
        for number in range(20):
            path = root / label / f"p{first + number // 2}_{number}.png"
            save_film(path, first + number, opacity_count=opacity_count)
    (root / "OPACITY" / "p900_broken.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    return root


@pytest.fixture(scope="module")
def built(films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder: killed by SIGKILL after the first epoch, resumed, killed again while it converts to int8, then resumed to its end."""
    folder = tmp_path_factory.mktemp("run")
    config, out = folder / "tiny.toml", folder / "out"
    config.write_text(CONFIG)
    train = ("train", config, "--data", films, "--out", out)
    with building(*train) as process:
        wait_for_file(process, out / "checkpoint.npz")
    assert process.returncode == -signal.SIGKILL
    assert not (out / "bundle").exists()
    again = model_build(*train)
    assert again.returncode == 10
    assert "--resume" in again.stderr
    with building(*train, "--resume") as process:
        wait_for_line(process, "int8 conversion")
    assert process.returncode == -signal.SIGKILL
    assert not (out / "bundle").exists()
    done = model_build(*train, "--resume")
    assert done.returncode == 0, done.stderr
    assert "held-out patients, int8: AUC" in done.stdout
    return out


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_disk_that_fills_while_training(films: Path, tmp_path: Path) -> None:
    """
    1. The run folder is on a disk too small for the checkpoint, then on one too small for what follows it.
    2. Somebody makes room.
    Result: each time exit code 41, a message that names the file, and no bundle but a whole one; with room, --resume finishes.
    """
    disk, config = tmp_path / "disk", tmp_path / "tiny.toml"
    disk.mkdir()
    config.write_text(CONFIG)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    try:
        out = disk / "out"
        for size in ("256k", "1m"):
            subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)
            resume = ["--resume"] if (out / "config.toml").exists() else []
            full = model_build("train", config, "--data", films, "--out", out, *resume)
            assert full.returncode == 41, full.stderr
            assert "no space left" in full.stderr.lower()
            assert str(out) in full.stderr
            assert not (out / "bundle").exists() or load_bundle(out / "bundle").manifest.name
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        done = model_build("train", config, "--data", films, "--out", out, "--resume")
        assert done.returncode == 0, done.stderr
        assert (out / "bundle" / "manifest.json").is_file()
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_the_bundle_runs(built: Path, films: Path) -> None:
    bundle = load_bundle(built / "bundle")
    classifier = Classifier(bundle)
    frame = decode_image((films / "NORMAL" / "p0_0.png").read_bytes(), rows=64, columns=64)
    verdict = classifier.classify(frame)
    assert set(verdict.scores) == {"NORMAL", "OPACITY"}
    assert sum(verdict.scores.values()) == pytest.approx(1.0)
    again, heatmap = classifier.classify_with_heatmap(frame)
    assert again.scores == verdict.scores
    assert heatmap.shape == (*frame.pixels.shape, 3)


def test_the_report_says_who_was_trained_on(built: Path) -> None:
    report = json.loads((built / "report.json").read_text())
    measured = report["measured"]
    assert measured["training"]["patients"] + measured["held_out"]["patients"] == report["shipped"]["patients"] == 20
    assert measured["held_out"]["patients"] == 6
    assert report["shipped"]["images"] == 40
    assert len(measured["epoch_losses"]) == 2
    assert 0.9 <= measured["points"][0]["float_int8_agreement"] <= 1.0
    assert 0.0 <= measured["points"][0]["baseline_auc"]["value"] <= 1.0
    assert list(report["left_out"].values()) == [1]
    assert "0 patient(s) and 0 pair(s)" in report["leakage"]
    matrix = report_matrix(built)
    assert sum(matrix.values()) == measured["held_out"]["images"]
    text = (built / "report.md").read_text()
    assert "Not a diagnosis" in text
    assert "held-out ones included" in text
    # The report may be shown around: a file's name can hold its patient.
    assert "p900" not in text


def test_every_epoch_leaves_a_line(built: Path) -> None:
    lines = [json.loads(line) for line in (built / "epochs.jsonl").read_text().splitlines()]
    assert [(line["phase"], line["epoch"]) for line in lines] == [("measure", 1), ("measure", 2), ("finish", 1)]
    assert all(line["loss"] > 0 for line in lines)
    assert all("monitor_loss" in line for line in lines[:2])
    # In the last phase everybody is trained on: there is nobody to monitor.
    assert "monitor_loss" not in lines[2]


def test_another_head_or_point_is_fitted_without_training_again(built: Path, films: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    config = tmp_path / "tiny.toml"
    config.write_text(CONFIG + '[head]\nkind = "linear_discriminant"\n[decision]\nrule = "youden"\n')
    done = model_build("train", config, "--data", films, "--out", out, "--resume")
    assert done.returncode == 0, done.stderr
    assert "only those steps are done again" in done.stderr
    assert "epoch" not in done.stderr
    before, after = (load_bundle(folder / "bundle") for folder in (built, out))
    assert (before.heads[0].kind, after.heads[0].kind) == ("logistic_regression", "linear_discriminant")
    assert np.array_equal(before.golden_embeddings, after.golden_embeddings)
    config.write_text(CONFIG.replace("epochs = 2", "epochs = 3"))
    other = model_build("train", config, "--data", films, "--out", out, "--resume")
    assert (other.returncode, "made with another config" in other.stderr) == (10, True), other.stderr


def test_the_manifest_keeps_the_provenance(built: Path) -> None:
    manifest = json.loads((built / "bundle" / "manifest.json").read_text())
    assert (manifest["format"], manifest["serial"], manifest["task"]) == (2, 3, "binary")
    assert manifest["training"]["config"]["train"]["epochs"] == 2
    assert manifest["training"]["environment"]["packages"]["tensorflow"][0].isdigit()
    assert "Not for real films." in (built / "bundle" / "MODEL_CARD.md").read_text()
    text = (built / "bundle" / "manifest.json").read_text()
    # The manifest travels: no file name, no patient, no path of the building machine.
    assert "p900" not in text
    assert str(Path.cwd()) not in text


def test_the_html_report_needs_nothing_else_and_names_nobody(built: Path, films: Path, tmp_path: Path) -> None:
    # A copy: the run folder is shared with other tests.
    folder = tmp_path / "run"
    shutil.copytree(built, folder)
    page = folder / "report.html"
    during_build = page.read_text(encoding="utf-8")
    mistakes = min(6, report_matrix(built)["false_negative"]) + min(6, report_matrix(built)["false_positive"])
    assert during_build.count("data:image/png") == 2 * mistakes
    assert ("It stays with the data" in during_build) == (mistakes > 0)
    again = model_build("report", folder)
    assert again.returncode == 0, again.stderr
    without_images = page.read_text(encoding="utf-8")
    assert "data:image/png" not in without_images
    assert "It stays with the data" not in without_images
    for text in (during_build, without_images):
        assert text.count("data:image/svg+xml") == 7
        assert "Not a diagnosis" in text
        assert "Not for real films." in text
        assert not re.search(r"<script|http://|https://|<link|\bp\d+_\d", text)
    assert model_build("report", folder, "--data", films).returncode == 0
    assert page.read_text(encoding="utf-8") == during_build
    shutil.copytree(films, tmp_path / "films")
    (tmp_path / "films" / "NORMAL" / "p0_0.png").unlink()
    other = model_build("report", folder, "--data", tmp_path / "films")
    assert (other.returncode, "was built from other images" in other.stderr) == (10, True), other.stderr


def report_matrix(run_folder: Path) -> dict[str, int]:
    matrix: dict[str, int] = json.loads((run_folder / "report.json").read_text())["measured"]["points"][0]["confusion"]
    return matrix


def test_evaluate_measures_the_bundle(built: Path, films: Path) -> None:
    done = model_build("evaluate", built / "bundle", films)
    assert done.returncode == 0, done.stderr
    assert "40 images of 20 patients" in done.stdout
    assert "left out: OPACITY/p900_broken.png" in done.stdout


def test_evaluate_takes_the_names_that_another_hospital_gives(built: Path, films: Path, tmp_path: Path) -> None:
    here = model_build("evaluate", built / "bundle", films)
    shutil.copytree(films / "NORMAL", tmp_path / "films" / "no finding")
    shutil.copytree(films / "OPACITY", tmp_path / "films" / "infiltrate=yes")
    names = ("--merge", "no finding=NORMAL", "--merge", "infiltrate=yes=OPACITY")
    there = model_build("evaluate", built / "bundle", tmp_path / "films", *names)
    assert (there.returncode, there.stderr) == (0, "")
    assert there.stdout == here.stdout.replace("OPACITY/", "infiltrate=yes/")
    for wrong, code, message in (("no finding", 2, "is not NAME=LABEL"), ("no finding=WELL", 10, "'WELL' is none of the bundle's labels")):
        done = model_build("evaluate", built / "bundle", tmp_path / "films", "--merge", wrong)
        assert (done.returncode, message in done.stderr, "Traceback" in done.stderr) == (code, True, False), done.stderr


def test_a_split_of_the_data_sets_own_is_neither_trained_on_nor_allowed_to_leak(films: Path, tmp_path: Path) -> None:
    rows = ["path,label,patient,split"]
    for number, path in enumerate(sorted(films.glob("*/p*_*.png"))):
        patient = path.name.partition("_")[0]
        rows.append(f"{path.relative_to(films)},{path.parent.name},{patient},{'test' if number % 3 == 0 else 'train'}")
    (films / "films.csv").write_text("\n".join(rows))
    config = tmp_path / "tiny.toml"
    text = CONFIG.replace("[source]", '[source]\nlayout = "manifest"\ntable = "films.csv"').replace("patient_pattern", "# patient_pattern")
    config.write_text(text)
    finishing = model_build("train", config, "--data", films, "--out", tmp_path / "a")
    assert (finishing.returncode, "train.finish_epochs = 0" in finishing.stderr) == (10, True), finishing.stderr
    config.write_text(text.replace("finish_epochs = 1", "finish_epochs = 0"))
    leaking = model_build("train", config, "--data", films, "--out", tmp_path / "b")
    assert (leaking.returncode, "stand on both sides of the split" in leaking.stderr) == (10, True), leaking.stderr


def test_interrupt_keeps_the_epoch_and_tells_how_to_go_on(films: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "tiny.toml", tmp_path / "out"
    config.write_text(CONFIG.replace("epochs = 2", "epochs = 500"))
    with building("train", config, "--data", films, "--out", out) as process:
        wait_for_file(process, out / "checkpoint.npz")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert "The last finished epoch is kept" in stderr
    assert "--resume" in stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("train", "none.toml", "--data", "."), 10, "no such build config"),
        (("train", "tiny.toml"), 2, "--data"),
        (("train", "tiny.toml", "--data", "nowhere"), 2, "does not exist"),
        (("train", "tiny.toml", "--data", "empty"), 10, "no folder 'NORMAL'"),
        (("report", "nowhere"), 10, "name the run folder"),
        (("report", "empty", "--data", "nowhere"), 2, "does not exist"),
        (("evaluate", "nowhere", "empty"), 20, "no such bundle folder"),
        (("train", "tiny.toml", "--wrong"), 2, "--wrong"),
    ],
)
def test_wrong_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(CONFIG)
    (tmp_path / "empty").mkdir()
    done = model_build(*arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert message in done.stderr


def test_without_the_build_libraries_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(CONFIG)
    # None in sys.modules is how Python itself marks a module that cannot be imported.
    program = "import sys; sys.modules['sklearn'] = None; from model_build.cli import main; sys.exit(main())"
    arguments = ["train", str(tmp_path / "tiny.toml"), "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (10, False), done.stderr
    assert "sklearn is not installed" in done.stderr
    assert "[build]" in done.stderr
