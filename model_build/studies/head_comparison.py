"""Compare the kinds of heads on the int8 embeddings of one model, by cross-validation over patients."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import msgspec
import numpy as np

from edge_agent.errors import ConfigError, ModelError
from edge_agent.imaging.preprocess import InputContract
from edge_agent.inference.bundle import load_bundle
from edge_agent.inference.head import Head
from edge_agent.inference.interpreter import Interpreter
from edge_agent.inference.scoring import make_scorer
from model_build.array_types import BoolArray, Float32Array, Int64Array
from model_build.config import HeadConfig, HeadKind
from model_build.data.split import patient_folds
from model_build.heads.fit import fit_head
from model_build.metrics.bootstrap import Estimate, estimate_of, patient_draws
from model_build.metrics.classification import roc_auc
from model_build.tables import Table, render_markdown, signed

FOLD_COUNT = 5
_TIMED_SCORES = 200


@dataclass(frozen=True)
class HeadResult:
    """One kind of head: its AUC, the difference from the first kind, and what it costs.

    ``fit_s`` is the mean over the folds; ``score_us`` the median for one embedding, as the device computes it; ``size_bytes`` that of the
    last fold's ``head.json``.
    """

    kind: HeadKind
    auc: Estimate
    difference: Estimate
    fit_s: float
    score_us: float
    size_bytes: int


def every_kind(config: HeadConfig) -> list[HeadConfig]:
    """The config's own head first, then every other kind with its defaults."""
    return [config, *(HeadConfig(kind=kind) for kind in get_args(HeadKind) if kind != config.kind)]


def read_model(path: Path, contract: InputContract) -> tuple[bytes, InputContract]:
    """Read the int8 model of a bundle, with its own input contract, or a bare ``.tflite``, with the one given.

    Raises
    ------
    ModelError
        If there is none, or it does not take images of the contract's size.
    """
    if path.is_dir():
        bundle = load_bundle(path)
        return bundle.model, bundle.input
    try:
        model = path.read_bytes()
    except OSError as fault:
        raise ModelError(f"{path}: cannot be read: {fault.strerror}; name a bundle folder or a .tflite file") from fault
    shape = Interpreter(model).input_shape
    if shape != (contract.rows, contract.columns, contract.channels):
        raise ModelError(f"{path}: takes images of {shape[0]}x{shape[1]}, the config says {contract.rows}x{contract.columns}")
    return model, contract


def compare_heads(
    embeddings: Float32Array,
    positive: BoolArray,
    patients: Sequence[str],
    heads: Sequence[HeadConfig],
    seed: int,
    on_fit: Callable[[int, str], None] = lambda done, note: None,
) -> list[HeadResult]:
    """Fit every head on the same folds and score the patients left out.

    Parameters
    ----------
    embeddings : ndarray, float32, shape (images, D)
        Of the int8 model, dequantised.
    positive : ndarray, bool, shape (images,)
    patients : sequence of str
        The patient of each image; no patient stands in two folds.
    heads : sequence of HeadConfig
        The first is the one that the others are compared with.
    seed : int
        Of the folds and the bootstrap.
    on_fit : callable, optional
        Called with the number of fits done and what they were.

    Returns
    -------
    list of HeadResult
        In the order of ``heads``. The AUC is the mean over the folds, since scores of two fits are not one ranking. Intervals are 95 %, by
        bootstrap over patients; every head sees the same draws, so that the differences are paired. The spread between other training sets
        is not in them.

    Raises
    ------
    ConfigError
        If a fold lacks one of the classes.
    """
    folds = patient_folds(positive.astype(np.int64), patients, FOLD_COUNT, seed)
    if any(len(np.unique(positive[folds == fold])) < 2 for fold in range(FOLD_COUNT)):
        raise ConfigError(f"too few patients: each of {FOLD_COUNT} folds needs both classes; give more images")
    scores = np.zeros((len(heads), len(positive)), np.float32)
    fit_s = np.zeros((len(heads), FOLD_COUNT))
    fitted: list[Head] = []
    for index, config in enumerate(heads):
        for fold in range(FOLD_COUNT):
            rest, here = folds != fold, folds == fold
            started_s = time.perf_counter()
            head = fit_head(embeddings[rest], positive[rest], "positive", config)
            fit_s[index, fold] = time.perf_counter() - started_s
            scores[index, here] = make_scorer(head).logits(embeddings[here])
            on_fit(index * FOLD_COUNT + fold + 1, config.kind)
        fitted.append(head)
    values = np.array([_mean_auc(row, positive, folds) for row in scores])
    # Patients are numbered as they come, which the draws of a seed depend on.
    numbers = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    samples = patient_draws(np.array([numbers[patient] for patient in patients]), seed)
    draws = np.array([[_mean_auc(row[chosen], positive[chosen], folds[chosen]) for chosen in samples] for row in scores])
    return [
        HeadResult(
            kind=config.kind,
            auc=estimate_of(values[index], draws[index]),
            difference=estimate_of(values[index] - values[0], draws[index] - draws[0]),
            fit_s=float(fit_s[index].mean()),
            score_us=_score_us(fitted[index], embeddings),
            size_bytes=len(msgspec.json.encode(fitted[index])),
        )
        for index, config in enumerate(heads)
    ]


def _mean_auc(scores: Float32Array, positive: BoolArray, folds: Int64Array) -> float:
    """Mean of the folds' AUC; a fold that lacks a class in this draw is passed over."""
    values = [roc_auc(scores[folds == fold], positive[folds == fold]) for fold in range(FOLD_COUNT)]
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _score_us(head: Head, embeddings: Float32Array) -> float:
    scorer, durations_us = make_scorer(head), []
    for index in range(_TIMED_SCORES):
        started_ns = time.perf_counter_ns()
        scorer.logits(embeddings[index % len(embeddings)])
        durations_us.append((time.perf_counter_ns() - started_ns) / 1e3)
    return float(np.median(durations_us))


def render_comparison(results: Sequence[HeadResult], images: int, patients: int) -> str:
    """The comparison as a Markdown table with its caption."""
    columns = ("head", "AUC, mean of folds", f"difference from {results[0].kind}", "fit, s", "one score, µs", "head.json, bytes")
    rows = [
        (r.kind, r.auc, signed(r.difference) if index else "", f"{r.fit_s:.2f}", f"{r.score_us:.0f}", f"{r.size_bytes:,}")
        for index, r in enumerate(results)
    ]
    caption = (
        f"{FOLD_COUNT}-fold cross-validation over {patients} patients ({images} images), int8 embeddings; 95 % intervals, bootstrap over"
        " patients, the differences paired."
    )
    return render_markdown([caption, Table(columns, rows)])
