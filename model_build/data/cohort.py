"""The cohort of a build: its images, read and split, and which of them are trained on, held out, or shown to the int8 conversion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_agent.errors import ConfigError
from model_build.array_types import BoolArray, Int64Array
from model_build.config import BuildConfig
from model_build.data.grouping import group_near_copies
from model_build.data.images import ImageSet, read_images
from model_build.data.split import cross_validation_folds, hold_out


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


def read_cohort_images(data: Path, config: BuildConfig, on_file: Callable[[int, int], None], cache: Path | None = None) -> ImageSet:
    """Read the images of a build; where the config asks for it, near copies become images of one patient.

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
        If the images cannot be read.
    """
    images = read_images(data, config.source, config.input, on_file, task=config.task, cache=cache)
    return group_near_copies(images) if config.source.group_near_copies else images


def split_patients(images: ImageSet, config: BuildConfig) -> tuple[list[BoolArray], bool]:
    """Choose the held-out images of each measured model.

    Returns
    -------
    list of ndarray, bool, shape (images,)
        One mask for each fold of ``source.folds``, or a single one.
    bool
        Whether the split is the data set's own.

    Raises
    ------
    ConfigError
        If a label is missing on one side.
    """
    if not config.source.folds:
        held_out, official = hold_out(images.files, config.source, config.seed)
        return [held_out], official
    fold_of_image = cross_validation_folds(images.files, config.source, config.seed)
    return [fold_of_image == fold for fold in range(config.source.folds)], False


def draw_training(images: ImageSet, candidates: BoolArray, config: BuildConfig) -> BoolArray:
    """The images to train on, bool, shape (images,): all candidates, or ``train.labels_per_class`` of each class.

    Raises
    ------
    ConfigError
        If a class has fewer candidates than that.
    """
    per_class = config.train.labels_per_class
    return draw_labels(images.strata, candidates, per_class, config.seed, config.source.labels) if per_class else candidates


def draw_labels(
    strata: Int64Array, candidates: BoolArray, per_class: int, seed: int, labels: Sequence[str] = (), *, or_all: bool = False
) -> BoolArray:
    """Draw the same number of images of every class.

    Parameters
    ----------
    strata : ndarray, int64, shape (images,)
        Class index per image, or what stands for it (:func:`~model_build.data.classes.strata_of`).
    candidates : ndarray, bool, shape (images,)
        The images to draw from: those of training patients.
    per_class : int
        How many of each class.
    seed : int
    labels : sequence of str, optional
        The classes' names, for the message.
    or_all : bool
        Take all images of a class that has fewer, instead of raising.

    Returns
    -------
    ndarray, bool, shape (images,)

    Raises
    ------
    ConfigError
        If a class has fewer, without ``or_all``.
    """
    drawn = np.zeros(len(strata), dtype=np.bool_)
    for stratum in np.unique(strata):
        members = np.flatnonzero(candidates & (strata == stratum))
        if len(members) < per_class and not or_all:
            names = dict(enumerate(map(repr, (*labels, "no finding") if labels else ())))
            raise ConfigError(
                f"train.labels_per_class asks for {per_class} images; the class {names.get(int(stratum), stratum)} has {len(members)} to"
                " train on; lower it or give more images"
            )
        count = min(per_class, len(members))
        drawn[np.random.default_rng([seed, int(stratum)]).choice(members, count, replace=False)] = True
    return drawn


def draw_representative(training: Int64Array, config: BuildConfig) -> Int64Array:
    """The training images that show the int8 conversion the range of every activation; ascending indices."""
    count = min(config.quantize.representative_images, len(training))
    # The image set may be sorted by label: a random draw shows the converter every class.
    return np.sort(np.random.default_rng(config.seed).choice(training, count, replace=False))


def split_cohort(images: ImageSet, config: BuildConfig) -> Cohort:
    """Split the images as the build of the same config does; of a build with folds, the first.

    Raises
    ------
    ConfigError
        If a label is missing on one side or has fewer images than ``train.labels_per_class``.
    """
    held_out = split_patients(images, config)[0][0]
    training = draw_training(images, ~held_out, config)
    patients = [entry.patient for entry in images.files]
    return Cohort(config, images.targets, images.strata, patients, np.flatnonzero(training), np.flatnonzero(held_out))


def read_cohort(data: Path, config: BuildConfig, on_file: Callable[[int, int], None], cache: Path | None = None) -> tuple[ImageSet, Cohort]:
    """Read and split the images; parameters and errors as for :func:`read_cohort_images` and :func:`split_cohort`."""
    images = read_cohort_images(data, config, on_file, cache)
    return images, split_cohort(images, config)
