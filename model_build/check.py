"""Measure a finished bundle on labelled folders, by the very code that runs on the device."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from edge_agent.errors import ConfigError, InputFault
from edge_agent.imaging.decode import decode_image
from edge_agent.inference.bundle import load_bundle
from edge_agent.inference.classifier import Classifier
from model_build.evaluate import Scored, confusion, estimate_metrics


def evaluate_bundle(bundle_path: Path, data: Path) -> str:
    """Run a bundle over one folder per label.

    Parameters
    ----------
    bundle_path : Path
        The bundle's folder.
    data : Path
        Holds a folder for each of the bundle's labels; other folders are not looked at.

    Returns
    -------
    str
        A Markdown table: AUC, sensitivity, specificity, accuracy with 95 % intervals over patients (told apart by the bundle's own pattern,
        else by file), the confusion matrix, and the share of each decision.

    Raises
    ------
    ConfigError
        If a label has no folder or no readable image.
    """
    bundle = load_bundle(bundle_path)
    manifest, classifier = bundle.manifest, Classifier(bundle)
    source = manifest.training.get("config", {}).get("source", {})
    pattern = re.compile(str(source.get("patient_pattern") or "(.*)"))
    positive_label = manifest.positive[0]
    probabilities, positive, predicted, patients = [], [], [], []
    decisions: dict[str, int] = {"positive": 0, "negative": 0, "review": 0}
    novel, unreadable = 0, []
    for label in manifest.labels:
        folder = data / label
        if not folder.is_dir():
            raise ConfigError(f"{data}: no folder {label!r}; every label of the bundle needs a folder of images with its name")
        for path in sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")):
            try:
                frame = decode_image(path.read_bytes(), rows=manifest.input.rows, columns=manifest.input.columns)
            except InputFault as fault:
                unreadable.append(f"{path.relative_to(data)}: {fault.message}")
                continue
            verdict = classifier.classify(frame)
            match = pattern.search(path.name)
            probabilities.append(verdict.scores[positive_label])
            positive.append(label == positive_label)
            predicted.append(verdict.label == positive_label)
            patients.append(match.group(1) if match else path.name)
            decisions[verdict.decision] += 1
            novel += verdict.novelty > 1.0
    if len(set(positive)) < 2:
        raise ConfigError(f"{data}: needs at least one readable image of every label")
    scored = Scored(np.array(probabilities, np.float32), np.array(positive), np.array(predicted), patients)
    matrix = confusion(scored.positive, scored.predicted)
    count = len(positive)
    lines = [
        f"{manifest.name} {manifest.version} on {count} images of {len(set(patients))} patients",
        "",
        "| | value (95 % interval) |",
        "|---|---|",
        *[f"| {name.replace('_', ' ')} | {estimate} |" for name, estimate in estimate_metrics(scored, 0).items()],
        "",
        f"true positive {matrix.true_positive}, false negative {matrix.false_negative},"
        f" true negative {matrix.true_negative}, false positive {matrix.false_positive}",
        ", ".join(f"{name} {number / count:.1%}" for name, number in decisions.items()) + f"; novel {novel / count:.1%}",
        *[f"left out: {name}" for name in unreadable],
    ]
    return "\n".join(lines)
