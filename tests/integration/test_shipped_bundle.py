"""The bundle that is installed with the package: its contract, its stated figures, and what it says of images it was not made for."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edge_agent.imaging.decode import decode_image
from edge_agent.inference.bundle import Bundle, default_bundle_path, load_bundle
from edge_agent.inference.classifier import Classifier
from edge_agent.inference.interpreter import Interpreter
from edge_agent.records import Verdict
from model_build.evaluation.bundle_evaluation import load_and_evaluate


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(default_bundle_path())


@pytest.fixture(scope="module")
def classifier(bundle: Bundle) -> Classifier:
    return Classifier(bundle)


def verdicts(classifier: Classifier, paths: list[Path]) -> list[Verdict]:
    contract = classifier.input
    return [classifier.classify(decode_image(path.read_bytes(), rows=contract.rows, columns=contract.columns)) for path in paths]


def test_size_and_shape(bundle: Bundle) -> None:
    assert len(bundle.model) <= 1_000_000
    interpreter = Interpreter(bundle.model)
    assert interpreter.input_shape == (bundle.input.rows, bundle.input.columns, 1)
    interpreter.invoke(bundle.golden_inputs[0])
    assert interpreter.feature_map().shape[2] == interpreter.embedding_size


def test_the_embedding_is_the_pooled_feature_map(bundle: Bundle) -> None:
    interpreter = Interpreter(bundle.model)
    for grey in bundle.golden_inputs:
        embedding = interpreter.invoke(grey)
        pooled = interpreter.feature_map().mean(axis=(0, 1))
        assert np.abs(embedding - pooled).max() <= 1.01 * interpreter.embedding_step


def test_the_stated_figures_reach_what_was_asked(bundle: Bundle) -> None:
    metrics = bundle.manifest.metrics["points"]["PNEUMONIA"]
    at_point = metrics["at_operating_point"]
    assert at_point["auc"]["value"] >= 0.996
    assert at_point["sensitivity"]["value"] >= 0.95
    assert at_point["specificity"]["value"] >= 0.95
    assert metrics["float_auc"] - metrics["int8_auc"] <= 0.003
    assert metrics["float_int8_agreement"] >= 0.99


def test_the_card_says_for_whom_and_for_whom_not(bundle: Bundle) -> None:
    card = (default_bundle_path() / "MODEL_CARD.md").read_text()
    for words in ("children", "Guangzhou", "AP", "CC BY 4.0", "10.1016/j.cell.2018.02.010", "Not a diagnosis", "adults"):
        assert words in card, words


def test_the_manifest_says_what_was_trained_on_what(bundle: Bundle) -> None:
    training = bundle.manifest.training
    assert training["shipped_model"]["images"] > training["measured_model"]["images"]
    # No path of the building machine travels with the bundle; a device that proves a confidential VM may.
    paths = re.findall(r'"(?:/(?!dev/)|[A-Z]:\\\\|~/)[^"]*"', json.dumps(training))
    assert paths == []


def test_phantoms_are_not_taken_for_children(classifier: Classifier, bundle: Bundle) -> None:
    """Our own drawings are unlike the training images too, and are said to be."""
    from edge_agent.records import Frame

    for grey in bundle.golden_inputs:
        frame = Frame(grey[:, :, 0], grey.shape[0], grey.shape[1], "PNG")
        assert classifier.classify(frame).decision == "review"


@pytest.mark.parametrize(("name", "part"), [("RG1_UNCR.dcm", "adult chest"), ("RG3_UNCR.dcm", "leg")])
def test_an_adult_chest_and_a_leg_come_out_as_review(classifier: Classifier, name: str, part: str) -> None:
    data_store = pytest.importorskip("data_store", reason="the package pydicom-data is not installed")
    (verdict,) = verdicts(classifier, [Path(data_store.__path__[0]) / "data" / name])
    assert verdict.decision == "review", part
    assert verdict.reason is not None
    assert verdict.reason.code == "novel"
    assert "children" in verdict.reason.message


def test_full_size_films_agree_with_their_small_copies(classifier: Classifier, real_data: Path) -> None:
    """What training saw at 224x224 the device sees as scanned: the same label, nearly the same score."""
    differences, different_labels = [], 0
    for label in ("NORMAL", "PNEUMONIA"):
        scans = sorted((real_data / "kermany" / "fullres" / label).iterdir())
        small = [real_data / "kermany" / "train" / label / path.name for path in scans]
        for scan, copy in zip(verdicts(classifier, scans), verdicts(classifier, small), strict=True):
            differences.append(abs(scan.scores["PNEUMONIA"] - copy.scores["PNEUMONIA"]))
            different_labels += scan.label != copy.label
    assert different_labels <= 1
    assert float(np.median(differences)) < 0.02


@pytest.mark.parametrize(("folder", "share"), [("nih1000/images", 0.98), ("mini_mias/images", 0.99)])
def test_adults_and_mammograms_are_sent_to_a_person(classifier: Classifier, real_data: Path, folder: str, share: float) -> None:
    paths = sorted((real_data / folder).iterdir())[::3]
    counts = Counter(verdict.decision for verdict in verdicts(classifier, paths))
    assert counts["review"] / len(paths) >= share, counts


def test_films_of_other_sources_are_decided_rightly_or_by_a_person(classifier: Classifier, real_data: Path) -> None:
    """Normal and viral pneumonia films of another collection: what is not sent to review is nearly always right."""
    folders = {"Normal": "NORMAL", "Viral Pneumonia": "PNEUMONIA"}
    decisions = {
        label: Counter(v.decision for v in verdicts(classifier, sorted((real_data / "covid19" / "train" / folder).iterdir())))
        for folder, label in folders.items()
    }
    negative, positive = (sum(of_label[side] for of_label in decisions.values()) for side in ("negative", "positive"))
    missed, false_alarms = decisions["PNEUMONIA"]["negative"], decisions["NORMAL"]["positive"]
    assert negative + positive >= 40
    assert missed + false_alarms <= 2
    told = load_and_evaluate(default_bundle_path(), real_data / "covid19" / "train", None, None, folders, patient_pattern="(.+)")
    assert (
        f"decided without a person: {negative} negative, {missed} of them wrong; {positive} positive, {false_alarms} of them wrong" in told
    )


def test_children_of_the_training_hospital_are_mostly_decided(classifier: Classifier, real_data: Path) -> None:
    paths = [path for label in ("NORMAL", "PNEUMONIA") for path in sorted((real_data / "kermany" / "train" / label).iterdir())[::20]]
    found = verdicts(classifier, paths)
    assert Counter(v.decision for v in found)["review"] / len(found) <= 0.15
    right = [v.label == path.parent.name for v, path in zip(found, paths, strict=True)]
    assert np.mean(right) >= 0.96
