"""What the random changes in training are worth: the same training with none, one kind, or all of them, held out clean and under shift."""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable
from pathlib import Path

import keras
import msgspec
import numpy as np

from edge_agent.errors import ConfigError
from model_build.array_types import Float32Array
from model_build.arrays import read_arrays, write_arrays
from model_build.config import BuildConfig, TrainConfig
from model_build.data.cohort import Cohort, draw_representative
from model_build.data.images import ImageSet
from model_build.heads.embed import embed_images
from model_build.heads.fit import fit_heads, head_logits, label_probabilities
from model_build.metrics.classification import point_scored
from model_build.run_folder import write_whole
from model_build.studies.augmentation.result import BASELINE, AugmentationAblation, AugmentationGroup
from model_build.studies.shift.transforms import AS_IT_IS, SHIFTS, ShiftedPixels
from model_build.studies.variants import Figure, VariantResult, choose_on_logits, difference, estimate, mean_over_points
from model_build.training.augmentation_presets import PRESETS, PresetName, augmentation_preset
from model_build.training.quantize import convert_to_int8
from model_build.training.train import Phase, Step, Trainer
from model_build.training.trunk.trunk import build_network

_SHIFT_DRAWS = 400
"""Fewer than elsewhere: every draw looks at the images under a dozen shifts."""


def refuse_frozen(path: Path, train: TrainConfig) -> None:
    """Refuse a config that trains no CNN.

    Raises
    ------
    ConfigError
        If it is one.
    """
    if train.is_frozen:
        raise ConfigError(
            f"{path}: with train.labels_per_class = {train.labels_per_class} the CNN stays as it is, so that augmentation has no say;"
            f" ask for at least train.fine_tune_from = {train.fine_tune_from} labels"
        )


def with_group(config: BuildConfig, name: PresetName, epochs: int) -> BuildConfig:
    """The same build with one kind of random changes and another length."""
    augmentation = augmentation_preset(name, config.train.augmentation)
    return msgspec.structs.replace(config, train=msgspec.structs.replace(config.train, augmentation=augmentation, epochs=epochs))


def train_group(config: BuildConfig, images: ImageSet, cohort: Cohort, on_step: Callable[[Step], None]) -> bytes:
    """Train as the build of this config does before it measures, and convert to int8."""
    # Keras keeps the graphs of every model made.
    keras.backend.clear_session()
    gc.collect()
    trunk = build_network(config.trunk, config.input.rows, config.input.columns)
    trainer = Trainer(trunk, len(config.source.labels), config.train, config.seed, multilabel=config.task == "multilabel")
    phase = Phase("measure", config.train.epochs, config.train.learning_rate, config.train.head_learning_rate)
    trainer.run(phase, images.pixels, images.targets, chosen=cohort.training, on_step=on_step)
    trainer.use_averages()
    return convert_to_int8(trunk, images.pixels[draw_representative(cohort.training, config)])


def shifted_logits(model: bytes, images: ImageSet, cohort: Cohort, on_shift: Callable[[int, str], None]) -> Float32Array:
    """Fit the heads, and give the logits of the held-out images as they are and under each shift.

    Returns
    -------
    ndarray, float32, shape (1 + shifts, images, heads)
    """
    config, source = cohort.config, cohort.config.source
    training = embed_images(model, ShiftedPixels(images.pixels, cohort.training, AS_IT_IS)).embeddings
    heads = fit_heads(training, cohort.targets[cohort.training], source.labels, config.task, source.positive, config.head)
    logits = []
    for done, shift in enumerate((AS_IT_IS, *SHIFTS), start=1):
        logits.append(head_logits(heads, embed_images(model, ShiftedPixels(images.pixels, cohort.held_out, shift)).embeddings))
        on_shift(done, shift.name)
    return np.stack(logits)


def run_group(
    name: PresetName,
    images: ImageSet,
    cohort: Cohort,
    out: Path,
    epochs: int,
    on_stage: Callable[[str, int], None],
    on_advance: Callable[[int, str], None],
) -> Float32Array:
    """Train and look at one group, or take it from ``out`` where an earlier run of the same config and images left it.

    Returns
    -------
    ndarray, float32, shape (1 + shifts, images, heads)
        As :func:`shifted_logits`.
    """
    config, kept = with_group(cohort.config, name, epochs), out / f"{name}.npz"
    recipe = hashlib.sha256(msgspec.json.encode([config, images.fingerprint, [shift.name for shift in SHIFTS]])).hexdigest()
    if kept.exists():
        arrays = read_arrays(kept)
        if str(arrays["recipe"]) != recipe:
            raise ConfigError(f"{kept}: was made with another config, other images or another --epochs; name another --out")
        return arrays["logits"]
    batches = len(cohort.training) // min(config.train.batch_size, len(cohort.training))
    on_stage(f"training ({name})", epochs * batches)

    def on_step(step: Step) -> None:
        on_advance(step.epoch * step.batches_per_epoch + step.batch, f"epoch {step.epoch + 1} of {epochs}, loss {step.loss:.3f}")

    model = train_group(config, images, cohort, on_step)
    on_stage(f"shifts ({name})", 1 + len(SHIFTS))
    logits = shifted_logits(model, images, cohort, on_advance)
    write_whole(out / f"{name}.tflite", model)
    write_arrays(kept, logits=logits, recipe=np.array(recipe))
    return logits


def measure_augmentation(
    images: ImageSet,
    cohort: Cohort,
    out: Path,
    *,
    epochs: int,
    on_stage: Callable[[str, int], None] = lambda name, total: None,
    on_advance: Callable[[int, str], None] = lambda done, note: None,
) -> AugmentationAblation:
    """Train once for each kind of random changes, with the same seed on the same patients, and hold the models side by side.

    Parameters
    ----------
    images, cohort
        From :func:`model_build.data.cohort.read_cohort`; the cohort's config gives the ranges of the changes.
    out : Path
        An existing folder: finished groups are kept there, and not trained again.
    epochs : int
        Of each training.
    on_stage, on_advance : callable, optional
        Called at each stage with its number of steps, and with the steps done.

    Returns
    -------
    AugmentationAblation

    Raises
    ------
    ConfigError
        If ``out`` holds groups of another config, or a label is too rare.
    """
    logits = {name: run_group(name, images, cohort, out, epochs, on_stage, on_advance) for name in PRESETS}
    on_stage("figures", 1)
    outcomes = {name: choose_on_logits(found[0], cohort) for name, found in logits.items()}
    shifts = {name: _shift_figures(outcomes[name], found[1:]) for name, found in logits.items()}
    return AugmentationAblation(
        held_out_images=len(cohort.held_out),
        held_out_patients=len(set(cohort.held_out_patients)),
        epochs=epochs,
        shift_count=len(SHIFTS),
        groups=[_describe(name, outcomes, shifts) for name in PRESETS],
    )


def _shift_figures(outcome: VariantResult, logits: Float32Array) -> list[Figure]:
    """Balanced accuracy under each shift, at the rule chosen on all held-out images as they are; logits (shifts, images, heads)."""
    config, source, rule = outcome.cohort.config, outcome.cohort.config.source, outcome.decided.rule
    calibrations = [chosen.calibration for chosen in outcome.decided.calibrations]
    figures = []
    for shifted in logits:
        probabilities = label_probabilities(config.task, source.labels, source.positive, shifted, calibrations)
        seen = point_scored(rule.points, source.labels, probabilities, outcome.targets, outcome.cohort.held_out_patients)
        figures.append(mean_over_points(seen, "balanced_accuracy"))
    return figures


def _describe(name: PresetName, outcomes: dict[PresetName, VariantResult], shifts: dict[PresetName, list[Figure]]) -> AugmentationGroup:
    own, cohort = outcomes[name], outcomes[name].cohort
    everybody = np.arange(len(cohort.held_out))
    worst = int(np.argmin([figure(everybody) for figure in shifts[name]]))

    def mean_of(group: PresetName) -> Figure:
        return lambda chosen: float(np.mean([figure(chosen) for figure in shifts[group]]))

    return AugmentationGroup(
        name=name,
        auc=estimate(cohort, own.auc),
        balanced_accuracy=estimate(cohort, own.figure("balanced_accuracy")),
        shift_mean=estimate(cohort, mean_of(name), _SHIFT_DRAWS),
        worst=SHIFTS[worst].name,
        shift_worst=estimate(cohort, shifts[name][worst], _SHIFT_DRAWS),
        balanced_accuracy_difference=difference(cohort, own.figure("balanced_accuracy"), outcomes[BASELINE].figure("balanced_accuracy")),
        shift_mean_difference=difference(cohort, mean_of(name), mean_of(BASELINE), _SHIFT_DRAWS),
    )
