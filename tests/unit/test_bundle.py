"""A bundle is verified before it runs; whatever is wrong with it is said."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_agent.errors import GoldenVectorError, ModelChecksumError, ModelContractError, ModelError
from edge_agent.inference.bundle import default_bundle_path, load_bundle, make_interpreter


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    """A copy of the bundle that ships, free to be spoiled."""
    return Path(shutil.copytree(default_bundle_path(), tmp_path / "bundle"))


def change_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def replace_file(path: Path, name: str, content: bytes) -> None:
    """Replace a file and make the manifest vouch for it, as somebody would who builds a bad bundle on purpose."""
    (path / name).write_bytes(content)
    change_manifest(path, lambda manifest: manifest["files"][name].update(sha256=hashlib.sha256(content).hexdigest()))


def test_loads_the_copy(bundle_path: Path) -> None:
    bundle = load_bundle(bundle_path)
    assert bundle.identity.name == "cxr-pneumonia"
    assert bundle.identity.digest == hashlib.sha256((bundle_path / "manifest.json").read_bytes()).hexdigest()
    make_interpreter(bundle)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such bundle folder") as caught:
        load_bundle(tmp_path / "nowhere")
    assert caught.value.exit_code == 20


@pytest.mark.parametrize("name", ["manifest.json", "model.tflite", "head.json", "reference.npz", "golden.npz", "MODEL_CARD.md"])
def test_a_missing_file_is_named(bundle_path: Path, name: str) -> None:
    (bundle_path / name).unlink()
    with pytest.raises(ModelError, match=name.replace(".", r"\.")):
        load_bundle(bundle_path)


@pytest.mark.parametrize("name", ["model.tflite", "head.json", "reference.npz", "golden.npz", "MODEL_CARD.md"])
def test_one_flipped_bit_is_found(bundle_path: Path, name: str) -> None:
    content = bytearray((bundle_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle_path / name).write_bytes(bytes(content))
    with pytest.raises(ModelChecksumError, match=name.replace(".", r"\.")):
        load_bundle(bundle_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"format": 1}'])
def test_a_corrupt_manifest(bundle_path: Path, content: bytes) -> None:
    (bundle_path / "manifest.json").write_bytes(content)
    with pytest.raises(ModelContractError):
        load_bundle(bundle_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=2), "format 2"),
        (lambda m: m.update(task="multilabel"), "binary"),
        (lambda m: m.update(positive=["OTHER"]), "positive"),
        (lambda m: m.update(labels=["PNEUMONIA"]), "two labels"),
        (lambda m: m["files"].pop("golden.npz"), r"golden\.npz"),
        (lambda m: m["decision"].update(review_low=0.999), "review band"),
        (lambda m: m["decision"].update(novelty_limit=-1.0), "novelty_limit"),
        (lambda m: m["input"].update(rows=96), r"golden\.npz"),
        (lambda m: m["input"].update(resize="letterbox"), "resize"),
    ],
)
def test_a_contract_that_can_not_be_honoured(bundle_path: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    change_manifest(bundle_path, change)
    with pytest.raises(ModelContractError, match=message):
        load_bundle(bundle_path)


def test_an_unsigned_copy_is_refused_where_the_config_says_so(bundle_path: Path) -> None:
    with pytest.raises(ModelContractError, match="allow_unsigned"):
        load_bundle(bundle_path, allow_unsigned=False)
    load_bundle(default_bundle_path(), allow_unsigned=False)


def test_golden_vectors_that_do_not_match(bundle_path: Path) -> None:
    with np.load(bundle_path / "golden.npz") as arrays:
        inputs, embeddings = arrays["inputs"], arrays["embeddings"]
    stream = io.BytesIO()
    np.savez(stream, inputs=inputs, embeddings=embeddings[:, ::-1])
    replace_file(bundle_path, "golden.npz", stream.getvalue())
    with pytest.raises(GoldenVectorError, match="does not compute on this board"):
        make_interpreter(load_bundle(bundle_path))


def test_a_model_file_that_is_no_model(bundle_path: Path) -> None:
    replace_file(bundle_path, "model.tflite", b"TFL3" * 100)
    with pytest.raises(ModelError, match="can not load"):
        make_interpreter(load_bundle(bundle_path))


def test_a_file_far_too_large_is_not_read(bundle_path: Path) -> None:
    with (bundle_path / "model.tflite").open("r+b") as stream:
        stream.truncate(10 * 1024**3)
    with pytest.raises(ModelContractError, match="larger than"):
        load_bundle(bundle_path)
