"""The report's tables: the split, classes, findings, and what is left of the mistakes when images go to a person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model_build.array_types import BoolArray, Float64Array, Int64Array
from model_build.evaluation.held_out_metrics import Counts, PointMeasured
from model_build.evaluation.held_out_outputs import HeldOut
from model_build.metrics.classification import Scored
from model_build.metrics.curves import log_odds
from model_build.report.result import Report

_COVERAGES = (0.95, 0.9, 0.8, 0.7)


@dataclass(frozen=True)
class ClassRow:
    """One class, or one finding: NaN where it was never called, or no image has it."""

    name: str
    precision: float
    recall: float
    f1: float
    images: int


def class_row(name: str, hits: int, said: int, there: int) -> ClassRow:
    """Precision, recall and F1 from the images that have the class and were called so, that were called so, and that have it."""
    precision, recall = (hits / total if total else float("nan") for total in (said, there))
    return ClassRow(name, precision, recall, 2.0 * hits / (said + there) if said + there else float("nan"), there)


def class_rows(counts: Int64Array, labels: Sequence[str]) -> list[ClassRow]:
    """The classification report of exclusive classes, from ``counts[truth, said]``."""
    return [class_row(name, int(counts[i, i]), int(counts[:, i].sum()), int(counts[i].sum())) for i, name in enumerate(labels)]


def finding_rows(points: Sequence[PointMeasured]) -> list[ClassRow]:
    """The classification report of findings that may stand together, each at its operating point."""
    rows = []
    for entry in points:
        matrix = entry.confusion
        rows.append(class_row(entry.name, matrix.true_positive, matrix.true_positive + matrix.false_positive, entry.positives))
    return rows


@dataclass(frozen=True)
class CountsTable:
    """Images, patients and images of each label (the rows), of each side of the split (the columns)."""

    columns: list[str]
    rows: list[tuple[str, list[int]]]


def counts_table(report: Report, kept: HeldOut) -> CountsTable:
    """On whom was trained and measured; the folds stand each for itself."""
    measured, labels = report.measured, list(report.shipped.per_label)
    sides: dict[str, Counts] = {}
    if measured.fold_count:
        for number, fold in enumerate(np.unique(kept.folds).tolist(), start=1):
            own = kept.folds == fold
            counts = kept.targets[own].sum(axis=0).tolist()
            patients = len(np.unique(kept.patients[own]))
            sides[f"fold\N{NO-BREAK SPACE}{number}"] = Counts(int(own.sum()), patients, dict(zip(labels, counts, strict=True)))
    else:
        sides["trained on"] = measured.training
    sides["held out"] = measured.held_out
    sides["model that ships"] = report.shipped
    rows = [("images", [side.images for side in sides.values()]), ("patients", [side.patients for side in sides.values()])]
    rows += [(label, [side.per_label[label] for side in sides.values()]) for label in labels]
    return CountsTable(list(sides), rows)


def distance_from_points(scored: Sequence[Scored], thresholds: Sequence[float]) -> Float64Array:
    """How far, in log odds, each image's scores are from the nearest operating point, shape (images,)."""
    odds = [log_odds(one.probabilities) - log_odds(np.array(threshold)) for one, threshold in zip(scored, thresholds, strict=True)]
    return np.asarray(np.abs(np.stack(odds)).min(axis=0), np.float64)


def wrong_share(scored: Sequence[Scored]) -> Float64Array:
    """The share of each image's outcomes that are wrong, over the operating points, shape (images,)."""
    return np.asarray(np.mean([one.predicted != one.positive for one in scored], axis=0), np.float64)


@dataclass(frozen=True)
class CoverageRow:
    """What the model decides alone when it hands the least certain images to a person; over several findings, their outcomes together."""

    title: str
    kept: int
    handed_over: int
    missed: int
    false_alarms: int
    sensitivity: float
    specificity: float


def coverage_rows(scored: Sequence[Scored], thresholds: Sequence[float], reviewed: BoolArray) -> list[CoverageRow]:
    """What is left of the mistakes when the images to be reviewed, or a given share nearest to an operating point, go to a person.

    Parameters
    ----------
    scored : sequence of Scored
        The held-out images at each operating point.
    thresholds : sequence of float
    reviewed : ndarray, bool, shape (images,)
        The bundle's own choice.
    """
    distance = distance_from_points(scored, thresholds)
    predicted, positive = (np.stack([getattr(one, name) for one in scored]) for name in ("predicted", "positive"))

    def row(title: str, kept: BoolArray) -> CoverageRow:
        right = (predicted == positive)[:, kept]
        sides = [right[positive[:, kept]], right[~positive[:, kept]]]
        shares = [float(side.mean()) if len(side) else float("nan") for side in sides]
        return CoverageRow(title, int(kept.sum()), int((~kept).sum()), int((~sides[0]).sum()), int((~sides[1]).sum()), *shares)

    count = len(reviewed)
    rows = [row("nothing", np.ones(count, np.bool_)), row("what this bundle sends to review for its score", ~reviewed)]
    for coverage in _COVERAGES:
        kept = np.zeros(count, np.bool_)
        kept[np.argsort(-distance, kind="stable")[: round(coverage * count)]] = True
        rows.append(row(f"the least certain {100 * (1.0 - coverage):.0f} %", kept))
    return rows
