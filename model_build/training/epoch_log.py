"""What a run folder keeps of its epochs: how far the checkpoint is, and one line of metrics for each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from model_build.array_types import Int64Array
from model_build.data.images import ImageSet
from model_build.metrics.classification import label_aucs
from model_build.run_folder import write_whole

MONITORED_IMAGES = 256
"""Enough to see a training go wrong, cheap enough for every epoch. The figures of the report are those of all held-out images."""


@dataclass(frozen=True)
class Done:
    """How far a checkpoint is: its phase, the epochs done in it, and how long the build took until then, in seconds."""

    phase: str
    epochs: int
    elapsed_s: float


NOTHING_DONE = Done("", 0, 0.0)


def read_progress(checkpoint: Path) -> Done:
    """How far a checkpoint is, without loading its weights."""
    with np.load(checkpoint, allow_pickle=False) as arrays:
        return Done(str(arrays["phase"]), int(arrays["epochs_done"]), float(arrays["elapsed_s"]))


class Epoch(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of ``epochs.jsonl``: mean training loss, time since the build began, and the monitored figures, where there are any.

    ``monitor_loss`` and ``monitor_auc`` are those of the float network with its training head, on at most 256 held-out images.
    """

    phase: str
    epoch: int
    loss: float
    elapsed_s: float
    monitor_loss: float | None = None
    monitor_auc: float | None = None


class EpochLog:
    """``epochs.jsonl``, which never holds an epoch that the checkpoint does not."""

    def __init__(self, path: Path, done: Done) -> None:
        self.path = path
        kept = []
        for entry in read_epochs(path) if done != NOTHING_DONE and path.exists() else []:
            if entry.phase == done.phase and entry.epoch > done.epochs:
                break
            kept.append(entry)
        self._lines = [msgspec.json.encode(entry) + b"\n" for entry in kept]
        write_whole(path, b"".join(self._lines))

    def append(self, phase: str, epoch: int, loss: float, elapsed_s: float, metrics: dict[str, float]) -> None:
        """Add one epoch; errors as for :func:`~model_build.run_folder.write_whole`, and then the lines before it are still there."""
        entry = Epoch(phase, epoch, loss, round(elapsed_s, 1), metrics.get("monitor_loss"), metrics.get("monitor_auc"))
        self._lines.append(msgspec.json.encode(entry) + b"\n")
        write_whole(self.path, b"".join(self._lines))


def read_epochs(path: Path) -> list[Epoch]:
    """The epochs of a run, in their order."""
    return [msgspec.json.decode(line, type=Epoch) for line in path.read_bytes().splitlines()]


def monitor_metrics(model: Any, images: ImageSet, chosen: Int64Array, *, multilabel: bool) -> dict[str, float]:
    """Loss and mean AUC of the network as it stands, on at most 256 of the held-out images.

    Parameters
    ----------
    model : keras.Model
        From grey values / 127.5 to one logit for each label.
    images : ImageSet
    chosen : ndarray, int64, shape (held out,)
        Places of the held-out images; evenly spread ones are taken. Empty where nobody is held out: there is nothing to monitor then.
    multilabel : bool
        Whether each label is a yes or no of its own.

    Returns
    -------
    dict of str to float
        ``monitor_loss`` and ``monitor_auc``; empty where ``chosen`` is.
    """
    if len(chosen) == 0:
        return {}
    from model_build.training.trunk.trunk import INPUT_DIVISOR  # brings TensorFlow, which who only reads epochs need not wait for

    some = chosen[np.unique(np.linspace(0, len(chosen) - 1, min(MONITORED_IMAGES, len(chosen))).round().astype(np.int64))]
    targets = images.targets[some].astype(np.float64)
    inputs = images.pixels[some].astype(np.float32) / INPUT_DIVISOR
    logits = np.asarray(model.predict(inputs, batch_size=64, verbose=0), dtype=np.float64)
    if multilabel:
        loss = np.mean(np.logaddexp(0.0, logits) - targets * logits)
    else:
        highest = logits.max(axis=1, keepdims=True)
        log_sum = highest[:, 0] + np.log(np.exp(logits - highest).sum(axis=1))
        loss = np.mean(log_sum - (targets * logits).sum(axis=1))
    aucs = label_aucs(logits.astype(np.float32), targets > 0.5)
    return {"monitor_loss": float(loss)} | ({} if np.isnan(aucs).all() else {"monitor_auc": float(np.nanmean(aucs))})
