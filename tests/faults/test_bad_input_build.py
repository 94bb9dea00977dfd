"""Data that no model should be built from: ``model-build train`` says what is wrong and where, and leaves nothing that looks like a bundle.

The command runs in this process: TensorFlow takes longer to load than all of these tests to run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from model_build.cli import main

CONFIG = """
name = "tiny"
version = "0.0.1"
serial = 1
task = "{task}"
[source]
layout = "manifest"
{source}
title = "noise"
licence = "ours"
attribution = "none"
[input]
rows = 32
columns = 32
[trunk]
block_count = 1
[train]
epochs = 1
finish_epochs = 0
[card]
population = "noise"
intended_use = "tests"
limitations = []
"""
BINARY = 'labels = ["NORMAL", "SICK"]\npositive = ["SICK"]'
FINDINGS = 'labels = ["mass", "nodule"]\nnegative = ["healthy"]'
WHOLE = [f"{number}.png,{'SICK' if number % 2 else 'NORMAL'},p{number},train" for number in range(12)]


@dataclass(frozen=True)
class Bench:
    """A folder with a manifest and its images, and the command upon it."""

    root: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def put(self, rows: Sequence[str], header: str = "path,label,patient,split") -> None:
        (self.root / "manifest.csv").write_text("\n".join([header, *rows]) + "\n")
        for row in rows:
            path = self.root / row.partition(",")[0]
            grain = np.random.default_rng(int(path.stem)).integers(0, 256, (40, 40), dtype=np.uint8)
            Image.fromarray(grain).save(path)

    def refused(self, source: str = BINARY, task: str = "binary") -> str:
        """The message of a build that must end with exit code 10 and without a bundle."""
        config, out = self.root / "build.toml", self.root / "out"
        config.write_text(CONFIG.format(task=task, source=source))
        self.monkeypatch.setattr(sys, "argv", ["model-build", "train", str(config), "--data", str(self.root), "--out", str(out)])
        assert main() == 10
        assert not (out / "bundle").exists()
        assert not (out / "checkpoint.npz").exists()
        printed = self.capsys.readouterr()
        assert "Traceback" not in printed.err
        return printed.err.splitlines()[-1]


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, monkeypatch, capsys)


def test_a_class_without_an_image(bench: Bench) -> None:
    bench.put(WHOLE[0::2])
    assert "no image has the label 'SICK' of source.labels; the labels there are: NORMAL" in bench.refused()


def test_a_class_of_one_image(bench: Bench) -> None:
    bench.put([*WHOLE[0::2], WHOLE[1]])
    message = bench.refused()
    assert "all images of the class 'SICK' (1.png is the first) belong to one patient; at least 2 are needed" in message


def test_one_patient_only(bench: Bench) -> None:
    bench.put([f"{number}.png,{'SICK' if number % 2 else 'NORMAL'},p7" for number in range(8)], "path,label,patient")
    assert "all images of the class 'NORMAL' (0.png is the first) belong to one patient" in bench.refused()


def test_three_images(bench: Bench) -> None:
    bench.put(WHOLE[:3])
    assert "all images of the class 'SICK' (1.png is the first) belong to one patient" in bench.refused()


def test_a_label_never_seen(bench: Bench) -> None:
    bench.put([*WHOLE, "12.png,FLU,p12,train"])
    assert "manifest.csv line 14: the label 'FLU' is none of source.labels ['NORMAL', 'SICK']; correct it" in bench.refused()


def test_a_label_that_the_config_misspells(bench: Bench) -> None:
    bench.put(WHOLE)
    assert "'NORMAL' is none of source.labels ['NORMALE', 'SICK']" in bench.refused(BINARY.replace("NORMAL", "NORMALE"))


def test_a_table_without_its_column(bench: Bench) -> None:
    bench.put(WHOLE, "path,label,person,split")
    assert "manifest.csv line 1: no column 'patient'; the columns there are: path, label, person, split" in bench.refused()


def test_a_table_without_labels_or_lines(bench: Bench) -> None:
    bench.put(WHOLE, "path,class,patient,split")
    assert "manifest.csv line 1: needs either a column 'label' or a column 'labels'" in bench.refused()
    bench.put([])
    assert "manifest.csv: has a header but no row" in bench.refused()


def test_a_file_that_is_not_there(bench: Bench) -> None:
    bench.put(WHOLE)
    (bench.root / "5.png").unlink()
    message = bench.refused()
    assert "manifest.csv line 7" in message
    assert "5.png; bring the file there or remove the line" in message


def test_no_file_of_a_class_is_an_image(bench: Bench) -> None:
    bench.put(WHOLE)
    for number in range(1, 12, 2):
        (bench.root / f"{number}.png").write_text("hello")
    assert "no image of the class 'SICK' can be read; of the first, 1.png: " in bench.refused()


def test_a_split_that_leaks(bench: Bench) -> None:
    rows = [row.replace("train", "test") if number > 7 else row for number, row in enumerate(WHOLE)]
    bench.put([*rows, "12.png,SICK,p1,test"])
    message = bench.refused()
    assert "1 patient(s) and 0 pair(s) of nearly identical images stand on both sides of the split" in message
    assert "source.allow_leakage = true" in message


def test_a_split_without_a_class_on_one_side(bench: Bench) -> None:
    rows = [row.replace("train", "test") if number in (8, 10) else row for number, row in enumerate(WHOLE)]
    bench.put(rows)
    assert (
        "the data set's own test split has no image of the class 'SICK'; draw patients by source.official_split = false" in bench.refused()
    )


def test_folds_beside_a_test_split(bench: Bench) -> None:
    bench.put([row.replace("train", "test") if number > 7 else row for number, row in enumerate(WHOLE)])
    assert "which cross-validation would mix with the rest; set source.folds = 0" in bench.refused(BINARY + "\nfolds = 3")


def test_more_folds_than_patients(bench: Bench) -> None:
    bench.put(WHOLE)
    assert "source.folds = 40 needs as many patients, and there are 12; lower source.folds" in bench.refused(BINARY + "\nfolds = 40")


def test_two_classes_at_once(bench: Bench) -> None:
    bench.put([*WHOLE, "12.png,NORMAL|SICK,p12,train"], "path,labels,patient,split")
    message = bench.refused()
    assert "manifest.csv line 14: the image is 'NORMAL' and 'SICK' at once, and task 'binary' needs one" in message


def test_a_finding_beside_none(bench: Bench) -> None:
    rows = ["0.png,mass|nodule,p0", "1.png,healthy,p1", "2.png,healthy|mass,p2", "3.png,,p3"]
    bench.put(rows, "path,labels,patient")
    assert "manifest.csv line 4: 'healthy' stands beside 'mass'; remove one of them" in bench.refused(FINDINGS, "multilabel")


def test_a_finding_that_every_image_has(bench: Bench) -> None:
    bench.put([f"{number}.png,mass{'|nodule' * (number % 2)},p{number}" for number in range(8)], "path,labels,patient")
    assert "every image has the label 'mass', so that nothing tells it apart" in bench.refused(FINDINGS, "multilabel")


def test_too_few_patients_to_choose_an_operating_point(bench: Bench) -> None:
    bench.put([row.replace(",train", "") for row in WHOLE[:4]], "path,label,patient")
    message = bench.refused()
    assert "only 1 patient(s) with the label 'NORMAL' would be held out, and at least 2 are needed" in message
    assert "set source.folds" in message
