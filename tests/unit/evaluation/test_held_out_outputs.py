"""What a run keeps of its held-out images: the worst mistakes, and no name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from support.run_folders import draw_run

from edge_agent.errors import ConfigError
from edge_agent.inference.manifest import OperatingPoint
from model_build.evaluation.held_out_outputs import read_held_out, worst_mistakes

POINTS = [OperatingPoint(labels=[label], threshold=0.5, target="tests", review_low=0.4, review_high=0.6) for label in ("Effusion", "Mass")]


def test_worst_mistakes_are_the_most_certain_ones_over_all_points() -> None:
    probabilities = np.array([[0.95, 0.1], [0.55, 0.1], [0.2, 0.01], [0.02, 0.7], [0.6, 0.1]], np.float32)
    targets = np.array([[1, 0], [1, 0], [1, 1], [0, 0], [0, 0]], np.bool_)
    positions, points = worst_mistakes(POINTS, ["Effusion", "Mass"], probabilities, targets)
    assert (positions.tolist(), points.tolist()) == ([2, 2, 3, 4], [1, 0, 1, 0])
    missed, _ = worst_mistakes(POINTS[:1], ["Effusion"], np.full((20, 1), 0.1, np.float32), np.ones((20, 1), np.bool_))
    assert len(missed) == 6


def test_held_out_images_are_kept_without_names_and_in_step(tmp_path: Path) -> None:
    run = draw_run(tmp_path, "binary", count=90)
    path = tmp_path / "held_out.npz"
    kept = read_held_out(path)
    files = [run.images.files[index] for index in kept.indices.tolist()]
    assert np.array_equal(kept.targets, run.images.targets[kept.indices])
    assert [entry.view for entry in files] == kept.views.tolist()
    assert [entry.age_years or -1 for entry in files] == [age or -1 for age in kept.ages_years.tolist()]
    names = [entry.patient for entry in files]
    for first in range(1, len(names)):
        assert (names[first] == names[first - 1]) == (kept.patients[first] == kept.patients[first - 1])
    with np.load(path) as arrays:
        text = " ".join(str(arrays[name].tolist()) for name in arrays.files)
    assert not any(f"'{name}" in text for name in names)
    path.write_bytes(b"no archive")
    with pytest.raises(ConfigError, match=r"held_out\.npz: is not what a build wrote"):
        read_held_out(path)
