"""The build's report and the model card, written from the same numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from model_build.config import BuildConfig
from model_build.evaluation.held_out_metrics import Measured, PointMeasured
from model_build.evaluation.metric_names import metric_name
from model_build.heads.raw_pixel_baseline import SIDE_PX
from model_build.report.result import Report
from model_build.tables import Block, Table, confusion_table, render_markdown

NOTICE = "Decision support for triage. Not a diagnosis, not a certified medical device."


def metrics_for_manifest(measured: Measured) -> dict[str, Any]:
    """The part of the measurement that travels inside the bundle."""
    return {
        "split": split_name(measured),
        "held_out": msgspec.to_builtins(measured.held_out),
        "interval": "95 %, bootstrap over patients",
        "overall": msgspec.to_builtins(measured.overall),
        "points": {
            entry.name: {
                "threshold": msgspec.to_builtins(entry.threshold_interval),
                "at_operating_point": msgspec.to_builtins(entry.metrics),
                "operating_point_cross_fitted": msgspec.to_builtins(entry.metrics_cross_fitted),
                "confusion": msgspec.to_builtins(entry.confusion),
                "float_auc": entry.float_auc,
                "int8_auc": entry.int8_auc,
                "float_int8_agreement": entry.float_int8_agreement,
            }
            for entry in measured.points
        },
    }


def split_name(measured: Measured) -> str:
    """The split in words."""
    if measured.fold_count:
        return (
            f"{measured.fold_count}-fold cross-validation over {measured.held_out.patients} patients, stratified by class: each image is"
            " scored by a model that was trained on the patients of the other folds"
        )
    if measured.official_split:
        return "the data set's own split"
    return f"{measured.held_out.patients} patients held out, stratified by class, of the same source as the training images"


def who_was_trained_on(report: Report) -> str:
    """In words: on whom the measured model and the one that ships were trained."""
    agreement = f" On all images its labels agree with the measured model's on {report.shipped_agreement_with_measured:.2%}."
    if report.measured.fold_count:
        return (
            f"The figures belong to {report.measured.fold_count} models, each trained on the patients of all folds but one. The model that"
            " ships was trained in the same way on all patients; calibration, operating points, review bands and novelty limit are those"
            " chosen on the folds' held-out patients. The shipped model itself has therefore no held-out figures from this data."
            + agreement
        )
    if report.shipped_finish_epochs == 0:
        return "The model that ships is the measured one: the held-out patients were never trained on."
    return (
        f"The figures belong to the model trained on the training patients only. The model that ships went on from it for"
        f" {report.shipped_finish_epochs} epochs on all patients, held-out ones included, and its head was fitted again on all of them;"
        " calibration, operating point, review band and novelty limit are those chosen on the held-out patients. The shipped model itself"
        " has therefore no held-out figures from this data." + agreement
    )


def summary_lines(report: Report) -> list[str]:
    """The figures that a finished build prints first."""
    measured = report.measured
    where = f"{measured.fold_count}-fold cross-validation over patients" if measured.fold_count else "held-out patients"
    if measured.overall:
        return [f"{where}, int8: {metric_name(key)} {value}" for key, value in measured.overall.items()]
    metrics = measured.points[0].metrics
    return [
        f"{where}, int8: AUC {metrics['auc']}",
        f"at the operating point: sensitivity {metrics['sensitivity']}, specificity {metrics['specificity']}",
    ]


def shortcut_sentence(report: Report) -> str:
    """In words: how well the classes are guessed without looking at the picture; empty where that was not measured."""
    if not report.shortcuts:
        return ""
    worst = max(report.shortcuts, key=lambda entry: entry.together)
    alone = {"file size": worst.file_size, "image size": worst.image_size, "mean intensity": worst.mean_intensity}
    name = max(alone, key=lambda key: alone[key])
    text = (
        f"Without looking at the picture, {worst.label} is guessed from file size, image size and mean intensity with AUC"
        f" {worst.together:.2f} ({name} alone: {alone[name]:.2f})."
    )
    if worst.alarm:
        text += " That is an alarm: the classes were made differently, and the model may have learned how instead of the disease."
    return text


def _bullets(entries: Iterable[str]) -> str:
    return "\n".join(f"* {entry}" for entry in entries)


def _counts_table(report: Report, measured_title: str, shipped_title: str) -> Table:
    measured = report.measured
    sides = [] if measured.fold_count else [(measured_title, measured.training)]
    held_out = f"held out, each in one of {measured.fold_count} folds" if measured.fold_count else "held out"
    sides += [(held_out, measured.held_out), (shipped_title, report.shipped)]
    return Table(
        ("", "images", "patients", "per label"),
        [
            (title, side.images, side.patients, ", ".join(f"{name} {count}" for name, count in side.per_label.items()))
            for title, side in sides
        ],
    )


def _point_table(entry: PointMeasured) -> Table:
    rows = [(metric_name(name), estimate, entry.metrics_cross_fitted.get(name, "")) for name, estimate in entry.metrics.items()]
    baseline = (f"AUC of raw pixels alone (logistic regression, {SIDE_PX} x {SIDE_PX})", entry.baseline_auc, "")
    return Table(("", "at the operating point", "operating point cross-fitted"), [*rows, baseline])


def _findings_table(measured: Measured) -> Table:
    """One row for each operating point, for builds with several."""
    columns = ("finding", "positive images", "AUC", "AUC, raw pixels", "sensitivity", "specificity", "operating point")
    rows = [
        (
            *(entry.name, entry.positives, entry.metrics["auc"], entry.baseline_auc),
            *(entry.metrics_cross_fitted["sensitivity"], entry.metrics_cross_fitted["specificity"], entry.threshold_interval),
        )
        for entry in measured.points
    ]
    return Table(columns, rows)


def _results(measured: Measured, config: BuildConfig) -> list[Block]:
    blocks: list[Block] = []
    if measured.overall:
        blocks.append(Table(("", "cross-fitted"), [(metric_name(key), value) for key, value in measured.overall.items()]))
    if config.task == "multilabel":
        note = "Sensitivity and specificity: calibration and operating point chosen on other patients than those that are counted."
        return [*blocks, _findings_table(measured), note]
    if config.task == "multiclass":
        blocks += [
            confusion_table(measured.class_confusion, config.source.labels),
            f"{measured.points[0].name} against the rest:",
        ]
    return [*blocks, _point_table(measured.points[0])]


def _operating_points(measured: Measured) -> list[Block]:
    points = [
        f"{entry.name}: positive from {entry.point.threshold:.4f} on ({entry.point.target}; 95 % interval"
        f" {entry.threshold_interval.low:.4f} to {entry.threshold_interval.high:.4f}); review band {entry.point.review_low:.4f} to"
        f" {entry.point.review_high:.4f}."
        for entry in measured.points
    ]
    if measured.decision.label_margin > 0:
        points.append(f"Review, too, where the best class leads the next on its side by less than {measured.decision.label_margin:.4f}.")
    return [
        _bullets(points),
        f"{measured.review_share_held_out:.1%} of the held-out images are sent to review for their score;"
        f" {measured.novel_share_held_out:.1%} are called novel (limit: the {measured.decision.novelty_quantile:g} quantile of held-out"
        " images).",
    ]


def _calibrations(measured: Measured, labels: list[str]) -> Table:
    methods = list(measured.calibrations[0].log_losses)
    rows = [
        (label, chosen.method, *(f"{chosen.log_losses[name]:.4f}" for name in methods))
        for label, chosen in zip(labels, measured.calibrations, strict=True)
    ]
    return Table(("head", "chosen", *methods), rows)


def _float_against_int8(measured: Measured) -> Table:
    rows = [(one.name, f"{one.float_auc:.4f}", f"{one.int8_auc:.4f}", f"{one.float_int8_agreement:.2%}") for one in measured.points]
    return Table(("", "AUC, float", "AUC, int8", "same outcome"), rows)


def _size_and_speed(report: Report, config: BuildConfig) -> str:
    latencies = ", ".join(f"{value:.2f} ms ({name})" for name, value in report.latency_ms.items())
    return (
        f"`model.tflite`: {report.model_size_bytes:,} bytes, {report.multiply_adds / 1e6:.1f} million multiply-adds, embedding of"
        f" {report.embedding_size} values, input {config.input.rows} x {config.input.columns}.\n"
        f"Median of one invocation on the building machine: {latencies}.\n"
        f"The build took {report.build_seconds / 60.0:.1f} minutes on {report.environment['cores']} cores ({report.environment['cpu']})."
    )


def render_report(report: Report, config: BuildConfig) -> str:
    """The report as Markdown."""
    measured = report.measured
    heads = config.source.labels if config.task == "multiclass" else [entry.name for entry in measured.points]
    shortcut = shortcut_sentence(report)
    blocks: list[Block] = [
        f"# {report.name} {report.version} (serial {report.serial})",
        f"{NOTICE} Made for: {config.card.population}.",
        "## Data",
        f"{config.source.title}; {config.source.licence}; {config.source.attribution}.\n"
        f"Fingerprint `{report.fingerprint}`; {sum(report.left_out.values())} files left out.",
        report.leakage,
        *([shortcut] if shortcut else []),
        _counts_table(report, "trained on", "shipped model trained on"),
        who_was_trained_on(report),
        "## Held-out patients, int8 model",
        f"Split: {split_name(measured)}. Intervals: 95 %, bootstrap over patients.\n"
        "At the operating point, calibration and threshold are chosen on the same patients that are reported; cross-fitted, they are\n"
        "chosen on four fifths of the held-out patients and the rest is reported.",
        *_results(measured, config),
        *([_confusion(measured.points[0], config)] if config.task == "binary" else []),
        "## Operating point",
        *_operating_points(measured),
        "## Calibration",
        _calibrations(measured, heads),
        "Mean log loss in nats on held-out patients that the method was not fitted on.",
        "## Float against int8",
        _float_against_int8(measured),
        "## Size and speed",
        _size_and_speed(report, config),
        "## Limits",
        _bullets(config.card.limitations),
    ]
    if report.left_out:
        blocks += [
            "## Files left out",
            _bullets(f"{count}: {reason}" for reason, count in report.left_out.items()),
            "File names can identify patients, so none stands here: `model-build audit DATA --config CONFIG --names` lists them.",
        ]
    return render_markdown(blocks) + "\n"


def _confusion(entry: PointMeasured, config: BuildConfig) -> Table:
    positive, matrix = config.source.positive[0], entry.confusion
    negative = next(label for label in config.source.labels if label != positive)
    return Table(
        ("", f"predicted {positive}", f"predicted {negative}"),
        [(positive, matrix.true_positive, matrix.false_negative), (negative, matrix.false_positive, matrix.true_negative)],
    )


def render_model_card(report: Report, config: BuildConfig) -> str:
    """The model card that travels inside the bundle, as Markdown."""
    measured, shortcut = report.measured, shortcut_sentence(report)
    use = (
        f"Intended use: {config.card.intended_use}.",
        f"Population: {config.card.population}.",
        f"Task: {config.task}. Labels: {', '.join(config.source.labels)}; positive: {', '.join(config.source.positive)}.",
        f"Training data: {config.source.title}. Licence: {config.source.licence}. Attribution: {config.source.attribution}.",
    )
    blocks: list[Block] = [
        f"# Model card: {report.name} {report.version} (serial {report.serial})",
        f"**{NOTICE}**",
        _bullets(use),
        "## Not tested on, not made for",
        _bullets([*config.card.limitations, *([shortcut] if shortcut else [])]),
        "An image unlike the training images is sent to a person (decision `review`, reason `novel`), whatever its score. This net is not\n"
        "without holes: it knows only what the training images look like.",
        "## Trained on whom, measured on whom",
        _counts_table(report, "trained on (measured model)", "trained on (shipped model)"),
        who_was_trained_on(report),
        f"Split: {split_name(measured)}. Intervals: 95 %, bootstrap over patients.",
        *_results(measured, config),
        "## Operating point, on the calibrated probability",
        *_operating_points(measured),
        "These figures are from the training hospital. On films of another hospital expect worse, above all more false alarms.",
    ]
    return render_markdown(blocks) + "\n"
