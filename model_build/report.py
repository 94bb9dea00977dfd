"""The build's report and the model card, written from the same numbers."""

from __future__ import annotations

from typing import Any

import msgspec

from edge_agent.inference.bundle import DecisionRule
from model_build.config import BuildConfig
from model_build.evaluate import Confusion, Estimate

NOTICE = "Decision support for triage. Not a diagnosis, not a certified medical device."


class Counts(msgspec.Struct, frozen=True):
    """Images and patients of one side of the split, and images per label."""

    images: int
    patients: int
    per_label: dict[str, int]


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured on the held-out patients, with the model that never saw them."""

    official_split: bool = False
    training: Counts
    held_out: Counts
    metrics: dict[str, Estimate]
    metrics_cross_fitted: dict[str, Estimate]
    confusion: Confusion
    decision: DecisionRule
    calibration_slope: float
    calibration_intercept: float
    novel_share_held_out: float
    review_share_held_out: float
    float_auc: float
    int8_auc: float
    float_int8_agreement: float
    epoch_losses: list[float]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that ``report.json`` holds."""

    name: str
    version: str
    serial: int
    left_out: dict[str, int]
    leakage: str
    fingerprint: str
    measured: Measured
    shipped: Counts
    shipped_finish_epochs: int
    shipped_agreement_with_measured: float
    model_size_bytes: int
    embedding_size: int
    latency_ms: dict[str, float]
    build_seconds: float
    environment: dict[str, Any]


def metrics_for_manifest(measured: Measured) -> dict[str, Any]:
    """The part of the measurement that travels inside the bundle."""
    return {
        "split": split_name(measured),
        "held_out": msgspec.to_builtins(measured.held_out),
        "at_operating_point": msgspec.to_builtins(measured.metrics),
        "operating_point_cross_fitted": msgspec.to_builtins(measured.metrics_cross_fitted),
        "interval": "95 %, bootstrap over patients",
        "confusion": msgspec.to_builtins(measured.confusion),
        "float_auc": measured.float_auc,
        "int8_auc": measured.int8_auc,
        "float_int8_agreement": measured.float_int8_agreement,
    }


def split_name(measured: Measured) -> str:
    """The split in words."""
    if measured.official_split:
        return "the data set's own split"
    return f"{measured.held_out.patients} patients held out, stratified by class, of the same source as the training images"


def _counts_row(title: str, counts: Counts) -> str:
    labels = ", ".join(f"{name} {count}" for name, count in counts.per_label.items())
    return f"| {title} | {counts.images} | {counts.patients} | {labels} |"


def _metrics_table(measured: Measured) -> list[str]:
    rows = ["| | at the operating point | operating point cross-fitted |", "|---|---|---|"]
    for name, estimate in measured.metrics.items():
        other = measured.metrics_cross_fitted.get(name)
        rows.append(f"| {name.replace('_', ' ')} | {estimate} | {other if other is not None else ''} |")
    return rows


def who_was_trained_on(report: Report) -> str:
    """In words: on whom the measured model and the one that ships were trained."""
    if report.shipped_finish_epochs == 0:
        return "The model that ships is the measured one: the held-out patients were never trained on."
    return (
        f"The figures belong to the model trained on the training patients only. The model that ships went on from it for"
        f" {report.shipped_finish_epochs} epochs on all patients, held-out ones included, and its head was fitted again on all of them;"
        " calibration, operating point, review band and novelty limit are those chosen on the held-out patients. The shipped model itself"
        " has therefore no held-out figures from this data."
        f" On all images its labels agree with the measured model's on {report.shipped_agreement_with_measured:.2%}."
    )


def render_report(report: Report, config: BuildConfig) -> str:
    """The report as Markdown."""
    measured, decision = report.measured, report.measured.decision
    matrix = measured.confusion
    positive = config.source.positive[0]
    negative = next(label for label in config.source.labels if label != positive)
    lines = [
        f"# {report.name} {report.version} (serial {report.serial})",
        "",
        f"{NOTICE} Made for: {config.card.population}.",
        "",
        "## Data",
        "",
        f"{config.source.title}; {config.source.licence}; {config.source.attribution}.",
        f"Fingerprint `{report.fingerprint}`; {sum(report.left_out.values())} files left out.",
        "",
        report.leakage,
        "",
        "| | images | patients | per label |",
        "|---|---|---|---|",
        _counts_row("trained on", measured.training),
        _counts_row("held out", measured.held_out),
        _counts_row("shipped model trained on", report.shipped),
        "",
        who_was_trained_on(report),
        "",
        "## Held-out patients, int8 model",
        "",
        f"Split: {split_name(measured)}. Intervals: 95 %, bootstrap over patients.",
        "The first column chooses calibration and threshold on the same patients that it reports; the second chooses them on four",
        "fifths of the held-out patients and reports the rest.",
        "",
        *_metrics_table(measured),
        "",
        f"| | predicted {positive} | predicted {negative} |",
        "|---|---|---|",
        f"| {positive} | {matrix.true_positive} | {matrix.false_negative} |",
        f"| {negative} | {matrix.false_positive} | {matrix.true_negative} |",
        "",
        f"Operating point {decision.threshold:.4f} ({decision.target});"
        f" review band {decision.review_low:.4f} to {decision.review_high:.4f}.",
        f"{measured.review_share_held_out:.1%} of the held-out images fall into the band;"
        f" {measured.novel_share_held_out:.1%} are called novel (limit: the {decision.novelty_quantile:g} quantile of held-out images).",
        "",
        "## Float against int8",
        "",
        "| | float | int8 |",
        "|---|---|---|",
        f"| AUC | {measured.float_auc:.4f} | {measured.int8_auc:.4f} |",
        "",
        f"Same label on {measured.float_int8_agreement:.2%} of the held-out images.",
        "",
        "## Size and speed",
        "",
        f"`model.tflite`: {report.model_size_bytes:,} bytes, embedding of {report.embedding_size} values, input"
        f" {config.input.rows} x {config.input.columns}.",
        "Median of one invocation on the building machine: "
        + ", ".join(f"{value:.2f} ms ({name})" for name, value in report.latency_ms.items())
        + ".",
        f"The build took {report.build_seconds / 60.0:.1f} minutes on {report.environment['cores']} cores ({report.environment['cpu']}).",
        "",
        "## Limits",
        "",
        *[f"* {limitation}" for limitation in config.card.limitations],
        "",
    ]
    if report.left_out:
        lines += ["## Files left out", "", *[f"* {count}: {reason}" for reason, count in report.left_out.items()], ""]
        lines += ["File names can hold patients, so none stands here: `model-build audit DATA --config CONFIG --names` tells them.", ""]
    return "\n".join(lines)


def render_model_card(report: Report, config: BuildConfig) -> str:
    """The model card that travels inside the bundle, as Markdown."""
    measured = report.measured
    lines = [
        f"# Model card: {report.name} {report.version} (serial {report.serial})",
        "",
        f"**{NOTICE}**",
        "",
        f"* Intended use: {config.card.intended_use}.",
        f"* Population: {config.card.population}.",
        f"* Labels: {', '.join(config.source.labels)}; positive: {', '.join(config.source.positive)}.",
        f"* Training data: {config.source.title}. Licence: {config.source.licence}. Attribution: {config.source.attribution}.",
        "",
        "## Not tested on, not made for",
        "",
        *[f"* {limitation}" for limitation in config.card.limitations],
        "",
        "An image unlike the training images is sent to a person (decision `review`, reason `novel`), whatever its score. This net is not",
        "without holes: it knows only what the training images look like.",
        "",
        "## Trained on whom, measured on whom",
        "",
        "| | images | patients | per label |",
        "|---|---|---|---|",
        _counts_row("trained on (measured model)", measured.training),
        _counts_row("held out", measured.held_out),
        _counts_row("trained on (shipped model)", report.shipped),
        "",
        who_was_trained_on(report),
        "",
        f"Split: {split_name(measured)}. Intervals: 95 %, bootstrap over patients.",
        "",
        *_metrics_table(measured),
        "",
        f"Operating point: {measured.decision.threshold:.4f} on the calibrated probability, chosen for {measured.decision.target}.",
        "",
        "These figures are from the training hospital. On films of another hospital expect worse, above all more false alarms.",
        "",
    ]
    return "\n".join(lines)
