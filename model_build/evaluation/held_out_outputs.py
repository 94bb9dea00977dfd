"""What a build keeps of its held-out images, to draw the report again without the data: scores and truth, no pixel, no name."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ConfigError
from edge_agent.inference.head import Head, LinearHead
from edge_agent.inference.interpreter import Interpreter
from edge_agent.inference.manifest import OperatingPoint
from edge_agent.inference.scoring import make_scorer
from model_build.array_types import BoolArray, Float32Array, Int64Array
from model_build.arrays import pack_arrays
from model_build.data.images import LabelledFile
from model_build.data.pixels import Pixels
from model_build.evaluation.held_out_metrics import DecisionOnHeldOut, HeldOutOutputs
from model_build.metrics.classification import point_scored
from model_build.metrics.curves import log_odds
from model_build.run_folder import write_whole

WORST_PER_KIND = 6
UNKNOWN_AGE = -1


@dataclass(frozen=True)
class HeldOut:
    """The measured models' output on the held-out images.

    ``probabilities`` (calibrated on all held-out patients) and ``cross_fitted`` (calibrated on the other folds' patients) are float32,
    shape (images, labels); ``targets``, bool, of the same shape, is the truth; ``cross_predicted``, bool, shape (images, points), has the
    outcomes at points chosen on the other folds' patients. ``patients`` are numbers without meaning, equal where the patient is; ``folds``
    says which model gave the scores; ``indices`` are the images' places in the image set. ``views`` and ``sexes`` (str, "" where not
    known) and ``ages_years`` (-1 where not known) are what the data set says of each image.

    ``worst`` are positions in these arrays: missed images, then false alarms, the most certain ones first; ``worst_points`` the operating
    point of each. ``evidence``, float32, shape (worst, h, w), is what :func:`edge_agent.inference.heatmap.draw_heatmap` takes for them;
    shape (0, 1, 1) where the heads are not linear, as no map of them would be true.
    """

    probabilities: Float32Array
    cross_fitted: Float32Array
    cross_predicted: BoolArray
    targets: BoolArray
    patients: Int64Array
    folds: Int64Array
    indices: Int64Array
    views: NDArray[np.str_]
    sexes: NDArray[np.str_]
    ages_years: Int64Array
    worst: Int64Array
    worst_points: Int64Array
    evidence: Float32Array


@dataclass(frozen=True)
class MeasuredModel:
    """The int8 model of one fold and the heads fitted on it."""

    model: bytes
    heads: list[Head]


def worst_mistakes(
    points: Sequence[OperatingPoint], labels: Sequence[str], probabilities: Float32Array, targets: BoolArray
) -> tuple[Int64Array, Int64Array]:
    """The most certain mistakes over all operating points: at most six missed images, then at most six false alarms.

    Returns
    -------
    ndarray, int64, shape (mistakes,)
        Positions of the images.
    ndarray, int64, shape (mistakes,)
        Index of the point at which each is wrong.
    """
    missed: list[tuple[float, int, int]] = []
    alarms: list[tuple[float, int, int]] = []
    nobody = np.zeros(len(targets), np.int64)
    for index, scored in enumerate(point_scored(points, labels, probabilities, targets, nobody)):
        distance = log_odds(scored.probabilities) - log_odds(np.array(points[index].threshold))
        for found, wrong in ((missed, scored.positive & ~scored.predicted), (alarms, ~scored.positive & scored.predicted)):
            found += [(-abs(float(distance[i])), int(i), index) for i in np.flatnonzero(wrong)]
    chosen = [*sorted(missed)[:WORST_PER_KIND], *sorted(alarms)[:WORST_PER_KIND]]
    return np.array([c[1] for c in chosen], np.int64), np.array([c[2] for c in chosen], np.int64)


def keep_held_out(
    path: Path,
    outputs: HeldOutOutputs,
    decided: DecisionOnHeldOut,
    labels: Sequence[str],
    files: Sequence[LabelledFile],
    evidence_of: Callable[[int, int, str], Float32Array] | None,
) -> None:
    """Write ``held_out.npz``.

    Parameters
    ----------
    path : Path
        Where it goes.
    outputs, decided : HeldOutOutputs, DecisionOnHeldOut
    labels : sequence of str
        Of the build.
    files : sequence of LabelledFile
        The whole image set.
    evidence_of : callable or None
        From :func:`evidence_mapper`.
    """
    codes = {patient: code for code, patient in enumerate(dict.fromkeys(outputs.patients))}
    points = decided.rule.points
    worst, worst_points = worst_mistakes(points, labels, decided.probabilities, outputs.targets)
    maps = []
    for position, point in zip(worst.tolist(), worst_points.tolist(), strict=True):
        if evidence_of is None:
            break
        columns = [labels.index(label) for label in points[point].labels]
        # A missed image: what spoke for its true label. A false alarm: what spoke for the label that was seen.
        weights = (
            outputs.targets[position, columns] if outputs.targets[position, columns].any() else decided.probabilities[position, columns]
        )
        label = points[point].labels[int(np.argmax(weights))]
        maps.append(evidence_of(int(outputs.indices[position]), int(outputs.folds[position]), label))
    own = [files[index] for index in outputs.indices.tolist()]
    kept = HeldOut(
        probabilities=decided.probabilities,
        cross_fitted=decided.cross_fitted,
        cross_predicted=decided.cross_predicted,
        targets=outputs.targets,
        patients=np.array([codes[patient] for patient in outputs.patients], np.int64),
        folds=outputs.folds,
        indices=outputs.indices,
        views=np.array([entry.view or "" for entry in own], dtype=np.str_),
        sexes=np.array([entry.sex or "" for entry in own], dtype=np.str_),
        ages_years=np.array([UNKNOWN_AGE if entry.age_years is None else entry.age_years for entry in own], np.int64),
        worst=worst,
        worst_points=worst_points,
        evidence=np.stack(maps) if maps else np.zeros((0, 1, 1), np.float32),
    )
    write_whole(path, pack_arrays(**asdict(kept)))


def evidence_mapper(models: Sequence[MeasuredModel], pixels: Pixels) -> Callable[[int, int, str], Float32Array] | None:
    """From (index into ``pixels``, fold, label) to the log odds of the label at each place of the feature map, shape (h, w).

    Returns
    -------
    callable or None
        None where the heads are not linear.
    """
    if not all(isinstance(head, LinearHead) for fold in models for head in fold.heads):
        return None
    interpreters: dict[int, Interpreter] = {}

    def evidence(index: int, fold: int, label: str) -> Float32Array:
        if fold not in interpreters:
            interpreters[fold] = Interpreter(models[fold].model)
        interpreters[fold].invoke(pixels[index])
        head = next((head for head in models[fold].heads if head.positive == label), models[fold].heads[0])
        return make_scorer(head).logits(interpreters[fold].feature_map())

    return evidence


def read_held_out(path: Path) -> HeldOut:
    """Read ``held_out.npz``.

    Raises
    ------
    ConfigError
        If it is missing or not what a build wrote.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return HeldOut(**arrays)
    except FileNotFoundError:
        raise ConfigError(f"{path}: missing; the run was not finished, or was made by an earlier version: train again") from None
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as fault:
        raise ConfigError(f"{path}: is not what a build wrote ({fault}); train again") from fault
