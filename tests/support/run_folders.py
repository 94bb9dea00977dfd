"""A run folder with drawn scores: decided and measured by the build's own code, but without a CNN."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edge_agent.records import Task
from model_build.config import BuildConfig, load_build_config
from model_build.data.audit.shortcuts import Shortcut
from model_build.data.images import ImageSet, LabelledFile
from model_build.data.split import patient_folds
from model_build.evaluation.held_out_metrics import Counts, HeldOutOutputs, calibrate_and_choose, measure
from model_build.evaluation.held_out_outputs import keep_held_out
from model_build.report.result import Report
from model_build.training.epoch_log import Epoch

LABELS: dict[Task, list[str]] = {
    "binary": ["NORMAL", "OPACITY"],
    "multiclass": ["Normal", "Covid", "Viral Pneumonia"],
    "multilabel": ["Effusion", "Mass", "Hernia"],
}
POSITIVE: dict[Task, list[str]] = {"binary": ["OPACITY"], "multiclass": ["Covid", "Viral Pneumonia"], "multilabel": []}
SHARES = (0.35, 0.2, 0.06)
CONFIG = """
name = "drawn"
version = "0.0.1"
serial = 3
task = "{task}"
[source]
labels = {labels}
positive = {positive}
patient_pattern = '^(p\\d+)'
folds = {folds}
title = "drawn scores"
licence = "ours"
attribution = "none"
[input]
rows = 48
columns = 48
[card]
population = "nobody"
intended_use = "tests"
limitations = ["Not for real films."]
"""


@dataclass(frozen=True)
class DrawnRun:
    """A run folder, what it says, and the images that it would have been built from."""

    folder: Path
    config: BuildConfig
    report: Report
    images: ImageSet


def _draw_targets(task: Task, count: int, random: np.random.Generator) -> np.ndarray:
    labels = len(LABELS[task])
    if task == "multilabel":
        targets = random.random((count, labels)) < SHARES
        targets[:labels] = targets[labels : 2 * labels] = np.eye(labels, dtype=np.bool_)
        return np.asarray(targets)
    return np.eye(labels, dtype=np.bool_)[np.arange(count) % labels]


def _draw_images(task: Task, count: int, random: np.random.Generator) -> ImageSet:
    targets = _draw_targets(task, count, random)
    files = [
        LabelledFile(
            path=Path(f"p{number // 2}_{number}.png"),
            labels=tuple(np.flatnonzero(targets[number]).tolist()),
            patient=f"p{number // 2}",
            sha256=f"{number:064x}",
            view=("PA", "AP")[number // 2 % 2],
            sex=("F", "M", None)[number // 2 % 3],
            age_years=None if number // 2 % 5 == 0 else int(number // 2 * 7 % 90),
        )
        for number in range(count)
    ]
    pixels = random.integers(0, 256, (count, 48, 48, 1), np.uint8)
    strata = np.where(targets.any(axis=1), targets.argmax(axis=1), targets.shape[1])
    return ImageSet(
        pixels=pixels,
        targets=targets,
        strata=strata,
        thumbnails=np.zeros((count, 32, 32), np.uint8),
        properties=np.zeros((count, 4)),
        files=files,
        left_out=[],
        fingerprint="f" * 64,
    )


def _counts(images: ImageSet, chosen: np.ndarray, labels: list[str]) -> Counts:
    patients = {images.files[index].patient for index in chosen.tolist()}
    return Counts(len(chosen), len(patients), dict(zip(labels, images.targets[chosen].sum(axis=0).tolist(), strict=True)))


def draw_run(folder: Path, task: Task, *, folds: int = 0, count: int = 300, spread: float = 1.5, seed: int = 1) -> DrawnRun:
    """Write config.toml, report.json, held_out.npz and epochs.jsonl of a build that never was.

    Parameters
    ----------
    folder : Path
        An existing folder.
    task : str
        The labels are those of ``LABELS``.
    folds : int
        0 holds out every third patient, else all are held out, in so many parts.
    count : int
        Images, two of each patient.
    spread : float
        By how much the logits of both sides overlap: 0.5 hardly, 3 much.
    seed : int
        Of the draws.
    """
    labels, random = LABELS[task], np.random.default_rng(seed)
    (folder / "config.toml").write_text(CONFIG.format(task=task, labels=labels, positive=POSITIVE[task], folds=folds))
    config, images = load_build_config(folder / "config.toml"), _draw_images(task, count, random)
    patients = [entry.patient for entry in images.files]
    numbers = patient_folds(images.strata, patients, folds or 3, seed)
    everybody = np.arange(count)
    chosen = everybody if folds else everybody[numbers == 0]
    signs = np.where(images.targets[chosen, 1:] if task == "binary" else images.targets[chosen], 1.5, -1.5)
    logits = (signs + spread * random.standard_normal(signs.shape)).astype(np.float32)
    outputs = HeldOutOutputs(
        logits=logits,
        float_logits=(logits + 0.1 * random.standard_normal(logits.shape)).astype(np.float32),
        baseline_logits=(signs + 3.0 * random.standard_normal(signs.shape)).astype(np.float32),
        distances=random.random(len(chosen)).astype(np.float32),
        targets=images.targets[chosen],
        strata=images.strata[chosen],
        patients=[patients[index] for index in chosen.tolist()],
        indices=chosen,
        folds=numbers[chosen] if folds else np.zeros(len(chosen), np.int64),
    )
    decided = calibrate_and_choose(outputs, config)
    evidence = random.standard_normal((count, 6, 6)).astype(np.float32)
    keep_held_out(folder / "held_out.npz", outputs, decided, labels, images.files, lambda index, fold, label: evidence[index])
    measured = measure(
        outputs,
        decided,
        config,
        official_split=False,
        training=_counts(images, everybody if folds else everybody[numbers != 0], labels),
        held_out=_counts(images, chosen, labels),
        epoch_losses=[0.7, 0.5, 0.4],
    )
    report = Report(
        name=config.name,
        version=config.version,
        serial=config.serial,
        task=task,
        left_out={"the same bytes as another image": 2},
        leakage="0 patient(s) and 0 pair(s) of nearly identical images stand on both sides.",
        shortcuts=[
            Shortcut(label=labels[1], file_size=0.61, image_size=0.83, mean_intensity=0.55, together=0.85, alarm=True),
        ],
        fingerprint=images.fingerprint,
        measured=measured,
        shipped=_counts(images, everybody, labels),
        shipped_finish_epochs=2,
        shipped_agreement_with_measured=0.97,
        model_size_bytes=947_656,
        multiply_adds=110_000_000,
        embedding_size=112,
        latency_ms={"1 thread": 8.1, "2 threads": 5.2},
        build_seconds=600.0,
        environment={"cores": 2, "cpu": "drawn"},
    )
    (folder / "report.json").write_bytes(msgspec.json.encode(report))
    epochs = [
        Epoch(phase, epoch, 0.8 / epoch, 10.0 * epoch, *monitored)
        for phase in (*(f"fold {number + 1}" for number in range(folds)), *(() if folds else ("measure",)), "finish")
        for epoch in (1, 2, 3)
        for monitored in [(None, None) if phase == "finish" else (0.9 / epoch, 1.0 - 0.2 / epoch)]
    ]
    (folder / "epochs.jsonl").write_bytes(b"".join(msgspec.json.encode(entry) + b"\n" for entry in epochs))
    return DrawnRun(folder, config, report, images)
