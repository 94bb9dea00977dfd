"""How good a model gets from how few labels: the frozen, pretrained CNN against raw pixels, over several draws."""

from __future__ import annotations

import io
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ConfigError
from edge_agent.imaging.preprocess import InputContract, prepare_input
from edge_agent.inference.scoring import make_scorer
from model_build import head as classical
from model_build.config import BuildConfig
from model_build.data.images import ImageSet
from model_build.data.split import draw_labels, hold_out
from model_build.embed import embed_images
from model_build.evaluate import roc_auc
from model_build.network import build_network
from model_build.quantize import convert_to_int8

LABELS_PER_CLASS = (10, 25, 50, 100, 250, 500)
DRAW_COUNT = 5
BASELINE_SIDE_PX = 48


class Point(msgspec.Struct, frozen=True):
    """AUC on the held-out patients at one number of labels: mean and spread (standard deviation) over the draws."""

    labels_per_class: int
    embedding_auc: float
    embedding_spread: float
    raw_pixel_auc: float
    raw_pixel_spread: float


def measure_label_efficiency(config: BuildConfig, images: ImageSet) -> list[Point]:
    """Fit the build's head on few labels, on the int8 embedding of the pretrained CNN and on raw pixels.

    Parameters
    ----------
    config : BuildConfig
        Its input, trunk, head, split and seed; nothing is fine-tuned.
    images : ImageSet
        All images, prepared.

    Returns
    -------
    list of Point
        One for each of ``LABELS_PER_CLASS`` that the training patients have enough images for; five draws each, the same draws for both.

    Raises
    ------
    ConfigError
        If the config's trunk is not a pretrained one.
    """
    if config.trunk.kind == "tiny":
        raise ConfigError('the tiny trunk is random before it is trained; set trunk.kind = "efficientnet_lite0", which is pretrained')
    held_out, _ = hold_out(images.files, config.source, config.seed)
    trunk = build_network(config.trunk, config.input.rows, config.input.columns)
    training = np.flatnonzero(~held_out)
    count = min(config.quantize.representative_images, len(training))
    representative = images.pixels[np.random.default_rng(config.seed).choice(training, count, replace=False)]
    embeddings = embed_images(convert_to_int8(trunk, representative), images.pixels).embeddings
    contract = InputContract(rows=BASELINE_SIDE_PX, columns=BASELINE_SIDE_PX)
    # In bytes: as floats, the baseline of many images would take more memory than all else.
    raw = np.empty((len(images.pixels), BASELINE_SIDE_PX**2), np.uint8)
    for index in range(len(raw)):
        raw[index] = prepare_input(images.pixels[index][:, :, 0], contract).ravel()
    positive = images.targets[:, config.source.labels.index(config.source.positive[0])]
    smallest_class = int(images.targets[~held_out].sum(axis=0).min())

    def auc(values: NDArray[np.float32] | NDArray[np.uint8], drawn: NDArray[np.bool_]) -> float:
        white = 255.0 if values.dtype == np.uint8 else 1.0
        known, unseen = ((values[chosen] / white).astype(np.float32) for chosen in (drawn, held_out))
        fitted = classical.fit_head(known, positive[drawn], config.source.positive[0], config.head)
        return roc_auc(make_scorer(fitted).logits(unseen), positive[held_out])

    points = []
    for per_class in (n for n in LABELS_PER_CLASS if n <= smallest_class):
        draws = [draw_labels(images.strata, ~held_out, per_class, config.seed + draw) for draw in range(DRAW_COUNT)]
        ours, theirs = ([auc(values, drawn) for drawn in draws] for values in (embeddings, raw))
        points.append(Point(per_class, float(np.mean(ours)), float(np.std(ours)), float(np.mean(theirs)), float(np.std(theirs))))
    return points


def render_table(points: list[Point]) -> str:
    """The curve as a Markdown table."""
    rows = [
        f"| {p.labels_per_class} | {p.embedding_auc:.3f} ± {p.embedding_spread:.3f} | {p.raw_pixel_auc:.3f} ± {p.raw_pixel_spread:.3f} |"
        for p in points
    ]
    head = f"| labels per class | AUC, int8 embedding of the pretrained CNN | AUC, raw pixels ({BASELINE_SIDE_PX} x {BASELINE_SIDE_PX}) |"
    return "\n".join([head, "|---|---|---|", *rows])


def draw_curve(points: list[Point]) -> bytes:
    """The curve as a PNG: AUC over labels per class, a band of one standard deviation over the draws."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    labels = [p.labels_per_class for p in points]
    # Blue and orange of Okabe and Ito: told apart by colour-blind readers, and by their marks in print.
    for name, colour, mark, means, spreads in (
        ("pretrained CNN, int8", "#0072B2", "o", [p.embedding_auc for p in points], [p.embedding_spread for p in points]),
        ("raw pixels", "#D55E00", "s", [p.raw_pixel_auc for p in points], [p.raw_pixel_spread for p in points]),
    ):
        axes.plot(labels, means, color=colour, marker=mark, label=name)
        low, high = np.subtract(means, spreads), np.minimum(np.add(means, spreads), 1.0)
        axes.fill_between(labels, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    axes.set_xticks(labels, [str(n) for n in labels])
    axes.minorticks_off()
    axes.set_xlabel("labels per class")
    axes.set_ylabel(f"AUC on held-out patients, {DRAW_COUNT} draws")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="lower right")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()


def write_label_efficiency(points: list[Point], out: Path) -> None:
    """Write ``label-efficiency.md``, ``.json`` and ``.png`` into a folder, which is made."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "label-efficiency.md").write_text(render_table(points) + "\n", encoding="utf-8")
    (out / "label-efficiency.json").write_bytes(msgspec.json.format(msgspec.json.encode(points), indent=2))
    (out / "label-efficiency.png").write_bytes(draw_curve(points))
