"""How good a model gets from how few labels: the frozen, pretrained CNN against raw pixels, over several draws."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ConfigError
from edge_agent.inference.head import Head
from model_build.config import BuildConfig
from model_build.data.images import ImageSet
from model_build.data.split import hold_out
from model_build.evaluation.held_out_metrics import MIN_POSITIVES
from model_build.heads import fit as classical
from model_build.heads.embed import embed_images
from model_build.heads.raw_pixel_baseline import SIDE_PX, raw_pixels
from model_build.heads.self_training import fit_self_trained_heads
from model_build.metrics.classification import roc_auc
from model_build.report.score_figures import BLUE, VERMILLION
from model_build.run_folder import write_json, write_whole
from model_build.training.quantize import convert_to_int8
from model_build.training.trunk.trunk import build_network

LABELS_PER_CLASS = (10, 25, 50, 100, 250, 500)
DRAW_COUNT = 5

Booleans = NDArray[np.bool_]
Floats = NDArray[np.float32]


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


class Variant(msgspec.Struct, frozen=True):
    """Another way to use the same labels: AUC over the draws, and the difference within each draw from the first way of the table.

    ``difference_error`` is the standard error of the mean difference.
    """

    name: str
    labels_per_class: int
    auc: float
    spread: float
    difference: float
    difference_error: float


class LabelEfficiency(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured. ``labels`` are those whose AUC is averaged; ``variants`` is empty unless they were asked for."""

    name: str
    labels: list[str]
    draws: int
    held_out_images: int
    held_out_patients: int
    points: list[Point]
    variants: list[Variant] = []


@dataclass(frozen=True)
class Trial:
    """The images of a measurement: which are held out, and whose AUC counts.

    ``held_out`` is bool, shape (images,); ``columns`` are indices into the config's labels.
    """

    config: BuildConfig
    images: ImageSet
    held_out: Booleans
    columns: list[int]

    def draw(self, per_class: int, number: int) -> Booleans:
        """Draw so many training images of every class, bool, shape (images,); a finding (multilabel) that has fewer gives all it has."""
        drawn = np.zeros(len(self.held_out), np.bool_)
        for stratum in np.unique(self.images.strata[~self.held_out]):
            members = np.flatnonzero(~self.held_out & (self.images.strata == stratum))
            count = min(per_class, len(members))
            drawn[np.random.default_rng([self.config.seed + number, int(stratum)]).choice(members, count, replace=False)] = True
        return drawn

    def sizes(self) -> list[int]:
        """Those of ``LABELS_PER_CLASS`` that the training patients have enough images for."""
        counts = self.images.targets[~self.held_out].sum(axis=0)
        most = int(counts.max() if self.config.task == "multilabel" else counts.min())
        return [count for count in LABELS_PER_CLASS if count <= most]

    def mean_auc(self, logits: Floats) -> float:
        """AUC on the held-out images, mean over ``columns``; logits are float32, shape (held out, columns)."""
        truth = self.images.targets[self.held_out]
        return float(np.mean([roc_auc(logits[:, place], truth[:, column]) for place, column in enumerate(self.columns)]))

    def fit(self, values: Floats, drawn: Booleans) -> list[Head]:
        """Fit the config's heads for ``columns`` on the drawn images' values, float32, shape (drawn, D)."""
        labels, targets = self.config.source.labels, self.images.targets[drawn]
        return [classical.fit_head(values, targets[:, column], labels[column], self.config.head) for column in self.columns]


def make_trial(config: BuildConfig, images: ImageSet) -> Trial:
    """Hold patients out as a build of this config with one split does.

    Raises
    ------
    ConfigError
        If the trunk is not a pretrained one, or the training patients have too few images of a class.
    """
    if config.trunk.kind == "tiny":
        raise ConfigError('the tiny trunk is random before it is trained; set trunk.kind = "efficientnet_lite0", which is pretrained')
    source = config.source
    held_out, _ = hold_out(images.files, source, config.seed)
    columns = [source.labels.index(label) for label in classical.scored_labels(source.labels, config.task, source.positive)]
    if config.task == "multilabel":
        counts = images.targets[held_out].sum(axis=0)
        columns = [column for column in columns if counts[column] >= MIN_POSITIVES] or columns
    trial = Trial(config, images, held_out, columns)
    if not trial.sizes():
        counts = images.targets[~held_out].sum(axis=0)
        raise ConfigError(
            f"the training patients have {int(counts.min())} images of {source.labels[int(counts.argmin())]!r}; the curve begins at"
            f" {LABELS_PER_CLASS[0]} labels per class: give more images"
        )
    return trial


def measure_label_efficiency(config: BuildConfig, images: ImageSet) -> LabelEfficiency:
    """Fit the build's head on few labels, on the int8 embedding of the pretrained CNN and on raw pixels.

    Parameters
    ----------
    config : BuildConfig
        Its input, trunk, head, split, seed and self-training; nothing is fine-tuned.
    images : ImageSet
        All images, prepared.

    Returns
    -------
    LabelEfficiency
        Without variants. A point for each of ``LABELS_PER_CLASS`` that the training patients have enough images for; five draws each, the
        same draws for both. Where a build has several labels, the mean of their AUC, in multilabel builds of those with 20 held-out images.

    Raises
    ------
    ConfigError
        As :func:`make_trial`.

    Notes
    -----
    The raw pixels are grey values as they are. Standardised image by image they give less: 0.972 against 0.977 on paediatric chest films
    with 100 labels per class (``--variants``); the stronger one is what the CNN has to beat.
    """
    trial = make_trial(config, images)
    trunk = build_network(config.trunk, config.input.rows, config.input.columns)
    training = np.flatnonzero(~trial.held_out)
    count = min(config.quantize.representative_images, len(training))
    representative = images.pixels[np.sort(np.random.default_rng(config.seed).choice(training, count, replace=False))]
    embeddings = embed_images(convert_to_int8(trunk, representative), images.pixels).embeddings
    raw = raw_pixels(images, np.flatnonzero(trial.held_out))

    def embedding_auc(drawn: Booleans) -> float:
        if config.train.self_training:
            heads = fit_self_trained_heads(embeddings, images.targets, drawn, ~trial.held_out & ~drawn, config)
        else:
            heads = trial.fit(embeddings[drawn], drawn)
        return trial.mean_auc(classical.head_logits(heads, embeddings[trial.held_out]))

    def raw_pixel_auc(drawn: Booleans) -> float:
        return trial.mean_auc(classical.head_logits(trial.fit(raw_pixels(images, np.flatnonzero(drawn)), drawn), raw))

    points = []
    for per_class in trial.sizes():
        draws = [trial.draw(per_class, number) for number in range(DRAW_COUNT)]
        ours, theirs = (np.array([measure(drawn) for drawn in draws]) for measure in (embedding_auc, raw_pixel_auc))
        figures = (float(figure) for values in (ours, theirs, ours - theirs) for figure in (values.mean(), values.std()))
        points.append(Point(per_class, *figures))
    return LabelEfficiency(
        name=config.name,
        labels=[config.source.labels[column] for column in trial.columns],
        draws=DRAW_COUNT,
        held_out_images=int(trial.held_out.sum()),
        held_out_patients=len({images.files[index].patient for index in np.flatnonzero(trial.held_out).tolist()}),
        points=points,
    )


def compare_variants(
    names: Sequence[str], measure: Callable[[str, Booleans], float], trial: Trial, sizes: Sequence[int], draw_count: int
) -> list[Variant]:
    """Measure several ways on the same draws; the first is what the others are compared with.

    Parameters
    ----------
    names : sequence of str
    measure : callable
        From a name and the drawn images, bool, shape (images,), to an AUC.
    trial : Trial
    sizes : sequence of int
        Labels per class.
    draw_count : int
    """
    found = []
    for per_class in sizes:
        draws = [trial.draw(per_class, number) for number in range(draw_count)]
        first = np.array([measure(names[0], drawn) for drawn in draws])
        for name in names:
            values = first if name == names[0] else np.array([measure(name, drawn) for drawn in draws])
            gap, error = values - first, float((values - first).std() / np.sqrt(draw_count))
            found.append(Variant(name, per_class, float(values.mean()), float(values.std()), float(gap.mean()), error))
    return found


def render_table(measured: LabelEfficiency) -> str:
    """The curve, and the variants where they were measured, as Markdown."""
    what = "AUC" if len(measured.labels) == 1 else f"mean AUC of {len(measured.labels)} labels"
    lines = [
        f"{measured.name}: {what} on {measured.held_out_images} images of {measured.held_out_patients} held-out patients; mean ± standard"
        f" deviation over {measured.draws} draws of the labels.",
        "",
        f"| labels per class | int8 embedding of the pretrained CNN | raw pixels ({SIDE_PX} x {SIDE_PX}), same head | lead |",
        "|---|---|---|---|",
    ]
    for p in measured.points:
        ours, theirs = f"{p.embedding_auc:.3f} ± {p.embedding_spread:.3f}", f"{p.raw_pixel_auc:.3f} ± {p.raw_pixel_spread:.3f}"
        lines.append(f"| {p.labels_per_class} | {ours} | {theirs} | {p.lead:+.3f} ± {p.lead_spread:.3f} |")
    if not measured.variants:
        return "\n".join(lines)
    sizes = list(dict.fromkeys(v.labels_per_class for v in measured.variants))
    first, *_ = names = list(dict.fromkeys(v.name for v in measured.variants))
    cells = {(v.name, v.labels_per_class): v for v in measured.variants}
    lines += [
        "",
        f"What was tried, on float embeddings: AUC ± standard deviation over the draws, and the difference from '{first}' on the same draws"
        " ± its standard error.",
        "",
        f"| | {' | '.join(f'{size} per class' for size in sizes)} |",
        f"|---|{'---|' * len(sizes)}",
    ]
    for name in names:
        row = [cells[name, size] for size in sizes]
        gaps = ["" if name == first else f" ({v.difference:+.4f} ± {v.difference_error:.4f})" for v in row]
        lines.append(f"| {name} | {' | '.join(f'{v.auc:.4f} ± {v.spread:.4f}{gap}' for v, gap in zip(row, gaps, strict=True))} |")
    return "\n".join(lines)


def draw_curve(measured: LabelEfficiency) -> bytes:
    """The curve as a PNG: AUC over labels per class, a band of one standard deviation over the draws."""
    from matplotlib.figure import Figure

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
    what = "AUC" if len(measured.labels) == 1 else f"mean AUC of {len(measured.labels)} labels"
    axes.set_ylabel(f"{what}, held-out patients, {measured.draws} draws")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(loc="lower right")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()


def write_label_efficiency(measured: LabelEfficiency, out: Path) -> None:
    """Write ``label-efficiency.md``, ``.json`` and ``.png`` into a folder, which is made; the report of a run folder shows them.

    Raises
    ------
    DiskFullError, StorageError
        If they can not be written.
    """
    write_json(out / "label-efficiency.json", measured)
    write_whole(out / "label-efficiency.png", draw_curve(measured))
    write_whole(out / "label-efficiency.md", f"{render_table(measured)}\n".encode())
