"""A finished run read back: its models, what they gave for the held-out images, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_agent.errors import ConfigError
from edge_agent.inference.head import Head, read_heads
from edge_agent.inference.interpreter import Interpreter
from edge_agent.inference.novelty import Reference, read_reference
from model_build.config import BuildConfig, load_build_config
from model_build.evaluation.held_out_metrics import Measured
from model_build.evaluation.held_out_outputs import HeldOut, read_held_out
from model_build.run_folder import CONFIG, HELD_OUT, MEASURED, fold_files


@dataclass(frozen=True)
class FoldModel:
    """The int8 model of one fold, its uncalibrated heads, and the statistics of the images that it was trained on."""

    model: bytes
    heads: list[Head]
    reference: Reference


@dataclass(frozen=True)
class MeasuredRun:
    """What a finished run keeps of its measured models, one for each fold, and of the images held out from them."""

    config: BuildConfig
    measured: Measured
    held_out: HeldOut
    models: list[FoldModel]


def read_measured_run(folder: Path) -> MeasuredRun:
    """Read config, decision rule, held-out images and measured models of a run.

    Raises
    ------
    ConfigError
        If a file is missing or is not what a build writes.
    """
    config = load_build_config(folder / CONFIG)
    held_out = read_held_out(folder / HELD_OUT)
    path = folder / MEASURED
    try:
        measured = msgspec.json.decode(path.read_bytes(), type=Measured)
        models = []
        for files in fold_files(folder, config.source.folds):
            path = files.model
            model = path.read_bytes()
            size = Interpreter(model).embedding_size
            path = files.heads
            heads = read_heads(path.read_bytes(), size)
            path = files.reference
            models.append(FoldModel(model, heads, read_reference(path.read_bytes(), size)))
    except FileNotFoundError:
        raise ConfigError(f"{path}: missing; the run was not finished, or was made by an earlier version: train again") from None
    except (OSError, msgspec.DecodeError) as fault:
        raise ConfigError(f"{path}: is not what a build wrote ({fault}); train again") from fault
    return MeasuredRun(config, measured, held_out, models)
