"""The label-efficiency curve as data, table and figure."""

from __future__ import annotations

import msgspec
import numpy as np
from matplotlib.figure import Figure

from model_build.heads.raw_pixel_baseline import SIDE_PX
from model_build.plots import BLUE, VERMILLION
from model_build.studies.output import Study
from model_build.tables import Block, Table


class Point(msgspec.Struct, frozen=True):
    """AUC on the held-out patients at one number of labels: mean and spread (standard deviation) over the draws.

    ``lead`` and ``lead_spread`` are those of the difference within each draw, embedding less raw pixels.
    """

    labels_per_class: int
    embedding_auc: float
    embedding_spread: float
    raw_pixel_auc: float
    raw_pixel_spread: float
    lead: float
    lead_spread: float


class LabelEfficiency(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. ``labels`` are those whose AUC is averaged."""

    name: str
    labels: list[str]
    draws: int
    held_out_images: int
    held_out_patients: int
    points: list[Point]


def describe_label_efficiency(measured: LabelEfficiency) -> list[Block]:
    """The curve as a table."""
    points = [
        (
            str(p.labels_per_class),
            f"{p.embedding_auc:.3f} ± {p.embedding_spread:.3f}",
            f"{p.raw_pixel_auc:.3f} ± {p.raw_pixel_spread:.3f}",
            f"{p.lead:+.3f} ± {p.lead_spread:.3f}",
        )
        for p in measured.points
    ]
    columns = ("labels per class", "int8 embedding of the pretrained CNN", f"raw pixels ({SIDE_PX} x {SIDE_PX}), same head", "lead")
    return [
        f"{measured.name}: {_what(measured)} on {measured.held_out_images} images of {measured.held_out_patients} held-out patients; mean ±"
        f" standard deviation over {measured.draws} draws of the labels.",
        Table(columns, points),
    ]


def _what(measured: LabelEfficiency) -> str:
    return "AUC" if len(measured.labels) == 1 else f"mean AUC of {len(measured.labels)} labels"


def draw_curve(measured: LabelEfficiency) -> Figure:
    """The curve: AUC over labels per class, a band of one standard deviation over the draws."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    points = measured.points
    labels = [p.labels_per_class for p in points]
    # Told apart in print by their marks and lines.
    for name, colour, mark, line, means, spreads in (
        ("pretrained CNN, int8", BLUE, "o", "-", [p.embedding_auc for p in points], [p.embedding_spread for p in points]),
        (
            f"raw pixels, {SIDE_PX} x {SIDE_PX}",
            VERMILLION,
            "s",
            "--",
            [p.raw_pixel_auc for p in points],
            [p.raw_pixel_spread for p in points],
        ),
    ):
        axes.plot(labels, means, color=colour, marker=mark, linestyle=line, label=name)
        low, high = np.subtract(means, spreads), np.minimum(np.add(means, spreads), 1.0)
        axes.fill_between(labels, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(labels, [str(n) for n in labels])
    axes.minorticks_off()
    axes.set_xlabel("labels per class")
    axes.set_ylabel(f"{_what(measured)}, held-out patients, {measured.draws} draws")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="lower right")
    return figure


LABEL_EFFICIENCY = Study(
    "label-efficiency",
    "What each further label buys",
    "model-build label-efficiency RUN_FOLDER/config.toml --data DIR --out RUN_FOLDER",
    LabelEfficiency,
    describe_label_efficiency,
    draw_curve,
)
