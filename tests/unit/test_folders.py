"""Reading one folder per class: patients, copies, unreadable files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from edge_agent.errors import ConfigError
from edge_agent.imaging.preprocess import InputContract
from model_build.config import SourceConfig
from model_build.data.folders import read_folders

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
    images = read_folders(root, SOURCE, CONTRACT)
    assert images.pixels.shape == (6, 32, 48, 1)
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [entry.patient for entry in images.files] == ["p0", "p1", "p2", "p10", "p11", "p12"]
    assert images.dropped == []


def test_the_fingerprint_follows_the_bytes_and_the_labels(root: Path) -> None:
    first = read_folders(root, SOURCE, CONTRACT).fingerprint
    assert read_folders(root, SOURCE, CONTRACT).fingerprint == first
    put(root, "SICK", "p12_a.png", 99)
    assert read_folders(root, SOURCE, CONTRACT).fingerprint != first


def test_a_copy_is_kept_once_and_named(root: Path) -> None:
    (root / "SICK" / "p13_copy.png").write_bytes((root / "SICK" / "p10_a.png").read_bytes())
    images = read_folders(root, SOURCE, CONTRACT)
    assert len(images.files) == 6
    assert images.dropped == ["SICK/p13_copy.png: same bytes as SICK/p10_a.png"]


def test_an_unreadable_file_is_left_out_and_named(root: Path) -> None:
    (root / "SICK" / "p14_a.png").write_text("hello")
    images = read_folders(root, SOURCE, CONTRACT)
    assert len(images.files) == 6
    assert len(images.dropped) == 1
    assert images.dropped[0].startswith("SICK/p14_a.png: ")


def test_one_image_under_two_labels_is_refused(root: Path) -> None:
    (root / "SICK" / "p15_a.png").write_bytes((root / "NORMAL" / "p0_a.png").read_bytes())
    with pytest.raises(ConfigError, match=r"p0_a\.png and SICK/p15_a\.png"):
        read_folders(root, SOURCE, CONTRACT)


def test_a_name_without_a_patient_is_refused(root: Path) -> None:
    put(root, "SICK", "unknown.png", 50)
    with pytest.raises(ConfigError, match=r"unknown\.png"):
        read_folders(root, SOURCE, CONTRACT)


def test_missing_and_empty_classes_are_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder 'OTHER'"):
        read_folders(root, msgspec.structs.replace(SOURCE, labels=["NORMAL", "OTHER"]), CONTRACT)
    (root / "EMPTY").mkdir()
    with pytest.raises(ConfigError, match="has no image"):
        read_folders(root, msgspec.structs.replace(SOURCE, labels=["NORMAL", "EMPTY"]), CONTRACT)
    (root / "EMPTY" / "p1_a.png").write_text("no image")
    with pytest.raises(ConfigError, match="can be read"):
        read_folders(root, msgspec.structs.replace(SOURCE, labels=["NORMAL", "EMPTY"]), CONTRACT)


def test_a_pattern_that_is_no_pattern(root: Path) -> None:
    with pytest.raises(ConfigError, match="regular expression"):
        read_folders(root, msgspec.structs.replace(SOURCE, patient_pattern="("), CONTRACT)


def test_the_shipped_config_names_kermany_patients(real_data: Path, repository: Path) -> None:
    import re

    from model_build.config import load_build_config

    config = load_build_config(repository / "model_build" / "configs" / "cxr-pneumonia.toml")
    pattern = re.compile(config.source.patient_pattern)
    names = {label: [p.name for p in (real_data / "kermany" / "train" / label).iterdir()] for label in config.source.labels}
    assert {label: len(found) for label, found in names.items()} == {"NORMAL": 1341, "PNEUMONIA": 3875}
    patients = {label: {match.group(1) for name in found if (match := pattern.search(name))} for label, found in names.items()}
    assert all(pattern.search(name) for found in names.values() for name in found)
    assert not patients["NORMAL"] & patients["PNEUMONIA"]
    assert len(patients["PNEUMONIA"]) < 3875
