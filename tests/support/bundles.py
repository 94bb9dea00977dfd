"""Bundles with several labels, made from the one that ships: its CNN, and heads of drawn numbers."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_agent.inference.bundle import default_bundle_path
from edge_agent.inference.head import (
    Calibration,
    Head,
    IsotonicCalibration,
    LogisticRegressionHead,
    PlattCalibration,
    TemperatureCalibration,
    encode_heads,
)
from edge_agent.records import Task

LABELS: dict[Task, list[str]] = {
    "multiclass": ["normal", "bacterial", "viral"],
    "multilabel": ["Effusion", "Mass", "Nodule", "Edema", "Hernia", "Fibrosis"],
}
POSITIVE: dict[Task, list[str]] = {"multiclass": ["bacterial", "viral"], "multilabel": LABELS["multilabel"]}
CALIBRATIONS: list[Calibration] = [
    PlattCalibration(0.8, 0.0),
    TemperatureCalibration(1.5),
    IsotonicCalibration([-4.0, -1.0, 1.0, 4.0], [0.02, 0.4, 0.6, 0.98]),
]


def change_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest of the bundle at ``path``."""
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def replace_file(path: Path, name: str, content: bytes) -> None:
    """Replace a file and make the manifest vouch for it, as somebody would who builds a bad bundle on purpose."""
    (path / name).write_bytes(content)
    change_manifest(
        path, lambda manifest: manifest["files"][name].update(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    )


def a_point(labels: list[str], threshold: float = 0.5, low: float = 0.48, high: float = 0.52) -> dict[str, Any]:
    """An operating point as it stands in the manifest."""
    return {"labels": labels, "threshold": threshold, "target": "a test", "review_low": low, "review_high": high}


def golden_films(bundle: Path, folder: Path) -> None:
    """Save the drawn films of the bundle's golden vectors as golden-0.png and so on, for which the heads below differ for certain."""
    with np.load(bundle / "golden.npz") as arrays:
        for number, grey in enumerate(arrays["inputs"]):
            Image.fromarray(grey[:, :, 0]).save(folder / f"golden-{number}.png")


def drawn_heads(labels: list[str], embeddings: NDArray[np.float32], seed: int) -> list[Head]:
    """Draw a linear head for each label, with all calibrations in turn.

    Drawn films resemble each other: centred on their ``embeddings`` (shape (films, D)) and in units of their spread, each head finds some
    of them above 0 and some below.
    """
    centre, spread = embeddings.mean(axis=0, dtype=np.float64), embeddings.std(axis=0, dtype=np.float64) + 0.05
    random = np.random.default_rng(seed)
    heads: list[Head] = []
    for index, label in enumerate(labels):
        coefficients = random.normal(scale=0.15, size=len(centre)) / spread
        heads.append(
            LogisticRegressionHead(
                positive=label,
                coefficients=coefficients.tolist(),
                intercept=float(-coefficients @ centre),
                calibration=CALIBRATIONS[index % len(CALIBRATIONS)],
            )
        )
    return heads


def make_bundle(directory: Path, task: Task, *, seed: int = 0) -> Path:
    """Write a bundle of one of the tasks with several labels; it calls nothing novel, so that its thresholds are seen at work.

    Parameters
    ----------
    directory : Path
        Where it shall stand; must not exist.
    task : {"multiclass", "multilabel"}
    seed : int
        Of the heads' coefficients.

    Returns
    -------
    Path
        ``directory``.
    """
    shutil.copytree(default_bundle_path(), directory)
    with np.load(directory / "golden.npz") as arrays:
        heads = drawn_heads(LABELS[task], arrays["embeddings"], seed)
    points = [a_point([label]) for label in LABELS[task]] if task == "multilabel" else [a_point(POSITIVE[task])]

    def change(manifest: dict[str, Any]) -> None:
        manifest.update(name=f"drawn-{task}", task=task, labels=LABELS[task], positive=POSITIVE[task], metrics={}, training={})
        manifest["decision"].update(points=points, label_margin=0.02 if task == "multiclass" else 0.0, novelty_limit=1e6)

    replace_file(directory, "head.json", encode_heads(heads))
    change_manifest(directory, change)
    return directory
