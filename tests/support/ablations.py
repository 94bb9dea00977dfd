"""Small images with stripes for labels, and cohorts of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edge_agent.imaging.preprocess import InputContract
from model_build.config import BuildConfig, CardConfig, HeadConfig, SourceConfig, TrainConfig, TrunkConfig
from model_build.data.cohort import Cohort
from model_build.data.images import ImageSet, LabelledFile
from model_build.data.similarity import thumbnail

SIDE = 32


def build_config(task: str, labels: list[str], positive: list[str]) -> BuildConfig:
    """A build of one small trunk, half of the patients held out."""
    source = SourceConfig(labels=labels, positive=positive, held_out_fraction=0.5, title="", licence="", attribution="")
    return BuildConfig(
        name="ablation",
        version="1.0.0",
        serial=1,
        task=task,  # type: ignore[arg-type]
        source=source,
        input=InputContract(rows=SIDE, columns=SIDE),
        trunk=TrunkConfig(block_count=2),
        train=TrainConfig(batch_size=8),
        head=HeadConfig(calibration="platt"),
        card=CardConfig(population="", intended_use="", limitations=[]),
    )


def striped_images(targets: np.ndarray) -> np.ndarray:
    """Noise, with a bright stripe for each label that the image has; uint8, shape (images, 32, 32, 1)."""
    random = np.random.default_rng(0)
    grey = random.integers(0, 140, (len(targets), SIDE, SIDE, 1))
    for column in range(targets.shape[1]):
        grey[:, 4 + 8 * column : 9 + 8 * column] += 90 * targets[:, column, np.newaxis, np.newaxis, np.newaxis]
    return grey.astype(np.uint8)


def image_set(targets: np.ndarray) -> ImageSet:
    """Two images of each patient."""
    files = [
        LabelledFile(path=Path(f"{i}.png"), labels=tuple(np.flatnonzero(row).tolist()), patient=f"p{i // 2}", sha256=f"{i:064x}")
        for i, row in enumerate(targets)
    ]
    pixels = striped_images(targets)
    return ImageSet(
        pixels=pixels,
        targets=targets,
        strata=targets.argmax(axis=1),
        thumbnails=np.stack([thumbnail(grey[:, :, 0]) for grey in pixels]),
        properties=np.zeros((len(targets), 4)),
        files=files,
        left_out=[],
        fingerprint="fingerprint",
    )


def cohort_of(task: str, targets: np.ndarray, labels: list[str], positive: list[str]) -> Cohort:
    """The first half is trained on, the second held out; two images of each patient."""
    count = len(targets)
    patients = [f"p{i // 2}" for i in range(count)]
    half = count // 2
    return Cohort(build_config(task, labels, positive), targets, targets.argmax(axis=1), patients, np.arange(half), np.arange(half, count))
