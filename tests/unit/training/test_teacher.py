"""A teacher is loaded as it was measured, and refused where it would tell the student of the held-out patients."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_agent.errors import ConfigError, ModelError

keras = pytest.importorskip("keras", reason="TensorFlow is not installed")

from model_build.arrays import pack_arrays  # noqa: E402
from model_build.config import BuildConfig, TrunkConfig, load_build_config  # noqa: E402
from model_build.evaluation.held_out_outputs import HeldOut  # noqa: E402
from model_build.training.teacher import load_teacher  # noqa: E402
from model_build.training.trunk.trunk import TRAINING_HEAD, build_network, save_trunk  # noqa: E402

FINGERPRINT = "ab" * 32
HELD_OUT = np.arange(10) % 5 == 0
IMAGE = np.random.default_rng(0).random((1, 32, 32, 1)).astype(np.float32)


def keep_held_out_indices(path: Path, indices: np.ndarray) -> None:
    nothing = np.zeros(0)
    fields = dict.fromkeys(HeldOut.__dataclass_fields__, nothing)
    path.write_bytes(pack_arrays(**asdict(HeldOut(**(fields | {"indices": indices})))))


@pytest.fixture(scope="module")
def student(repository: Path) -> BuildConfig:
    return load_build_config(repository / "model_build" / "configs" / "cxr-pneumonia.toml")


@pytest.fixture(scope="module")
def finished(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, keras.Model]:
    """A run folder as training leaves it, as far as a teacher needs it, and the model whose weights it holds."""
    run = tmp_path_factory.mktemp("teacher")
    text = (repository / "model_build" / "configs" / "cxr-pneumonia.toml").read_text()
    text = text.replace("block_count = 11", "block_count = 2").replace("rows = 160", "rows = 32").replace("columns = 160", "columns = 32")
    (run / "config.toml").write_text(text)
    trunk = build_network(TrunkConfig(block_count=2), 32, 32)
    model = keras.Model(trunk.input, keras.layers.Dense(2, name=TRAINING_HEAD)(trunk.outputs[0]))
    save_trunk(model, run / "measured-trunk.npz")
    (run / "report.json").write_text(f'{{"name": "cxr-pneumonia", "fingerprint": "{FINGERPRINT}"}}')
    keep_held_out_indices(run / "held_out.npz", np.flatnonzero(HELD_OUT))
    return run, model


@pytest.fixture
def run(finished: tuple[Path, keras.Model], tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(finished[0], tmp_path / "run"))


def test_a_teacher_says_what_was_measured(finished: tuple[Path, keras.Model], student: BuildConfig) -> None:
    folder, model = finished
    teacher = load_teacher(folder, student, fingerprint=FINGERPRINT, held_out=HELD_OUT)
    logits, feature_map = teacher(IMAGE)
    np.testing.assert_allclose(logits, model(IMAGE), rtol=1e-6)
    assert feature_map.shape == (1, 8, 8, 24)
    assert not teacher.trainable_variables


def test_a_teacher_of_other_images_is_refused(run: Path, student: BuildConfig) -> None:
    with pytest.raises(ConfigError, match="trained on other images"):
        load_teacher(run, student, fingerprint="cd" * 32, held_out=HELD_OUT)


def test_a_teacher_that_saw_the_held_out_patients_is_refused(run: Path, student: BuildConfig) -> None:
    with pytest.raises(ConfigError, match=r"held other patients out.*the teacher's is 1"):
        load_teacher(run, student, fingerprint=FINGERPRINT, held_out=~HELD_OUT)


def test_a_teacher_of_other_labels_is_refused(run: Path, student: BuildConfig) -> None:
    other = msgspec.structs.replace(student, source=msgspec.structs.replace(student.source, labels=["PNEUMONIA", "NORMAL"]))
    with pytest.raises(ConfigError, match="its labels are"):
        load_teacher(run, other, fingerprint=FINGERPRINT, held_out=HELD_OUT)


def test_folds_have_no_one_teacher(run: Path, student: BuildConfig) -> None:
    folded = msgspec.structs.replace(student, source=msgspec.structs.replace(student.source, folds=5))
    with pytest.raises(ConfigError, match=r"source\.folds = 0"):
        load_teacher(run, folded, fingerprint=FINGERPRINT, held_out=HELD_OUT)


@pytest.mark.parametrize(
    ("name", "error"),
    [("config.toml", ConfigError), ("report.json", ModelError), ("held_out.npz", ConfigError), ("measured-trunk.npz", ModelError)],
)
@pytest.mark.parametrize("content", [None, b"", b"{]"])
def test_an_unfinished_or_damaged_run_is_refused_by_the_file(
    run: Path, student: BuildConfig, name: str, error: type[Exception], content: bytes | None
) -> None:
    (run / name).unlink()
    if content is not None:
        (run / name).write_bytes(content)
    with pytest.raises(error, match=name.replace(".", r"\.")):
        load_teacher(run, student, fingerprint=FINGERPRINT, held_out=HELD_OUT)
