"""The audit: what it finds in made-up data sets with known faults, and that it names nobody."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model_build.cli import cli
from model_build.config import SourceConfig
from model_build.data.audit.audit import Audit, audit_examples
from model_build.data.audit.pseudonyms import Pseudonyms
from model_build.data.audit.shortcuts import Shortcut, measure_shortcuts
from model_build.data.audit.text import alarms_of, render_audit
from model_build.data.layouts.reading import list_examples
from model_build.data.phantom.draw import draw_phantom
from model_build.data.similarity import HASH_LIMIT_BITS, hamming_pairs, near_identical_pairs, thumbnail

PATTERN = r"^(p\d+)"
SOURCE = SourceConfig(labels=["NORMAL", "SICK"], positive=["SICK"], patient_pattern=PATTERN, title="t", licence="l", attribution="a")


def texture(seed: int) -> Image.Image:
    """Smooth noise: like no other seed's, and the same picture after JPEG or resizing."""
    grain = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    return Image.fromarray(grain).resize((96, 96), Image.Resampling.BICUBIC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six patients, with one fault of each kind."""
    for label, first in (("NORMAL", 0), ("SICK", 10)):
        (tmp_path / label).mkdir()
        for number in range(first, first + 3):
            texture(number).save(tmp_path / label / f"p{number}_a.png")
    (tmp_path / "NORMAL" / "p0_copy.png").write_bytes((tmp_path / "NORMAL" / "p0_a.png").read_bytes())
    texture(10).save(tmp_path / "SICK" / "p12_other.jpg", quality=60)
    texture(1).resize((60, 50)).save(tmp_path / "SICK" / "p11_resized.png")
    (tmp_path / "SICK" / "p13_broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path


def audit(root: Path, **options: object) -> Audit:
    examples = list_examples(root, "folders", labels=["NORMAL", "SICK"], patient_pattern=PATTERN)
    return audit_examples(root, examples, **options)  # type: ignore[arg-type]


def test_counts_sizes_modes_and_unreadable_files(root: Path) -> None:
    found = audit(root)
    assert (found.images, found.patients) == (9, 6)
    assert msgspec.to_builtins(found.counts) == {"all": {"NORMAL": {"images": 4, "patients": 3}, "SICK": {"images": 5, "patients": 3}}}
    assert found.sizes == {"96x96": 8, "50x60": 1}
    assert found.modes == {"PNG L": 8, "JPEG L": 1}
    assert [entry.file for entry in found.unreadable] == ["SICK/p13_broken.png"]


def test_copies_near_copies_and_conflicts(root: Path) -> None:
    found = audit(root)
    assert [(group.files, group.across_patients) for group in found.identical] == [(["NORMAL/p0_a.png", "NORMAL/p0_copy.png"], False)]
    near = {tuple(group.files): (group.labels, group.across_patients) for group in found.near_identical}
    assert near == {
        ("NORMAL/p1_a.png", "SICK/p11_resized.png"): (["NORMAL", "SICK"], True),
        ("SICK/p10_a.png", "SICK/p12_other.jpg"): (["SICK"], True),
    }
    assert [group.files for group in found.label_conflicts] == [["NORMAL/p1_a.png", "SICK/p11_resized.png"]]
    assert any("different labels" in alarm for alarm in alarms_of(found))


def test_leakage_across_the_data_sets_own_split(root: Path) -> None:
    for split, number, seed in (("train", 1, 1), ("train", 2, 2), ("test", 2, 3), ("test", 4, 1)):
        path = root / "parts" / split / "NORMAL" / f"p{number}_{split}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        texture(seed).save(path)
    found = audit_examples(root / "parts", list_examples(root / "parts", "folders", patient_pattern=PATTERN))
    assert list(found.counts) == ["test", "train"]
    assert found.patients_in_several_splits == ["p2"]
    assert [group.across_splits for group in found.identical] == [True]
    assert len(alarms_of(found)) == 2


def test_the_split_is_the_one_that_training_draws(root: Path) -> None:
    found = audit(root, source=SOURCE, seed=1)
    assert {side: sum(cell.patients for cell in cells.values()) for side, cells in found.counts.items()} == {"held out": 2, "training": 4}
    assert found.patients_in_several_splits == []


def test_folds_and_grouped_near_copies_are_those_of_training(root: Path) -> None:
    folds = msgspec.structs.replace(SOURCE, folds=3)
    found = audit(root, source=folds, seed=1)
    assert {side: sum(cell.patients for cell in cells.values()) for side, cells in found.counts.items()} == {
        "fold 1": 2,
        "fold 2": 2,
        "fold 3": 2,
    }
    assert any(group.across_splits for group in found.near_identical)
    texture(20).save(root / "SICK" / "p20_a.png")
    grouped = audit(root, source=msgspec.structs.replace(folds, folds=2, group_near_copies=True), seed=1)
    assert len(grouped.near_identical) == 2
    assert not any(group.across_splits for group in grouped.near_identical)


def test_findings_are_counted_each_and_none_is_told(tmp_path: Path) -> None:
    for number in range(8):
        texture(number).save(tmp_path / f"{number}.png")
    rows = [
        f"{number}.png,{findings},p{number}" for number, findings in enumerate(["mass", "mass|nodule", "nodule", "", "", "", "", "hernia"])
    ]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,labels,patient", *rows]) + "\n")
    examples = list_examples(tmp_path, "manifest")
    assert {label: cell.images for label, cell in audit_examples(tmp_path, examples).counts["all"].items()} == {
        "hernia": 1,
        "mass": 2,
        "no label": 4,
        "nodule": 2,
    }
    source = msgspec.structs.replace(
        SOURCE, layout="manifest", labels=["mass", "nodule"], leave_out=["hernia"], patient_pattern="", folds=2
    )
    found = audit_examples(tmp_path, examples, source=source, task="multilabel")
    assert found.outside_the_build == 0
    assert sum(cells["no label"].images for cells in found.counts.values()) == 5


def test_files_and_patients_are_hashed_unless_asked_for_by_name(root: Path) -> None:
    first, second = (CliRunner().invoke(cli, ["audit", str(root), "--patient-pattern", PATTERN, "--format", "json"]) for _ in range(2))
    assert first.exit_code == 0, first.output
    found = json.loads(first.stdout)
    assert "_a.png" not in first.stdout
    assert found["identical"][0]["files"][0].startswith("file-")
    assert json.loads(second.stdout)["identical"] != found["identical"], "the salt is new for every run"
    named = CliRunner().invoke(cli, ["audit", str(root), "--patient-pattern", PATTERN, "--names"])
    assert "SICK/p13_broken.png: " in named.stdout
    assert "NORMAL/p0_a.png = NORMAL/p0_copy.png  [NORMAL]" in named.stdout


def test_pseudonyms_keep_kinds_apart_and_need_the_salt() -> None:
    names = Pseudonyms(b"one")
    assert names.patient("p1") == names.patient("p1") != names.patient("p2")
    assert names.file(Path("p1")).removeprefix("file-") != names.patient("p1").removeprefix("patient-")
    assert Pseudonyms(b"two").patient("p1") != names.patient("p1")


def test_wrong_calls(root: Path, repository: Path) -> None:
    config = repository / "model_build" / "configs" / "cxr-pneumonia.toml"
    both = CliRunner().invoke(cli, ["audit", str(root), "--config", str(config), "--layout", "nih"])
    assert both.exit_code == 2
    assert "--config sets layout" in both.stderr
    assert CliRunner().invoke(cli, ["audit", str(root), "--layout", "files"]).exit_code == 2
    missing = CliRunner().invoke(cli, ["audit", str(root / "nowhere")])
    assert "no such folder" in str(missing.exception)


def test_a_file_that_vanishes_is_unreadable(root: Path) -> None:
    examples = list_examples(root, "folders", patient_pattern=PATTERN)
    (root / "NORMAL" / "p2_a.png").unlink()
    reasons = {entry.file: entry.reason for entry in audit_examples(root, examples).unreadable}
    assert "No such file" in reasons["NORMAL/p2_a.png"]


def test_the_text_says_that_patients_are_unknown(root: Path) -> None:
    examples = list_examples(root, "folders")
    text = render_audit(audit_examples(root, examples, patients_known=False, pseudonyms=Pseudonyms()))
    assert "every file counts as one" in text
    assert "too few patients to measure" in text
    assert "p13" not in text


class TestShortcuts:
    def measured(self, mean_of_sick: float, patient_count: int = 60) -> list[Shortcut]:
        draw = np.random.default_rng(3)
        sick = np.arange(patient_count) % 2 == 1
        mean = draw.normal(np.where(sick, mean_of_sick, 100.0), 10.0)
        properties = np.stack([draw.integers(1000, 2000, patient_count), *np.full((2, patient_count), 64), mean], axis=1)
        return measure_shortcuts(properties, np.stack([~sick, sick], axis=1), ["NORMAL", "SICK"], [f"p{n}" for n in range(patient_count)])

    def test_a_class_that_brightness_tells_raises_the_alarm(self) -> None:
        (found,) = self.measured(mean_of_sick=150.0)
        assert (found.label, found.alarm) == ("SICK", True)
        assert found.mean_intensity > 0.95
        assert found.image_size == 0.5
        assert 0.2 < found.file_size < 0.75

    def test_no_alarm_where_nothing_tells(self) -> None:
        (found,) = self.measured(mean_of_sick=100.0)
        assert not found.alarm

    def test_few_patients_are_not_measured(self) -> None:
        assert self.measured(mean_of_sick=150.0, patient_count=30) == []

    def test_findings_are_measured_at_once_and_each_by_itself(self) -> None:
        draw = np.random.default_rng(5)
        targets = draw.random((200, 3)) < [0.5, 0.3, 0.02]
        properties = np.stack([1000 + 500 * targets[:, 1] + draw.integers(0, 300, 200), *np.full((2, 200), 64), draw.random(200)], axis=1)
        found = measure_shortcuts(properties, targets, ["mass", "nodule", "hernia"], [f"p{n}" for n in range(200)])
        assert [(shortcut.label, shortcut.alarm) for shortcut in found] == [("mass", False), ("nodule", True)]
        assert found[1].file_size > 0.95


class TestSimilarity:
    @settings(deadline=None, max_examples=40)
    @given(st.integers(0, 2**32), st.integers(0, 60))
    def test_the_search_finds_what_comparing_all_finds(self, seed: int, count: int) -> None:
        draw = np.random.default_rng(seed)
        hashes = draw.integers(0, 2**63, count, dtype=np.uint64)
        for index in range(1, count, 2):  # every second one: its neighbour with up to twelve bits changed
            flips = draw.choice(64, draw.integers(0, 13), replace=False)
            hashes[index] = hashes[index - 1] ^ np.bitwise_or.reduce(np.uint64(1) << flips.astype(np.uint64), initial=np.uint64(0))
        values = hashes.tolist()
        expected = [[i, j] for i in range(count) for j in range(i + 1, count) if (values[i] ^ values[j]).bit_count() <= HASH_LIMIT_BITS]
        assert hamming_pairs(hashes).tolist() == expected

    def test_different_phantoms_are_not_called_the_same(self) -> None:
        thumbnails = np.stack([thumbnail(draw_phantom(seed, rows=96, columns=96)) for seed in range(4)])
        assert near_identical_pairs(thumbnails)[0].tolist() == []

    def test_images_without_contrast_are_like_no_other(self) -> None:
        assert near_identical_pairs(np.zeros((5, 32, 32), np.uint8))[0].tolist() == []

    def test_242_mammograms_hold_no_pair(self, real_data: Path) -> None:
        folder = real_data / "mini_mias" / "images"
        thumbnails = np.stack([thumbnail(np.asarray(Image.open(path).convert("L"))) for path in sorted(folder.iterdir())])
        assert len(thumbnails) == 242
        assert near_identical_pairs(thumbnails)[0].tolist() == []
