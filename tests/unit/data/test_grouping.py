"""Near copies become one patient, over however many steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from edge_agent.imaging.preprocess import InputContract
from model_build.config import SourceConfig
from model_build.data.grouping import group_near_copies, join_patients
from model_build.data.images import read_images

SOURCE = SourceConfig(labels=["A", "B"], positive=["B"], patient_pattern=r"^(p\d+)", title="t", licence="l", attribution="a")


def test_patients_are_joined_over_several_steps() -> None:
    patients = ["p1", "p2", "p3", "p4", "p4", "p5"]
    assert join_patients(patients, []) == patients
    # p3 = p1 by the first pair, p4 = p3 by the second: all of p4's images follow.
    assert join_patients(patients, [(2, 0), (3, 2)]) == ["p1", "p2", "p1", "p1", "p1", "p5"]
    assert join_patients(patients, [(3, 2), (4, 5), (0, 5)]) == ["p1", "p2", "p1", "p1", "p1", "p1"]


def test_images_that_are_nearly_the_same_have_one_patient(tmp_path: Path) -> None:
    for number in range(6):
        folder = tmp_path / "AB"[number % 2]
        folder.mkdir(exist_ok=True)
        film = Image.fromarray(np.random.default_rng(number // 4 * 100 + number).integers(0, 256, (8, 8), dtype=np.uint8)).resize((64, 64))
        film.save(folder / f"p{number}.png")
    Image.open(tmp_path / "A" / "p2.png").point(lambda grey: min(grey, 250)).save(tmp_path / "A" / "p9.png")
    images = read_images(tmp_path, SOURCE, InputContract(rows=48, columns=48), task="binary")
    grouped = group_near_copies(images)
    assert [entry.patient for entry in images.files] == ["p0", "p2", "p4", "p9", "p1", "p3", "p5"]
    assert [entry.patient for entry in grouped.files] == ["p0", "p2", "p4", "p2", "p1", "p3", "p5"]
    assert [entry.path for entry in grouped.files] == [entry.path for entry in images.files]
