"""The precision ablation in words: table, figure, and the sentence that answers which format to ship."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from matplotlib.figure import Figure

from model_build.metrics.bootstrap import Estimate
from model_build.metrics.noninferiority import AUC_MARGIN, judge_difference
from model_build.plots import BLUE, VERMILLION, Panel, Series, draw_panels
from model_build.studies.output import Study, estimate_series
from model_build.tables import Block, Table, figure_text, percent, signed

REFERENCE, DENSE, PRUNED = "float32", "int8 fine-tuned", "int8 pruned"


class NumberFormatFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One form of the model and its figures on the held-out patients.

    ``compared_with`` names the variant that the two differences are against, on the same patients; ``zero_share`` is that of the kernels'
    values as stored; ``agreement`` the share of labels equal to those of float32; ``latency_ms`` the median on one thread, and
    ``latency_ratio`` what it is of float32's, as :meth:`model_build.training.number_formats.Latencies.ratio_to` says.
    """

    name: str
    compared_with: str
    file_bytes: int
    zipped_bytes: int
    zero_share: float
    most_scales: int
    auc: Estimate
    sensitivity: Estimate
    specificity: Estimate
    auc_difference: Estimate
    balanced_accuracy_difference: Estimate
    agreement: float
    latency_ms: float
    latency_ratio: float


class HeadFit(msgspec.Struct, frozen=True, kw_only=True):
    """Heads for the int8 model, fitted on float32 or on int8 embeddings; the differences are int8 minus float32, on the same patients."""

    on_float: dict[str, Estimate]
    on_int8: dict[str, Estimate]
    difference: dict[str, Estimate]


class PrecisionAblation(msgspec.Struct, frozen=True, kw_only=True):
    """All variants of one trunk, in the order of the table."""

    held_out_images: int
    held_out_patients: int
    fine_tuning_epochs: int
    variants: list[NumberFormatFigures]
    head_fit: HeadFit


_SAME_SPEED = 0.1
"""Latencies whose ratio is nearer to 1 than this count as equal: one model differs as much from itself on a busy machine."""
_COLUMNS = (
    "variant",
    "bytes",
    "zipped",
    "zeros",
    "AUC",
    "AUC difference",
    "sensitivity",
    "specificity",
    "labels as float32",
    "latency, ms",
    "of float32's",
)


def _table(found: PrecisionAblation) -> Table:
    rows = [
        (
            v.name,
            f"{v.file_bytes:,}",
            f"{v.zipped_bytes:,}",
            percent(v.zero_share),
            figure_text(v.auc, 4),
            "" if v.name == REFERENCE else signed(v.auc_difference),
            figure_text(v.sensitivity),
            figure_text(v.specificity),
            percent(v.agreement, 1),
            f"{v.latency_ms:.2f}",
            f"{v.latency_ratio:.2f}",
        )
        for v in found.variants
    ]
    return Table(_COLUMNS, rows)


def _head_fit_table(fit: HeadFit) -> Table:
    names = {"auc": "AUC", "sensitivity": "sensitivity", "specificity": "specificity", "balanced_accuracy": "balanced accuracy"}
    rows = [
        (text, figure_text(fit.on_float[name], 4), figure_text(fit.on_int8[name], 4), signed(fit.difference[name]))
        for name, text in names.items()
    ]
    return Table(("heads of the int8 model fitted on", "float32 embeddings", "int8 embeddings", "int8 minus float32"), rows)


def answer_head_fit(fit: HeadFit) -> str:
    """Whether it matters, in a sentence."""
    auc, balanced = fit.difference["auc"], fit.difference["balanced_accuracy"]
    differences = f"AUC {signed(auc)}, balanced accuracy {signed(balanced)}"
    if auc.low > 0.0 or balanced.low > 0.0:
        return f"Fitting the heads on int8 embeddings wins over fitting them on float32 ones: {differences}."
    if auc.high < 0.0 or balanced.high < 0.0:
        return f"Fitting the heads on int8 embeddings loses against fitting them on float32 ones: {differences}."
    return (
        f"On these patients it makes no measurable difference whether the heads are fitted on int8 or on float32 embeddings: {differences}."
    )


def choose_format(variants: Sequence[NumberFormatFigures]) -> NumberFormatFigures:
    """The format to ship: of those whose AUC is no worse than float32's, the smallest of the fastest; float32 where there is none."""
    candidates = [
        v for v in variants if v.compared_with == REFERENCE and v.name != DENSE and judge_difference(v.auc_difference) == "no worse"
    ]
    if not candidates:
        return variants[0]
    fastest = min(v.latency_ratio for v in candidates)
    return min((v for v in candidates if v.latency_ratio <= fastest * (1.0 + _SAME_SPEED)), key=lambda v: v.file_bytes)


def answer_precision(found: PrecisionAblation) -> str:
    """Which format to ship, what the others lose, and what pruning buys: one sentence, from the numbers."""
    variants = {v.name: v for v in found.variants}
    reference, best = variants[REFERENCE], choose_format(found.variants)
    if best is reference:
        parts = [f"No other format is shown to keep the AUC of {REFERENCE} within {AUC_MARGIN}: ship {REFERENCE}"]
    else:
        parts = [
            f"Ship {best.name}: {reference.file_bytes / best.file_bytes:.1f} times smaller than float32 and {_speed(best)},"
            f" AUC {signed(best.auc_difference)} against it, {percent(best.agreement, 1)} of the labels the same"
        ]
    others = [v for v in found.variants if v.compared_with == REFERENCE and v.name not in (REFERENCE, DENSE, best.name)]
    if worse := [v for v in others if judge_difference(v.auc_difference) == "worse"]:
        parts.append("AUC is lost by " + " and ".join(f"{v.name}, {signed(v.auc_difference)}" for v in worse))
    if unclear := [v for v in others if judge_difference(v.auc_difference) == "unclear"]:
        parts.append("these patients leave open what is lost by " + " and ".join(f"{v.name}, {signed(v.auc_difference)}" for v in unclear))
    parts += [_pruning(v, variants[DENSE]) for v in found.variants if v.compared_with == DENSE]
    return "; ".join(parts) + f" ({found.held_out_images} images of {found.held_out_patients} held-out patients)."


def _speed(variant: NumberFormatFigures) -> str:
    if abs(variant.latency_ratio - 1.0) <= _SAME_SPEED:
        return "as fast"
    return f"{1.0 / variant.latency_ratio:.1f} times faster" if variant.latency_ratio < 1.0 else f"{variant.latency_ratio:.1f} times slower"


def _pruning(pruned: NumberFormatFigures, dense: NumberFormatFigures) -> str:
    saved = 1.0 - pruned.zipped_bytes / dense.zipped_bytes
    of_dense = pruned.latency_ratio / dense.latency_ratio
    time = "makes it no faster" if of_dense > 1.0 - _SAME_SPEED else f"saves {percent(1.0 - of_dense)} of the time"
    cost = {
        "no worse": "costs no AUC that counts",
        "worse": "costs AUC",
        "unclear": "may cost AUC",
    }[judge_difference(pruned.auc_difference)]
    share = pruned.name.removeprefix(f"{PRUNED} ")
    return f"pruning {share} of the weights saves {percent(saved)} of the zipped bytes, {time} and {cost}, {signed(pruned.auc_difference)}"


def draw_precision(found: PrecisionAblation) -> Figure:
    """AUC, size and latency of every variant."""
    variants = found.variants
    auc = estimate_series("AUC", BLUE, "o", [v.auc for v in variants])
    sizes = (
        Series("as a file", BLUE, "o", [v.file_bytes / 1e6 for v in variants]),
        Series("zipped", VERMILLION, "D", [v.zipped_bytes / 1e6 for v in variants]),
    )
    latency = Series("latency", BLUE, "o", [v.latency_ms for v in variants])
    panels = (
        Panel("AUC on held-out patients,\n95 % intervals", [auc]),
        Panel("megabytes", sizes, from_zero=True),
        Panel("ms on one thread", [latency], from_zero=True),
    )
    return draw_panels([v.name for v in variants], panels)


def describe_precision(found: PrecisionAblation) -> list[Block]:
    """The whole answer: sentence, table, what fitting on int8 wins."""
    note = (
        "Heads fitted, calibrated and operating points chosen anew for each variant; sensitivity and specificity at points chosen on other"
        " patients; 95 % intervals over patients. AUC difference: from float32 on the same patients, that of the pruned ones from"
        f" '{DENSE}', trained on for the same {found.fine_tuning_epochs} epochs without pruning. Zipped: deflate. Latency: LiteRT,"
        " one thread, this machine."
    )
    return [answer_precision(found), _table(found), note, answer_head_fit(found.head_fit), _head_fit_table(found.head_fit)]


PRECISION = Study(
    "precision",
    "Number formats and pruning",
    "model-build ablate precision RUN_FOLDER --data DIR",
    PrecisionAblation,
    describe_precision,
    draw_precision,
)
