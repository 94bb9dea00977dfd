"""The synthetic radiograph: its anatomy measured in grey values, its labels, its promises."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_agent.errors import ConfigError
from model_build.data.phantom.draw import draw_phantom, save_phantom

SEEDS = range(3)


def box(pixels: np.ndarray, x: float, y: float, half: float = 0.025) -> float:
    """Mean grey value around a point in film units: the origin is the centre, 1 is the film's height."""
    rows, columns = pixels.shape
    row, column, reach = round((y + 0.5) * rows), round(x * rows + columns / 2), round(half * rows)
    return float(pixels[row - reach : row + reach, column - reach : column + reach].mean())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_phantom_has_the_greys_of_a_chest(seed: int) -> None:
    film = draw_phantom(seed, rows=512, columns=512)
    assert film.dtype == np.uint8
    assert film.shape == (512, 512)
    right_lung, left_lung = box(film, -0.2, -0.05), box(film, 0.2, -0.10)
    heart, abdomen, air = box(film, 0.06, 0.12), box(film, 0.0, 0.4), box(film, -0.30, -0.46, 0.01)
    assert max(right_lung, left_lung) + 60 < min(heart, abdomen)
    assert air < 40
    # The heart lies to the patient's left, which is the image's right.
    assert box(film, 0.16, 0.1) > box(film, -0.19, 0.1) + 40


@pytest.mark.parametrize("seed", SEEDS)
def test_ribs_cross_the_lung(seed: int) -> None:
    column = draw_phantom(seed)[300:680, 300:340].mean(axis=1)
    waves = column - np.convolve(np.pad(column, 40, mode="edge"), np.ones(81) / 81, mode="valid")
    crossings = np.count_nonzero(np.diff(np.sign(waves)))
    assert crossings >= 8


def test_a_seed_is_a_patient() -> None:
    first = hashlib.sha256(draw_phantom(7, rows=256, columns=256).tobytes()).digest()
    assert hashlib.sha256(draw_phantom(7, rows=256, columns=256).tobytes()).digest() == first
    assert hashlib.sha256(draw_phantom(8, rows=256, columns=256).tobytes()).digest() != first


def test_opacities_whiten_lung_and_leave_the_patient_as_it_is() -> None:
    plain = draw_phantom(3, rows=512, columns=512).astype(int)
    ill = draw_phantom(3, rows=512, columns=512, opacity_count=2).astype(int)
    change = ill - plain
    assert change.max() > 50
    assert np.mean(change > 25) > 0.01
    # Scatter lifts the rest by a grey value or two; the outline, the bones and the noise stand where they stood.
    assert np.mean(np.abs(change) <= 12) > 0.7


@pytest.mark.parametrize(("rows", "columns"), [(32, 32), (224, 224), (1200, 1000), (300, 700)])
def test_every_size_is_given_as_asked(rows: int, columns: int) -> None:
    film = draw_phantom(0, rows=rows, columns=columns)
    assert film.shape == (rows, columns)
    assert film.max() - film.min() > 150


def test_the_picture_and_the_file_say_that_it_is_synthetic(tmp_path: Path) -> None:
    film = draw_phantom(0)
    corner = film[980:1010, 15:170]
    assert np.count_nonzero(corner >= 230) > 300, "SYNTHETIC is not burned in"
    save_phantom(tmp_path / "a.png", 0)
    save_phantom(tmp_path / "a.jpg", 0, rows=200, columns=200)
    with Image.open(tmp_path / "a.png") as png, Image.open(tmp_path / "a.jpg") as jpeg:
        assert png.info["Description"] == "synthetic phantom, seed 0"
        assert jpeg.info["comment"] == b"synthetic phantom, seed 0"
        assert np.array_equal(np.asarray(png), film)
        assert (jpeg.mode, jpeg.size) == ("L", (200, 200))


@pytest.mark.parametrize(("arguments", "message"), [({"rows": 31}, "at least 32"), ({"opacity_count": -1}, "negative")])
def test_impossible_numbers_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        draw_phantom(0, **arguments)


def test_an_unknown_ending_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scan\.bmp: a phantom is written as \.png or \.jpg"):
        save_phantom(tmp_path / "scan.bmp", 0, rows=64, columns=64)


def test_the_command_draws_a_folder_and_needs_no_training_library(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "model_build", "phantom", str(tmp_path / "out"), "--count", "2", "--seed", "5"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split() == [str(tmp_path / "out" / name) for name in ("phantom-0005.png", "phantom-0006.png")]
    assert all((tmp_path / "out" / name).is_file() for name in ("phantom-0005.png", "phantom-0006.png"))
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in run.stderr.splitlines() if line.startswith("import time:")}
    assert "PIL" in loaded
    assert loaded & {"tensorflow", "keras", "sklearn", "matplotlib"} == set()
