"""A bundle with a head that is no logistic regression classifies like any other; only its heatmaps are refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from edge_agent.cli import main
from edge_agent.imaging.decode import decode_image
from edge_agent.inference.bundle import default_bundle_path, load_bundle
from edge_agent.inference.classifier import Classifier
from model_build import cli as model_build_cli
from model_build.config import HeadKind
from model_build.data.phantom.draw import save_phantom
from model_build.heads import estimators

LINEAR = ("logistic_regression", "linear_discriminant", "linear_svm")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "one.png"
    save_phantom(path, 1, rows=200, columns=200, opacity_count=2)
    return path


def bundle_with(kind: str, folder: Path) -> Path:
    """The bundle that ships, with a head of this kind fitted on its core embeddings."""
    shutil.copytree(default_bundle_path(), folder)
    reference = load_bundle(folder).reference
    head = estimators.FITTERS[kind](reference.core_embeddings, reference.core_labels == 1, "PNEUMONIA", 0.1)
    content = msgspec.json.encode(head)
    (folder / "head.json").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["head.json"] = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("kind", list(estimators.FITTERS))
def test_classifies_and_draws_where_that_is_true(kind: HeadKind, tmp_path: Path, film: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = bundle_with(kind, tmp_path / "bundle")
    classifier = Classifier(load_bundle(bundle))
    verdict = classifier.classify(decode_image(film.read_bytes(), rows=160, columns=160))
    assert 0.0 <= verdict.scores["PNEUMONIA"] <= 1.0
    assert np.isfinite(verdict.scores["PNEUMONIA"])
    code = main(["predict", str(film), "--model", str(bundle), "--format", "jsonl", "--heatmaps", str(tmp_path / "maps")])
    captured = capsys.readouterr()
    if kind in LINEAR:
        assert code == 0
        assert [path.name for path in (tmp_path / "maps").iterdir()] == ["one.png.heatmap.png"]
    else:
        assert code == 20
        assert captured.out == ""
        assert f"a heatmap needs a linear head (logistic_regression, linear_discriminant or linear_svm), and this bundle's is '{kind}'" in (
            captured.err
        )
        assert not (tmp_path / "maps").exists()


def test_the_command_compares_all_heads(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    for label, brightness in (("NORMAL", 90), ("PNEUMONIA", 120)):
        (tmp_path / "films" / label).mkdir(parents=True)
        for number in range(20):
            pixels = random.normal(brightness, 40, (96, 96)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "films" / label / f"person{brightness + number}_virus_1.png")
    arguments = ["compare-heads", str(repository / "model_build" / "configs" / "cxr-pneumonia.toml")]
    arguments += ["--data", str(tmp_path / "films"), "--model", str(default_bundle_path())]
    monkeypatch.setattr("sys.argv", ["model-build", *arguments])
    with pytest.raises(SystemExit) as ended:
        model_build_cli.main()
    assert ended.value.code == 0
    table = capsys.readouterr().out.splitlines()
    assert "40 patients (40 images)" in table[0]
    own = "linear_discriminant"  # the config's own kind stands first: the others are held against it
    assert [line.split("|")[1].strip() for line in table[4:]] == [own, *(kind for kind in estimators.FITTERS if kind != own)]
