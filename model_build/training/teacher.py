"""The teacher of a distillation: the measured model of a finished run, which never saw the patients that the student is measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np

from edge_agent.errors import ConfigError, ModelError
from model_build.array_types import BoolArray
from model_build.config import BuildConfig, load_build_config
from model_build.evaluation.held_out_outputs import read_held_out
from model_build.run_folder import CONFIG, HELD_OUT, fold_files, read_report
from model_build.training.trunk.trunk import TRAINING_HEAD, build_network, load_trunk


class _Reported(msgspec.Struct):
    """What is read of a run's ``report.json``."""

    fingerprint: str


def load_teacher(run: Path, config: BuildConfig, *, fingerprint: str, held_out: BoolArray) -> Any:
    """Load the float network of a finished run, and make sure that it can teach this build without spoiling what is measured.

    Parameters
    ----------
    run : Path
        The run folder of ``model-build train``; its trunk may be of any kind and input size.
    config : BuildConfig
        The student's.
    fingerprint : str
        Of the student's images.
    held_out : ndarray, bool, shape (images,)
        The student's held-out images.

    Returns
    -------
    keras.Model
        Grey / 127.5 at the teacher's input size in; logits, float32, shape (batch, labels), and feature map out. Not trainable.

    Raises
    ------
    ConfigError, ModelError
        If the run is not finished or is another task's, or if its data or its held-out images are not the same: a teacher that saw the
        student's held-out patients would tell it about them.
    """
    if config.source.folds:
        raise ConfigError("a teacher needs one held-out split: it would have seen patients of every fold; set source.folds = 0")
    own = load_build_config(run / CONFIG)
    if (own.task, own.source.labels) != (config.task, config.source.labels):
        raise ConfigError(f"{run}: its labels are {own.source.labels} ({own.task}), this build's {config.source.labels} ({config.task})")
    try:
        reported = read_report(run, _Reported)
    except ConfigError as fault:
        raise ModelError(f"the teacher cannot be used: {fault}") from fault
    if reported.fingerprint != fingerprint:
        raise ConfigError(f"{run}: the teacher was trained on other images; train it on this build's data")
    if not np.array_equal(np.sort(read_held_out(run / HELD_OUT).indices), np.flatnonzero(held_out)):
        raise ConfigError(
            f"{run}: the teacher held other patients out, so it may have seen this build's; give both configs the same seed"
            f" (the teacher's is {own.seed}) and the same source section"
        )
    trunk = build_network(own.trunk, own.input.rows, own.input.columns)
    logits = keras.layers.Dense(len(config.source.labels), name=TRAINING_HEAD)(trunk.outputs[0])
    teacher = keras.Model(trunk.input, [logits, trunk.outputs[1]])
    load_trunk(teacher, fold_files(run, 0)[0].trunk)
    teacher.trainable = False
    return teacher
