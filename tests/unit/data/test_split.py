"""Splits keep patients whole, spread every class, and say which class they cannot place."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.errors import ConfigError
from model_build.config import SourceConfig
from model_build.data.classes import strata_of, targets_of
from model_build.data.example import Split
from model_build.data.images import LabelledFile
from model_build.data.split import cross_validation_folds, hold_out, hold_out_patients, patient_folds

SOURCE = SourceConfig(labels=["mass", "nodule", "hernia"], layout="manifest", title="t", licence="l", attribution="a", folds=3)


def file(number: int, labels: tuple[int, ...], patient: str, split: Split | None = None) -> LabelledFile:
    return LabelledFile(path=Path(f"{number}.png"), labels=labels, patient=patient, sha256=str(number), split=split)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 25)), min_size=1, max_size=120), st.integers(2, 6), st.integers(0, 9))
def test_folds_keep_patients_whole_and_strata_even(images: Sequence[tuple[int, int]], fold_count: int, seed: int) -> None:
    strata, patients = np.array([stratum for stratum, _ in images]), [f"p{number}" for _, number in images]
    folds = patient_folds(strata, patients, fold_count, seed)
    of_patient = dict(zip(patients, folds.tolist(), strict=True))
    assert [of_patient[name] for name in patients] == folds.tolist()
    sizes = np.bincount(list(of_patient.values()), minlength=fold_count)
    assert sizes.max() - sizes.min() <= 1
    assert len(sizes) == fold_count


def test_the_patients_of_every_class_are_spread_over_the_folds() -> None:
    patients = [f"p{number}" for number in range(60) for _ in range(2)]
    strata = np.repeat(np.arange(60) % 12 == 0, 2).astype(np.int64)
    folds = patient_folds(strata, patients, 5, seed=3)
    assert np.bincount(folds[strata == 1], minlength=5).tolist() == [2, 2, 2, 2, 2]


def test_hold_out_keeps_patients_whole() -> None:
    patients = [f"p{i // 3}" for i in range(90)]
    strata = np.array([(i // 3) % 2 for i in range(90)])
    held_out = hold_out_patients(strata, patients, 0.2, 7)
    assert held_out.sum() == 18
    for start in range(0, 90, 3):
        assert len(set(held_out[start : start + 3].tolist())) == 1


def test_the_split_does_not_depend_on_the_order_of_the_images() -> None:
    patients = [f"p{i // 2}" for i in range(40)]
    strata = np.array([(i // 2) % 2 for i in range(40)])
    order = np.random.default_rng(0).permutation(40)
    shuffled = [patients[i] for i in order]
    first = {p for p, held in zip(patients, hold_out_patients(strata, patients, 0.25, 3), strict=True) if held}
    again = {p for p, held in zip(shuffled, hold_out_patients(strata[order], shuffled, 0.25, 3), strict=True) if held}
    assert first == again
    folds = dict(zip(patients, patient_folds(strata, patients, 4, 3).tolist(), strict=True))
    assert dict(zip(shuffled, patient_folds(strata[order], shuffled, 4, 3).tolist(), strict=True)) == folds


def test_a_patient_counts_with_the_rarest_of_his_strata() -> None:
    """Three patients have the rare finding, each beside images of the common one: the rare one must not fall on one side."""
    patients = [f"p{i // 3}" for i in range(30)]
    strata = np.zeros(30, np.int64)
    strata[[0, 3, 6]] = 1
    for seed in range(20):
        held_out = hold_out_patients(strata, patients, 0.3, seed)
        assert 0 < held_out[strata == 1].sum() < 3


def test_a_patient_alone_in_a_stratum_is_trained_on() -> None:
    assert hold_out_patients(np.array([0, 0, 1]), ["a", "b", "c"], 0.5, 0).tolist()[2] is False


def test_the_stratum_is_the_rarest_finding() -> None:
    targets = targets_of([(0,), (0, 1), (), (0, 2), (1, 2), (0,)], 3)
    assert targets.sum(axis=0).tolist() == [4, 2, 2]
    assert strata_of(targets).tolist() == [0, 1, 3, 2, 1, 0]


def test_a_class_that_no_split_can_show_on_both_sides_is_named() -> None:
    files = [file(i, (0,) if i % 2 else (1,), f"p{i}") for i in range(10)]
    # The only two images with a hernia are those of one patient, whose rarest finding it is.
    files += [file(10, (0, 2), "p10"), file(11, (2,), "p10")]
    with pytest.raises(ConfigError, match="the drawn held-out split has no image of the class 'hernia'; take another seed or give more"):
        hold_out(files, SOURCE, seed=1)
    with pytest.raises(
        ConfigError, match=r"the drawn training \(fold \d of 3\) split has no image of the class 'hernia'; lower source.folds"
    ):
        cross_validation_folds(files, SOURCE, seed=1)
    files.append(file(12, (2,), "p12"))
    held_out, official = hold_out(files, SOURCE, seed=1)
    assert not official
    assert targets_of([entry.labels for entry in files], 3)[held_out].any(axis=0).all()
    assert set(cross_validation_folds(files, SOURCE, seed=1).tolist()) == {0, 1, 2}


def test_a_finding_that_every_image_of_a_side_has_is_refused() -> None:
    files = [file(i, (0, 1) if i == 0 else (0,), f"p{i}", "train") for i in range(4)]
    files += [file(i, (0, 1), f"p{i}", "test") for i in range(4, 8)]
    source = msgspec.structs.replace(SOURCE, labels=["mass", "nodule"])
    with pytest.raises(ConfigError, match="every image of the data set's own training split has the label 'mass'"):
        hold_out(files, source, seed=1)


def test_cross_validation_does_not_mix_a_test_split_into_the_rest() -> None:
    files = [file(i, (i % 3,), f"p{i}", "test" if i > 20 else "train") for i in range(30)]
    with pytest.raises(ConfigError, match=r"test split of its own.*source\.folds = 0.*official_split = false"):
        cross_validation_folds(files, SOURCE, seed=1)
    folds = cross_validation_folds(files, msgspec.structs.replace(SOURCE, official_split=False), seed=1)
    assert np.bincount(folds).tolist() == [10, 10, 10]
