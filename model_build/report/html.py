"""The report as one HTML file that needs nothing else: no script, no network; figures and thumbnails stand inside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2
import msgspec
import numpy as np

from edge_agent.errors import ConfigError
from model_build.array_types import Int64Array
from model_build.config import BuildConfig, load_build_config
from model_build.data.images import ImageSet, read_images
from model_build.evaluation.held_out_metrics import Measured
from model_build.evaluation.held_out_outputs import HeldOut, read_held_out
from model_build.evaluation.metric_names import metric_name
from model_build.evaluation.subgroups import measure_subgroups
from model_build.report.figures import draw_figures, gather_evidence, measure_calibration_errors
from model_build.report.markdown import NOTICE, shortcut_sentence, split_name, who_was_trained_on
from model_build.report.mistakes import show_mistakes
from model_build.report.page import Page
from model_build.report.result import Report
from model_build.report.studies import Section, read_studies
from model_build.report.tables import class_rows, counts_table, coverage_rows, finding_rows
from model_build.run_folder import CONFIG, EPOCHS, HELD_OUT, PIXELS, REPORT_PAGE, read_report, write_whole
from model_build.training.epoch_log import Epoch, read_epochs


def _confusion(measured: Measured, config: BuildConfig) -> tuple[Int64Array, list[str]]:
    """``counts[truth, said]`` and the classes; empty where an image may have several labels."""
    labels, entry = config.source.labels, measured.points[0]
    if config.task == "multilabel":
        return np.zeros((0, 0), np.int64), []
    if config.task == "multiclass":
        return np.array(measured.class_confusion, np.int64), labels
    matrix = entry.confusion
    negative = next(label for label in labels if label not in entry.point.labels)
    counts = [[matrix.true_negative, matrix.false_positive], [matrix.false_negative, matrix.true_positive]]
    return np.array(counts, np.int64), [negative, entry.name]


def render_html(
    report: Report, config: BuildConfig, kept: HeldOut, *, images: ImageSet | None, epochs: list[Epoch], studies: list[Section]
) -> Page:
    """The report as HTML.

    Parameters
    ----------
    report, config
        As they stand in the run folder.
    kept : HeldOut
        Scores and truth of the held-out images.
    images : ImageSet or None
        The build's images: the worst mistakes are then shown as thumbnails, and the report must stay with the data.
    epochs : list of Epoch
        Of the training; empty where there was none.
    studies : list of Section
        From :func:`~model_build.report.studies.read_studies`.
    """
    measured, points = report.measured, report.measured.points
    evidence = gather_evidence(kept, report, config)
    counts, classes = _confusion(measured, config)
    errors = measure_calibration_errors(evidence)
    heads = [entry.name for entry in points] if config.task != "multiclass" else config.source.labels
    figures = draw_figures(evidence, counts, classes, errors, epochs)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["metric"] = metric_name
    fields: dict[str, Any] = {
        "notice": NOTICE,
        "report": report,
        "measured": measured,
        "config": config,
        "points": points,
        "split": split_name(measured),
        "who": who_was_trained_on(report),
        "shortcut": shortcut_sentence(report),
        "shortcut_alarm": any(entry.alarm for entry in report.shortcuts),
        "counts": counts_table(report, kept),
        "figures": figures,
        "classes": class_rows(counts, classes) if classes else finding_rows(points),
        "calibration_errors": errors,
        "calibrations": list(zip(heads, measured.calibrations, strict=True)),
        "coverages": coverage_rows(evidence.scored, evidence.thresholds, evidence.reviewed),
        "subgroups": measure_subgroups(kept, evidence.scored, measured, config),
        "studies": studies,
        "mistake_count": int(sum((one.predicted != one.positive).sum() for one in evidence.scored)),
        "mistakes": None if images is None else show_mistakes(kept, images, evidence.scored, points, config.source.labels, config.task),
    }
    drawings = [*figures.values(), *(study.figure for study in studies if study.figure is not None)]
    return Page(environment.get_template("report.html.j2").render(fields), drawings)


def _read_epochs(path: Path) -> list[Epoch]:
    try:
        # A build that fits only a head has no epochs.
        return read_epochs(path) if path.exists() else []
    except (OSError, msgspec.DecodeError) as fault:
        raise ConfigError(f"{path}: is not what a build wrote ({fault}); train again, or remove it") from fault


def render_run(folder: Path, report: Report, config: BuildConfig, images: ImageSet | None) -> Page:
    """The report of a run folder.

    Parameters
    ----------
    folder : Path
        Holds held_out.npz, epochs.jsonl, and what the commands wrote that look at one question each.
    report, config
        The build's numbers, and what it was asked for.
    images : ImageSet or None
        The build's images, for the thumbnails of the worst mistakes.

    Raises
    ------
    ConfigError
        If a file of the run is missing or cannot be read, or ``images`` are not those that the run was built from.
    """
    if images is not None and images.fingerprint != report.fingerprint:
        raise ConfigError(f"{folder}: was built from other images than those of --data; name the folder it was trained on")
    kept, epochs = read_held_out(folder / HELD_OUT), _read_epochs(folder / EPOCHS)
    return render_html(report, config, kept, images=images, epochs=epochs, studies=read_studies(folder))


def write_html_report(folder: Path, report: Report, config: BuildConfig, images: ImageSet | None) -> Path:
    """Write ``report.html`` into a run folder, whole or not at all; parameters as for :func:`render_run`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        As :func:`render_run`.
    DiskFullError, StorageError
        If it cannot be written.
    """
    path = folder / REPORT_PAGE
    write_whole(path, render_run(folder, report, config, images).text.encode())
    return path


def read_page(folder: Path) -> Page:
    """The report of a finished run without images: it may leave the data.

    Raises
    ------
    ConfigError
        As :func:`rewrite_html_report`.
    """
    return render_run(folder, read_report(folder, Report), load_build_config(folder / CONFIG), None)


def rewrite_html_report(folder: Path, data: Path | None) -> Path:
    """Write ``report.html`` again from the files of a finished run; with images if ``data``, the folder it was trained on, is given.

    Raises
    ------
    ConfigError
        If config.toml or report.json is missing; and as :func:`render_run`.
    """
    report, config = read_report(folder, Report), load_build_config(folder / CONFIG)
    images = None if data is None else read_images(data, config.source, config.input, task=config.task, cache=folder / PIXELS)
    return write_html_report(folder, report, config, images)
