"""The images of a build are drawn by class: the same draw for the same seed, from the candidates alone."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.errors import ConfigError
from model_build.data.cohort import draw_labels


def test_the_same_number_of_every_class_is_drawn_from_the_candidates() -> None:
    labels = np.arange(60) % 3
    candidates = np.arange(60) < 45
    drawn = draw_labels(labels, candidates, 4, seed=1)
    assert np.bincount(labels[drawn]).tolist() == [4, 4, 4]
    assert not (drawn & ~candidates).any()
    assert (drawn == draw_labels(labels, candidates, 4, seed=1)).all()
    assert (drawn != draw_labels(labels, candidates, 4, seed=2)).any()


def test_more_labels_than_there_are_cannot_be_drawn() -> None:
    strata, everything = np.array([0] * 9 + [1] * 3), np.ones(12, dtype=np.bool_)
    with pytest.raises(ConfigError, match=r"asks for 5 images; the class 1 has 3 to train on"):
        draw_labels(strata, everything, 5, seed=0)
    with pytest.raises(ConfigError, match=r"asks for 5 images; the class 'nodule' has 3 to train on"):
        draw_labels(strata, everything, 5, seed=0, labels=["mass", "nodule"])
    with pytest.raises(ConfigError, match=r"the class 'no finding' has 3 to train on"):
        draw_labels(strata, everything, 5, seed=0, labels=["mass"])


def test_all_images_of_a_rare_class_are_drawn_where_that_is_asked_for() -> None:
    strata, candidates = np.array([0] * 9 + [1] * 3 + [2]), np.arange(13) < 12
    drawn = draw_labels(strata, candidates, 5, seed=0, or_all=True)
    assert np.bincount(strata[drawn], minlength=3).tolist() == [5, 3, 0]
    assert (drawn[:9] == draw_labels(strata[:9], candidates[:9], 5, seed=0)).all()
