"""The worst mistakes as thumbnails, with what spoke for the label."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from edge_agent.inference.heatmap import draw_heatmap
from edge_agent.records import Task
from model_build.array_types import UInt8Array
from model_build.data.images import ImageSet
from model_build.evaluation.held_out_metrics import PointMeasured
from model_build.evaluation.held_out_outputs import HeldOut
from model_build.metrics.classification import Scored, predicted_labels
from model_build.report.page import data_uri

_SIDE_PX = 192
"""Larger inputs are shown smaller: a page of twelve pairs stays well under the size that a mail takes."""


@dataclass(frozen=True)
class Mistake:
    """One wrong label: what is wrong, the score, the film and (linear heads only) its heatmap as data URIs."""

    kind: str
    probability: float
    film: str
    heatmap: str | None


def _thumbnail_uri(pixels: UInt8Array) -> str:
    image, stream = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((_SIDE_PX, _SIDE_PX))
    image.save(stream, format="PNG", optimize=True)
    return data_uri(stream.getvalue(), "image/png")


def show_mistakes(
    kept: HeldOut, images: ImageSet, scored: Sequence[Scored], points: Sequence[PointMeasured], labels: Sequence[str], task: Task
) -> list[Mistake]:
    """The mistakes that the run kept, the missed images first.

    Parameters
    ----------
    kept : HeldOut
    images : ImageSet
        The build's own.
    scored : sequence of Scored
        The held-out images at each of ``points``.
    points : sequence of PointMeasured
    labels : sequence of str
        Of the build.
    task : str
        With several classes the mistake names the true and the predicted one.
    """
    found = []
    for place, (position, index) in enumerate(zip(kept.worst.tolist(), kept.worst_points.tolist(), strict=True)):
        film, entry, seen = images.pixels[int(kept.indices[position])][:, :, 0], points[index], scored[index]
        probability, missed = float(seen.probabilities[position]), bool(seen.positive[position])
        kind = f"missed {entry.name}" if missed else f"false alarm: no {entry.name}"
        if task == "multiclass":
            said = predicted_labels([entry.point], labels, kept.probabilities[[position]], seen.predicted[[position], np.newaxis])
            kind = f"{labels[int(kept.targets[position].argmax())]}, called {labels[int(said[0])]}"
        heatmap = _thumbnail_uri(draw_heatmap(film, kept.evidence[place], probability)) if len(kept.evidence) else None
        found.append(Mistake(kind, probability, _thumbnail_uri(film), heatmap))
    return found
