"""The cohort of a build: its images, read and split, and which of them are trained on, held out, or shown to the int8 conversion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_build.array_types import BoolArray, Int64Array
from model_build.config import BuildConfig
from model_build.data.grouping import group_near_copies
from model_build.data.images import ImageSet, read_images
from model_build.data.split import cross_validation_folds, draw_labels, hold_out


@dataclass(frozen=True)
class Cohort:
    """The images of a build, and which of them are trained on and held out.

    ``targets`` is bool, shape (images, labels), ``strata`` int64, shape (images,), ``patients`` names the patient of each image;
    ``training`` and ``held_out`` are ascending indices of images, int64, whose patients differ.
    """

    config: BuildConfig
    targets: BoolArray
    strata: Int64Array
    patients: list[str]
    training: Int64Array
    held_out: Int64Array

    @property
    def held_out_patients(self) -> list[str]:
        """The patient of each held-out image."""
        return [self.patients[index] for index in self.held_out.tolist()]

    @property
    def is_held_out(self) -> BoolArray:
        """Whether each image is held out, shape (images,)."""
        return np.isin(np.arange(len(self.patients)), self.held_out)


def read_cohort(data: Path, config: BuildConfig, on_file: Callable[[int, int], None], cache: Path | None = None) -> tuple[ImageSet, Cohort]:
    """Read and split the images as the build of the same config does; of a build with folds, the first.

    Parameters
    ----------
    data : Path
        The data folder.
    config : BuildConfig
    on_file : callable
        Called with the number of files read and their total.
    cache : Path, optional
        Folder for the pixels of a large set, as :func:`model_build.data.images.read_images` takes it.

    Raises
    ------
    ConfigError
        If the images can not be read, or a label is missing on one side or has fewer images than ``train.labels_per_class``.
    """
    images = read_images(data, config.source, config.input, on_file, task=config.task, cache=cache)
    if config.source.group_near_copies:
        images = group_near_copies(images)
    return images, split_cohort(images, config)


def split_cohort(images: ImageSet, config: BuildConfig) -> Cohort:
    """The second half of :func:`read_cohort`."""
    if config.source.folds:
        held_out = cross_validation_folds(images.files, config.source, config.seed) == 0
    else:
        held_out, _ = hold_out(images.files, config.source, config.seed)
    per_class = config.train.labels_per_class
    trained_on = draw_labels(images.strata, ~held_out, per_class, config.seed) if per_class else ~held_out
    patients = [entry.patient for entry in images.files]
    return Cohort(config, images.targets, images.strata, patients, np.flatnonzero(trained_on), np.flatnonzero(held_out))


def draw_representative(cohort: Cohort) -> Int64Array:
    """The training images that show the int8 conversion the range of every activation; ascending indices, the same as the build's."""
    count = min(cohort.config.quantize.representative_images, len(cohort.training))
    # The image set may be sorted by label: a random draw shows the converter every class.
    return np.sort(np.random.default_rng(cohort.config.seed).choice(cohort.training, count, replace=False))
