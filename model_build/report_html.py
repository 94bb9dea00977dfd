"""The report as one HTML file that needs nothing else: no script, no network; figures and thumbnails stand inside it."""

from __future__ import annotations

import base64
import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_agent.errors import ConfigError, DiskFullError, StorageError
from edge_agent.inference.heatmap import draw_heatmap
from model_build import figures
from model_build.config import BuildConfig, load_build_config
from model_build.curves import Booleans, average_precision, expected_calibration_error, log_odds, patient_band
from model_build.data.images import ImageSet, read_images
from model_build.evaluate import Estimate, Scored, point_scored
from model_build.held_out import HeldOut, read_held_out
from model_build.report import NOTICE, Report, shortcut_sentence, split_name, who_was_trained_on

_COVERAGES = (0.95, 0.9, 0.8, 0.7)


@dataclass(frozen=True)
class ClassRow:
    """One class at the operating point."""

    name: str
    precision: float
    recall: float
    f1: float
    images: int


@dataclass(frozen=True)
class CoverageRow:
    """What the model decides alone when it hands the least certain images to a person."""

    title: str
    kept: int
    handed_over: int
    missed: int
    false_alarms: int
    sensitivity: float
    specificity: float


@dataclass(frozen=True)
class Mistake:
    """One wrong label: the score, the film and (linear heads only) its heatmap as data URIs."""

    kind: str
    probability: float
    film: str
    heatmap: str | None


def data_uri(content: bytes, media_type: str) -> str:
    """Bytes as a ``data:`` URI, which an ``img`` element shows without a second file."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def class_rows(counts: NDArray[np.int64], labels: list[str]) -> list[ClassRow]:
    """Precision, recall and F1 of each class from ``counts[truth, predicted]``; NaN where a class was never predicted or is absent."""
    rows = []
    for index, name in enumerate(labels):
        hits, said, there = (float(v) for v in (counts[index, index], counts[:, index].sum(), counts[index].sum()))
        precision, recall = (hits / total if total else float("nan") for total in (said, there))
        rows.append(ClassRow(name, precision, recall, 2.0 * hits / (said + there) if said + there else float("nan"), int(there)))
    return rows


def coverage_rows(probabilities: NDArray[np.float32], positive: Booleans, threshold: float, band: tuple[float, float]) -> list[CoverageRow]:
    """What is left of the mistakes when the review band, or a given share nearest to the threshold, goes to a person."""
    distance = np.abs(log_odds(probabilities) - log_odds(np.array(threshold)))
    predicted = probabilities >= threshold

    def row(title: str, kept: Booleans) -> CoverageRow:
        sides = [(predicted == positive)[kept & side] for side in (positive, ~positive)]
        shares = [float(side.mean()) if len(side) else float("nan") for side in sides]
        return CoverageRow(title, int(kept.sum()), int((~kept).sum()), int((~sides[0]).sum()), int((~sides[1]).sum()), *shares)

    everything = np.ones(len(positive), np.bool_)
    rows = [row("nothing", everything), row("the review band of this bundle", (probabilities < band[0]) | (probabilities > band[1]))]
    for coverage in _COVERAGES:
        kept = np.zeros(len(positive), np.bool_)
        kept[np.argsort(-distance, kind="stable")[: round(coverage * len(positive))]] = True
        rows.append(row(f"the least certain {1.0 - coverage:.0%}", kept))
    return rows


def _png_uri(pixels: NDArray[np.uint8]) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG", optimize=True)
    return data_uri(stream.getvalue(), "image/png")


def _mistakes(kept: HeldOut, images: ImageSet, scored: list[Scored], names: list[str]) -> list[Mistake]:
    found = []
    for place, (position, point) in enumerate(zip(kept.worst.tolist(), kept.worst_points.tolist(), strict=True)):
        film = images.pixels[int(kept.indices[position])][:, :, 0]
        probability, positive = float(scored[point].probabilities[position]), bool(scored[point].positive[position])
        kind = f"missed {names[point]}" if positive else f"false alarm: no {names[point]}"
        heatmap = _png_uri(draw_heatmap(film, kept.evidence[place], probability)) if len(kept.evidence) else None
        found.append(Mistake(kind, probability, _png_uri(film), heatmap))
    return found


def _figure_uris(kept: HeldOut, report: Report, config: BuildConfig, counts: NDArray[np.int64], labels: list[str]) -> dict[str, str]:
    measured, entry, seed = report.measured, report.measured.points[0], config.seed
    point = entry.point
    scored = point_scored([point], config.source.labels, kept.probabilities, kept.targets, kept.patients)[0]
    crossed = point_scored([point], config.source.labels, kept.cross_fitted, kept.targets, kept.patients)[0].probabilities
    scores, positive, patients = scored.probabilities, scored.positive, kept.patients
    error = expected_calibration_error(crossed, positive)
    drawn = {
        "roc": figures.draw_roc(scores, positive, patients, point.threshold, entry.int8_auc, seed),
        "precision_recall": figures.draw_precision_recall(
            scores, positive, patients, point.threshold, average_precision(scores, positive), seed
        ),
        "confusion": figures.draw_confusion(counts, labels),
        "reliability": figures.draw_reliability(crossed, positive, error),
        "risk_coverage": figures.draw_risk_coverage(scores, positive, patients, point.threshold, measured.review_share_held_out, seed),
        "scores": figures.draw_scores(scores, positive, (labels[0], labels[1]), point.threshold, (point.review_low, point.review_high)),
    }
    if measured.epoch_losses:
        drawn["losses"] = figures.draw_losses(measured.epoch_losses)
    return {name: data_uri(content, "image/svg+xml") for name, content in drawn.items()}


def _calibration_error(crossed: NDArray[np.float32], positive: Booleans, patients: NDArray[np.int64], seed: int) -> Estimate:
    def error(chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.array([expected_calibration_error(crossed[chosen], positive[chosen])])

    low, high = patient_band(patients, error, seed)
    return Estimate(float(error(np.arange(len(positive)))[0]), float(low[0]), float(high[0]))


def render_html(report: Report, config: BuildConfig, kept: HeldOut, images: ImageSet | None) -> str:
    """The report as HTML.

    Parameters
    ----------
    report, config
        As they stand in the run folder.
    kept : HeldOut
        Scores and truth of the held-out images.
    images : ImageSet or None
        The build's images: the worst mistakes are then shown as thumbnails, and the report must stay with the data.

    Returns
    -------
    str
        One HTML document. No file name and no patient stands in it.
    """
    points, source = report.measured.points, config.source
    matrix, positive = points[0].confusion, points[0].name
    others = [label for label in source.labels if label not in points[0].point.labels]
    labels = [others[0] if config.task == "binary" else "the rest", positive]
    counts = np.array([[matrix.true_negative, matrix.false_positive], [matrix.false_negative, matrix.true_positive]])
    chosen = [entry.point for entry in points]
    scored = point_scored(chosen, source.labels, kept.probabilities, kept.targets, kept.patients)
    crossed = point_scored(chosen, source.labels, kept.cross_fitted, kept.targets, kept.patients)[0]
    band = (chosen[0].review_low, chosen[0].review_high)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    fields: dict[str, Any] = {
        "notice": NOTICE,
        "report": report,
        "measured": report.measured,
        "point": points[0],
        "shortcut": shortcut_sentence(report),
        "config": config,
        "positive": positive,
        "labels": labels,
        "split": split_name(report.measured),
        "who": who_was_trained_on(report),
        "figures": _figure_uris(kept, report, config, counts, labels),
        "calibration_error": _calibration_error(crossed.probabilities, crossed.positive, kept.patients, config.seed),
        "classes": class_rows(counts, labels),
        "coverages": coverage_rows(scored[0].probabilities, scored[0].positive, chosen[0].threshold, band),
        "mistake_count": matrix.false_negative + matrix.false_positive,
        "mistakes": None if images is None else _mistakes(kept, images, scored, [entry.name for entry in points]),
    }
    return environment.get_template("report.html.j2").render(fields)


def _read_report(path: Path) -> Report:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Report)
    except FileNotFoundError:
        raise ConfigError(f"{path}: missing; name the run folder of a finished `model-build train`") from None
    except (OSError, msgspec.DecodeError) as fault:
        raise ConfigError(f"{path}: is not a report of this version ({fault}); train again") from fault


def write_html_report(folder: Path, report: Report, config: BuildConfig, images: ImageSet | None) -> Path:
    """Write ``report.html`` into a run folder, whole or not at all.

    Parameters
    ----------
    folder : Path
        Holds held_out.npz.
    report, config
        The build's numbers, and what it was asked for.
    images : ImageSet or None
        The build's images, for the thumbnails of the worst mistakes.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        If held_out.npz is missing, or ``images`` are not those that the run was built from.
    DiskFullError, StorageError
        If it can not be written.
    """
    if images is not None and images.fingerprint != report.fingerprint:
        raise ConfigError(f"{folder}: was built from other images than those of --data; name the folder it was trained on")
    page = render_html(report, config, read_held_out(folder / "held_out.npz"), images)
    path, part = folder / "report.html", folder / ".report.html.part"
    try:
        with part.open("w", encoding="utf-8") as stream:
            stream.write(page)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    except OSError as fault:
        part.unlink(missing_ok=True)
        kind = DiskFullError if fault.errno == 28 else StorageError
        raise kind(f"{path}: can not be written: {fault.strerror}; free space and write it again with `model-build report`") from fault
    return path


def rewrite_html_report(folder: Path, data: Path | None) -> Path:
    """Write ``report.html`` again from the files of a finished run; with images where ``data``, the folder it was trained on, is given.

    Raises
    ------
    ConfigError
        If config.toml or report.json is missing; and as :func:`write_html_report`.
    """
    report, config = _read_report(folder / "report.json"), load_build_config(folder / "config.toml")
    images = None if data is None else read_images(data, config.source, config.input, task=config.task)
    return write_html_report(folder, report, config, images)
