"""What each number format and each share of pruned weights costs and saves, on one trained trunk."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_agent.errors import ConfigError
from model_build.array_types import Float32Array
from model_build.config import BuildConfig
from model_build.data.cohort import Cohort, draw_representative
from model_build.data.images import ImageSet
from model_build.run_folder import fold_files, write_whole
from model_build.studies.precision.result import DENSE, PRUNED, REFERENCE, HeadFit, NumberFormatFigures, PrecisionAblation
from model_build.studies.variants import Embeddings, VariantResult, agreement, difference, estimate, fit_and_choose
from model_build.tables import percent
from model_build.training.number_formats import PRECISIONS, Converted, Latencies, convert, embed, measure_latencies_ms, read_kernels
from model_build.training.pruning import prune_and_fine_tune
from model_build.training.train import Step
from model_build.training.trunk.trunk import build_network, load_trunk, save_trunk

PRUNED_SHARES = (0.0, 0.5, 0.75)
"""Nothing pruned, but fine-tuned alike: what the other two are compared with."""


@dataclass(frozen=True)
class TrainedTrunk:
    """The float weights that a finished run measured, and what they were trained on."""

    path: Path
    cohort: Cohort
    images: ImageSet

    @property
    def config(self) -> BuildConfig:
        """Of the run."""
        return self.cohort.config

    def load(self, path: Path | None = None) -> Any:
        """The trunk with its trained weights, or with those of another file."""
        trunk = build_network(self.config.trunk, self.config.input.rows, self.config.input.columns)
        load_trunk(trunk, path or self.path)
        return trunk


def default_epochs(config: BuildConfig) -> int:
    """Length of a fine-tuning: half of the training's."""
    return math.ceil(config.train.epochs / 2)


def trunk_path(run_folder: Path, config: BuildConfig) -> Path:
    """Where a run keeps its measured trunk; the first one where it has folds.

    Raises
    ------
    ConfigError
        If it is not there.
    """
    path = fold_files(run_folder, config.source.folds)[0].trunk
    if not path.is_file():
        raise ConfigError(f"{path}: missing; the run was not finished, or was made by an earlier version: train again")
    return path


def prune(trained: TrainedTrunk, share: float, epochs: int, out: Path, on_step: Callable[[Step], None]) -> Any:
    """The trunk with a share of its weights pruned, fine-tuned; kept in ``out``, and taken from there the next time.

    The file's name says from which weights, by which config and for how many epochs it was made.
    """
    recipe = hashlib.sha256(trained.path.read_bytes())
    recipe.update(msgspec.json.encode([trained.config, epochs, trained.images.fingerprint]))
    kept = out / f"pruned-{100 * share:.0f}-{recipe.hexdigest()[:12]}.npz"
    if kept.exists():
        return trained.load(kept)
    trunk = trained.load()
    prune_and_fine_tune(
        trunk,
        share,
        trained.images.pixels,
        trained.cohort.targets,
        trained.cohort.training,
        trained.config.train,
        epochs=epochs,
        seed=trained.config.seed,
        multilabel=trained.config.task == "multilabel",
        on_step=on_step,
    )
    save_trunk(trunk, kept)
    return trunk


def convert_all(
    trained: TrainedTrunk, epochs: int, out: Path, on_stage: Callable[[str, int], None], on_step: Callable[[Step], None]
) -> dict[str, Converted]:
    """Every variant as a ``.tflite`` file, by name; the files go into ``out`` too."""
    representative = trained.images.pixels[draw_representative(trained.cohort.training, trained.config)]
    models: dict[str, Converted] = {}
    trunk = trained.load()
    for precision in PRECISIONS:
        on_stage(f"converting to {precision}", 1)
        models[precision] = convert(trunk, precision, representative)
    for share in PRUNED_SHARES:
        name = f"{PRUNED} {percent(share)}" if share else DENSE
        batches = len(trained.cohort.training) // min(trained.config.train.batch_size, len(trained.cohort.training))
        on_stage(f"fine-tuning ({name})", epochs * batches)
        models[name] = convert(prune(trained, share, epochs, out, on_step), "int8 per channel", representative)
    for name, converted in models.items():
        write_whole(out / f"{name.replace(' %', '').replace(' ', '-')}.tflite", converted.model)
    return models


def measure_precision(
    run_folder: Path,
    images: ImageSet,
    cohort: Cohort,
    out: Path,
    *,
    epochs: int,
    on_stage: Callable[[str, int], None] = lambda name, total: None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> PrecisionAblation:
    """Convert a run's measured trunk into every format, and measure each on the patients that the run held out.

    Parameters
    ----------
    run_folder : Path
        Of a finished run; of one with folds, the first fold is looked at.
    images, cohort
        The images of the run and their split by the run's own config, from :func:`model_build.data.cohort.read_cohort`.
    out : Path
        An existing folder for the converted files and the pruned weights.
    epochs : int
        Length of each fine-tuning, while and after weights become zero.
    on_stage, on_step : callable, optional
        Called at each stage with its number of steps, and after each batch of a fine-tuning.

    Returns
    -------
    PrecisionAblation
        Every variant has heads fitted on its own embeddings of the training images.

    Raises
    ------
    ConfigError, ModelError
        If the run folder holds no trunk of this config, or a label is too rare.
    """
    trained = TrainedTrunk(trunk_path(run_folder, cohort.config), cohort, images)
    models = convert_all(trained, epochs, out, on_stage, on_step)
    if read_kernels(models["int8 per tensor"].model).most_scales != 1:
        raise RuntimeError(
            "this TensorFlow converts per channel although per tensor was asked for: model_build.training.quantize must be adapted to it"
        )
    embedded = {}
    for name, model in models.items():
        on_stage(f"embedding ({name})", 1)
        embedded[name] = Embeddings(embed(model, images.pixels, cohort.training), embed(model, images.pixels, cohort.held_out))
    on_stage("fitting heads", 1)
    outcomes = {name: fit_and_choose(e.training, e.held_out, cohort)[0] for name, e in embedded.items()}
    on_stage("latency", 1)
    latencies = measure_latencies_ms(models, images.pixels[int(cohort.held_out[0])])
    return PrecisionAblation(
        held_out_images=len(cohort.held_out),
        held_out_patients=len(set(cohort.held_out_patients)),
        fine_tuning_epochs=epochs,
        variants=[_describe(name, model, outcomes, latencies) for name, model in models.items()],
        head_fit=compare_head_fits(embedded[REFERENCE].training, embedded["int8 per channel"], cohort),
    )


def _describe(
    name: str, converted: Converted, outcomes: Mapping[str, VariantResult], latencies: Mapping[str, Latencies]
) -> NumberFormatFigures:
    own, compared_with = outcomes[name], DENSE if name.startswith(PRUNED) else REFERENCE
    other, cohort, kernels = outcomes[compared_with], own.cohort, read_kernels(converted.model)
    return NumberFormatFigures(
        name=name,
        compared_with=compared_with,
        file_bytes=len(converted.model),
        zipped_bytes=converted.zipped_bytes(),
        zero_share=kernels.zero_share,
        most_scales=kernels.most_scales,
        auc=estimate(cohort, own.auc),
        sensitivity=estimate(cohort, own.figure("sensitivity")),
        specificity=estimate(cohort, own.figure("specificity")),
        auc_difference=difference(cohort, own.auc, other.auc),
        balanced_accuracy_difference=difference(cohort, own.figure("balanced_accuracy"), other.figure("balanced_accuracy")),
        agreement=agreement(own, outcomes[REFERENCE]),
        latency_ms=float(np.median(latencies[name].medians)),
        latency_ratio=latencies[name].ratio_to(latencies[REFERENCE]),
    )


def compare_head_fits(float_training: Float32Array, int8: Embeddings, cohort: Cohort) -> HeadFit:
    """What is gained by fitting the heads on the embeddings that the device will compute, rather than on those of the float model.

    Parameters
    ----------
    float_training : ndarray, float32, shape (training images, D)
        The float trunk's embeddings of the training images.
    int8 : Embeddings
        The int8 model's, of training and held-out images.
    cohort : Cohort

    Returns
    -------
    HeadFit
        Both fits are calibrated, and their points chosen, on int8 embeddings of held-out patients, as a build does: what is left is the
        fit of the heads alone.
    """
    on_float, on_int8 = (fit_and_choose(fitted_on, int8.held_out, cohort)[0] for fitted_on in (float_training, int8.training))
    figures = ("auc", "sensitivity", "specificity", "balanced_accuracy")
    return HeadFit(
        on_float={name: estimate(cohort, on_float.figure(name)) for name in figures},
        on_int8={name: estimate(cohort, on_int8.figure(name)) for name in figures},
        difference={name: difference(cohort, on_int8.figure(name), on_float.figure(name)) for name in figures},
    )
