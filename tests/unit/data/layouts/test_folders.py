"""Reading the images of one folder per class: patients, copies, unreadable files, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from edge_agent.errors import ConfigError
from edge_agent.imaging.preprocess import InputContract
from model_build.config import SourceConfig, load_build_config
from model_build.data import images as image_reading
from model_build.data.example import Example
from model_build.data.images import SAME_BYTES, LeftOut, read_images
from model_build.data.layouts.reading import list_examples, list_source
from model_build.data.split import hold_out, hold_out_patients, refuse_leakage

SOURCE = SourceConfig(
    labels=["NORMAL", "SICK"], positive=["SICK"], patient_pattern=r"^(p\d+)", title="t", licence="l", attribution="a", held_out_fraction=0.2
)
CONTRACT = InputContract(rows=32, columns=48)


def put(root: Path, label: str, name: str, seed: int) -> Path:
    path = root / label / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (60, 70), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(3):
        put(tmp_path, "NORMAL", f"p{number}_a.png", number)
        put(tmp_path, "SICK", f"p{number + 10}_a.png", number + 10)
    return tmp_path


def test_reads_every_class(root: Path) -> None:
    images = read_images(root, SOURCE, CONTRACT, task="binary")
    assert images.pixels.shape == (6, 32, 48, 1)
    assert images.targets.tolist() == [[True, False]] * 3 + [[False, True]] * 3
    assert images.strata.tolist() == [0, 0, 0, 1, 1, 1]
    assert [entry.patient for entry in images.files] == ["p0", "p1", "p2", "p10", "p11", "p12"]
    assert images.left_out == []


def test_the_fingerprint_follows_the_bytes_and_the_labels(root: Path) -> None:
    first = read_images(root, SOURCE, CONTRACT, task="binary").fingerprint
    assert read_images(root, SOURCE, CONTRACT, task="binary").fingerprint == first
    put(root, "SICK", "p12_a.png", 99)
    assert read_images(root, SOURCE, CONTRACT, task="binary").fingerprint != first


def test_a_copy_is_kept_once_and_named(root: Path) -> None:
    (root / "SICK" / "p13_copy.png").write_bytes((root / "SICK" / "p10_a.png").read_bytes())
    images = read_images(root, SOURCE, CONTRACT, task="binary")
    assert len(images.files) == len(images.pixels) == 6
    assert images.left_out == [LeftOut(Path("SICK/p13_copy.png"), SAME_BYTES)]


def test_an_unreadable_file_is_left_out_and_counted_without_its_name(root: Path) -> None:
    (root / "SICK" / "p14_a.png").write_text("hello")
    images = read_images(root, SOURCE, CONTRACT, task="binary")
    assert len(images.files) == 6
    assert [entry.path.name for entry in images.left_out] == ["p14_a.png"]
    assert list(images.left_out_counts().values()) == [1]
    assert "p14" not in str(images.left_out_counts())


def test_a_file_that_vanishes_before_it_is_read_is_left_out(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def list_and_remove(folder: Path, source: SourceConfig) -> list[Example]:
        found = list_source(folder, source)
        (folder / "SICK" / "p12_a.png").unlink()
        return found

    monkeypatch.setattr(image_reading, "list_source", list_and_remove)
    images = read_images(root, SOURCE, CONTRACT, task="binary")
    assert len(images.files) == 5
    assert [str(entry.path) for entry in images.left_out] == ["SICK/p12_a.png"]


def test_one_image_under_two_labels_is_refused(root: Path) -> None:
    (root / "SICK" / "p15_a.png").write_bytes((root / "NORMAL" / "p0_a.png").read_bytes())
    with pytest.raises(ConfigError, match=r"SICK/p15_a\.png is the same image as NORMAL/p0_a\.png .* under other labels"):
        read_images(root, SOURCE, CONTRACT, task="binary")


def test_a_name_without_a_patient_is_refused(root: Path) -> None:
    put(root, "SICK", "unknown.png", 50)
    with pytest.raises(ConfigError, match=r"unknown\.png"):
        read_images(root, SOURCE, CONTRACT, task="binary")


def test_missing_and_empty_classes_are_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="no folder 'OTHER'"):
        read_images(root, msgspec.structs.replace(SOURCE, labels=["NORMAL", "OTHER"]), CONTRACT, task="binary")
    (root / "EMPTY").mkdir()
    with pytest.raises(ConfigError, match="has no image"):
        read_images(root, msgspec.structs.replace(SOURCE, labels=["NORMAL", "EMPTY"]), CONTRACT, task="binary")
    (root / "EMPTY" / "p1_a.png").write_text("no image")
    with pytest.raises(ConfigError, match="can be read"):
        read_images(root, msgspec.structs.replace(SOURCE, labels=["NORMAL", "EMPTY"]), CONTRACT, task="binary")


def test_a_class_of_one_patient_is_refused(root: Path) -> None:
    put(root, "ONE", "p20_a.png", 20)
    put(root, "ONE", "p20_b.png", 21)
    with pytest.raises(ConfigError, match=r"'ONE' \(ONE/p20_a\.png is the first\) belong to one patient; at least 2"):
        read_images(root, msgspec.structs.replace(SOURCE, labels=["NORMAL", "ONE"]), CONTRACT, task="binary")


def test_a_pattern_that_is_no_pattern(root: Path) -> None:
    with pytest.raises(ConfigError, match="regular expression"):
        read_images(root, msgspec.structs.replace(SOURCE, patient_pattern="("), CONTRACT, task="binary")


def test_folders_train_and_test_are_the_data_sets_own_split(tmp_path: Path) -> None:
    for number, split in enumerate(("train", "train", "test", "test")):
        put(tmp_path / split, "NORMAL", f"p{number}.png", number)
        put(tmp_path / split, "SICK", f"p{number + 10}.png", number + 10)
    files = read_images(tmp_path, SOURCE, CONTRACT, task="binary").files
    held_out, official = hold_out(files, SOURCE, seed=1)
    assert official
    assert {entry.patient for entry, taken in zip(files, held_out, strict=True) if taken} == {"p2", "p3", "p12", "p13"}
    drawn, official = hold_out(files, msgspec.structs.replace(SOURCE, official_split=False), seed=1)
    assert not official
    assert drawn.sum() == 2


def test_a_patient_on_both_sides_is_refused_unless_allowed(tmp_path: Path) -> None:
    for split, number in (("train", 0), ("train", 1), ("test", 1), ("test", 2)):
        put(tmp_path / split, "NORMAL", f"p{number}_{split}.png", number + (split == "test"))
        put(tmp_path / split, "SICK", f"p{number + 10}_{split}.png", number + 10 + 5 * (split == "test"))
    images = read_images(tmp_path, SOURCE, CONTRACT, task="binary")
    held_out, _ = hold_out(images.files, SOURCE, seed=1)
    with pytest.raises(ConfigError, match=r"2 patient\(s\) and 0 pair\(s\).*allow_leakage"):
        refuse_leakage(images, held_out, SOURCE)
    assert "which the config allows" in refuse_leakage(images, held_out, msgspec.structs.replace(SOURCE, allow_leakage=True))


def test_nearly_the_same_image_of_another_patient_across_the_split_is_refused(root: Path) -> None:
    pixels = np.asarray(Image.open(root / "SICK" / "p10_a.png"))
    Image.fromarray(np.minimum(pixels, 250)).save(root / "SICK" / "p19_a.png")
    images = read_images(root, SOURCE, CONTRACT, task="binary")
    held_out = np.array([entry.patient == "p10" for entry in images.files])
    with pytest.raises(ConfigError, match=r"0 patient\(s\) and 1 pair\(s\)"):
        refuse_leakage(images, held_out, SOURCE)
    assert "0 pair(s)" in refuse_leakage(images, np.zeros(len(images.files), np.bool_), SOURCE)


def test_the_shipped_config_names_kermany_patients(real_data: Path, repository: Path) -> None:
    source = load_build_config(repository / "model_build" / "configs" / "cxr-pneumonia.toml").source
    examples = list_examples(real_data / "kermany" / "train", source.layout, labels=source.labels, patient_pattern=source.patient_pattern)
    of_label = {label: [example for example in examples if example.labels == (label,)] for label in source.labels}
    assert {label: len(found) for label, found in of_label.items()} == {"NORMAL": 1341, "PNEUMONIA": 3875}
    patients = {label: {example.patient for example in found} for label, found in of_label.items()}
    assert not patients["NORMAL"] & patients["PNEUMONIA"]
    assert len(patients["PNEUMONIA"]) < 3875
    assert all(re.fullmatch(r"person\d+_(bacteria|virus)|(NORMAL2-)?IM-\d+", name) for found in patients.values() for name in found)
    # The split of the model that ships: another reader must not change it.
    labels = np.array([source.labels.index(example.labels[0]) for example in examples], np.int64)
    held_out = hold_out_patients(labels, [example.patient for example in examples], source.held_out_fraction, 1)
    assert (int(held_out.sum()), len({e.patient for e, taken in zip(examples, held_out, strict=True) if taken})) == (1028, 731)
