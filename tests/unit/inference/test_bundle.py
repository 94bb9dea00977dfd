"""A bundle is verified before it runs; whatever is wrong with it is said."""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.bundles import LABELS, a_point, change_manifest, make_bundle, replace_file

from edge_agent.errors import GoldenVectorError, ModelChecksumError, ModelContractError, ModelError, ModelSignatureError
from edge_agent.inference.bundle import default_bundle_path, load_bundle, make_interpreter
from edge_agent.inference.head import encode_heads
from edge_agent.records import Task


@pytest.fixture
def bundle_path(tmp_path: Path) -> Path:
    """A copy of the bundle that ships, free to be spoiled."""
    return Path(shutil.copytree(default_bundle_path(), tmp_path / "bundle"))


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
        (lambda m: m.update(format=1), r"format 1, and this version reads format 2; build the bundle again"),
        (lambda m: m.update(format=3), "format 3"),
        (lambda m: m.update(task="regression"), "regression"),
        (lambda m: m.update(task="multilabel"), "every label is positive"),
        (lambda m: m.update(task="multiclass"), "three labels or more"),
        (lambda m: m.update(positive=["OTHER"]), "positive"),
        (lambda m: m.update(positive=["NORMAL", "PNEUMONIA"]), "one of them positive"),
        (lambda m: m.update(positive=["NORMAL"]), r"operating points are for \[\['PNEUMONIA'\]\]"),
        (
            lambda m: (m.update(positive=["NORMAL"]), m["decision"]["points"][0].update(labels=["NORMAL"])),
            "manifest calls 'NORMAL' positive",
        ),
        (lambda m: m.update(labels=["PNEUMONIA"]), "two labels"),
        (lambda m: m.update(labels=["PNEUMONIA", "PNEUMONIA"]), "labels must differ"),
        (lambda m: m.update(labels=["NORMAL;LUNG", "PNEUMONIA"]), "semicolon"),
        (lambda m: m.update(labels=["NORMAL", "PNEUMONIA\n"]), "cannot be printed"),
        (lambda m: m.update(labels=[" ", "PNEUMONIA"]), "is empty"),
        (lambda m: m["decision"].update(points=[]), "operating points"),
        (lambda m: m["decision"].update(label_margin=0.1), "label_margin is for multiclass"),
        (lambda m: m["decision"].pop("points"), "points"),
        (lambda m: m["decision"]["points"][0].update(threshold=1.5), "threshold"),
        (lambda m: m["files"].pop("golden.npz"), r"golden\.npz"),
        (lambda m: m["decision"]["points"][0].update(review_low=0.999), "review band of PNEUMONIA"),
        (lambda m: m["decision"].update(novelty_limit=-1.0), "novelty_limit"),
        (lambda m: m["input"].update(rows=96), r"golden\.npz"),
        (lambda m: m["input"].update(resize="letterbox"), "resize"),
    ],
)
def test_a_contract_that_cannot_be_honoured(bundle_path: Path, change: Callable[[dict[str, Any]], object], message: str) -> None:
    change_manifest(bundle_path, change)
    with pytest.raises(ModelContractError, match=message):
        load_bundle(bundle_path)


SWAPPED = ["bacterial", "normal", "viral"]


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("multiclass", lambda m: m.update(positive=LABELS["multiclass"]), "some of them positive but not all"),
        ("multiclass", lambda m: m.update(positive=[]), "some of them positive"),
        ("multiclass", lambda m: m.update(positive=["viral", "bacterial"]), "operating points are for"),
        ("multiclass", lambda m: m.update(positive=["viral", "viral"]), "each once"),
        ("multiclass", lambda m: m.update(task="binary"), "a binary model has two labels"),
        ("multiclass", lambda m: m.update(labels=SWAPPED), r"heads score \['normal', 'bacterial', 'viral'\], in a multiclass model"),
        ("multiclass", lambda m: m["decision"].update(points=[a_point(["viral"])]), "needs"),
        ("multiclass", lambda m: m["decision"].update(points=[a_point(["bacterial", "viral"])] * 2), "needs"),
        ("multiclass", lambda m: m["decision"].update(points=[a_point(["bacterial", "viral"], 0.5, 0.6, 0.7)]), "bacterial . viral"),
        ("multiclass", lambda m: m["decision"].update(label_margin=-0.1), "label_margin"),
        ("multilabel", lambda m: m["decision"]["points"].pop(), "operating points are for"),
        ("multilabel", lambda m: m["decision"]["points"].reverse(), "operating points are for"),
        ("multilabel", lambda m: m["decision"]["points"][1].update(labels=["Effusion"]), "operating points are for"),
        ("multilabel", lambda m: m["decision"]["points"][1].update(labels=["Mass", "Nodule"]), "operating points are for"),
        ("multilabel", lambda m: m["decision"]["points"][1].update(labels=["Cardiomegaly"]), "operating points are for"),
        ("multilabel", lambda m: m["decision"]["points"][3].update(review_high=0.1), "review band of Edema"),
        ("multilabel", lambda m: m.update(positive=["Mass"]), "every label is positive"),
        ("multilabel", lambda m: m.update(labels=["No Finding"], positive=["No Finding"]), "none is 'No Finding'"),
        ("multilabel", lambda m: m.update(labels=[], positive=[]), "every label is positive"),
        ("multilabel", lambda m: m.update(task="multiclass"), "not all"),
        ("multilabel", lambda m: m["decision"].update(label_margin=0.1), "label_margin is for multiclass"),
    ],
)
def test_a_manifest_that_does_not_fit_its_task(
    tmp_path: Path, task: Task, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = make_bundle(tmp_path / "bundle", task)
    load_bundle(path)
    change_manifest(path, change)
    with pytest.raises(ModelContractError, match=message):
        load_bundle(path)


@pytest.mark.parametrize("task", ["multiclass", "multilabel"])
def test_heads_of_another_order_or_number_are_refused(tmp_path: Path, task: Task) -> None:
    path = make_bundle(tmp_path / "bundle", task)
    heads = load_bundle(path).heads
    assert [head.positive for head in heads] == LABELS[task]
    for wrong in (heads[::-1], heads[:-1], heads[:1], [*heads, heads[0]], [heads[0], *heads[:-1]]):
        replace_file(path, "head.json", encode_heads(wrong))
        with pytest.raises(ModelContractError, match=r"head\.json: the heads score"):
            load_bundle(path)


def test_an_unsigned_copy_is_refused_where_the_config_says_so(bundle_path: Path) -> None:
    with pytest.raises(ModelSignatureError, match="allow_unsigned"):
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
    with pytest.raises(ModelError, match="cannot load"):
        make_interpreter(load_bundle(bundle_path))


def test_a_file_far_too_large_is_not_read(bundle_path: Path) -> None:
    with (bundle_path / "model.tflite").open("r+b") as stream:
        stream.truncate(10 * 1024**3)
    with pytest.raises(ModelContractError, match="larger than"):
        load_bundle(bundle_path)
