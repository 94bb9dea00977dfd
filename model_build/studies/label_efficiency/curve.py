"""How good a model gets from how few labels: the frozen, pretrained CNN against raw pixels, over several draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_agent.errors import ConfigError
from edge_agent.inference.head import Head
from model_build.array_types import BoolArray, Float32Array
from model_build.config import BuildConfig
from model_build.data.cohort import draw_labels, draw_representative
from model_build.data.images import ImageSet
from model_build.data.split import hold_out
from model_build.evaluation.judged_labels import judged_columns
from model_build.heads import fit as classical
from model_build.heads.embed import embed_images
from model_build.heads.raw_pixel_baseline import raw_pixels
from model_build.heads.self_training import fit_self_trained_heads
from model_build.metrics.classification import roc_auc
from model_build.studies.label_efficiency.result import LabelEfficiency, Point
from model_build.training.quantize import convert_to_int8
from model_build.training.trunk.trunk import build_network

LABELS_PER_CLASS = (10, 25, 50, 100, 250, 500)
DRAW_COUNT = 5


@dataclass(frozen=True)
class LabelSplit:
    """The images of a measurement: which are held out, and whose AUC counts.

    ``held_out`` is bool, shape (images,); ``columns`` are indices into the config's labels.
    """

    config: BuildConfig
    images: ImageSet
    held_out: BoolArray
    columns: list[int]

    def draw(self, per_class: int, number: int) -> BoolArray:
        """Draw so many training images of every class, bool, shape (images,); a finding (multilabel) that has fewer gives all it has."""
        return draw_labels(self.images.strata, ~self.held_out, per_class, self.config.seed + number, or_all=True)

    def sizes(self) -> list[int]:
        """Those of ``LABELS_PER_CLASS`` that the training patients have enough images for."""
        counts = self.images.targets[~self.held_out].sum(axis=0)
        most = int(counts.max() if self.config.task == "multilabel" else counts.min())
        return [count for count in LABELS_PER_CLASS if count <= most]

    def mean_auc(self, logits: Float32Array) -> float:
        """AUC on the held-out images, mean over ``columns``; logits are float32, shape (held out, columns)."""
        truth = self.images.targets[self.held_out]
        return float(np.mean([roc_auc(logits[:, place], truth[:, column]) for place, column in enumerate(self.columns)]))

    def fit(self, values: Float32Array, drawn: BoolArray) -> list[Head]:
        """Fit the config's heads for ``columns`` on the drawn images' values, float32, shape (drawn, D)."""
        labels, targets = self.config.source.labels, self.images.targets[drawn]
        return [classical.fit_head(values, targets[:, column], labels[column], self.config.head) for column in self.columns]


def make_label_split(config: BuildConfig, images: ImageSet) -> LabelSplit:
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
        columns = judged_columns(images.targets[held_out].sum(axis=0)).tolist()
    split = LabelSplit(config, images, held_out, columns)
    if not split.sizes():
        counts = images.targets[~held_out].sum(axis=0)
        raise ConfigError(
            f"the training patients have {int(counts.min())} images of {source.labels[int(counts.argmin())]!r}; the curve begins at"
            f" {LABELS_PER_CLASS[0]} labels per class: give more images"
        )
    return split


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
        A point for each of ``LABELS_PER_CLASS`` that the training patients have enough images for; five draws each, the
        same draws for both. Where a build has several labels, the mean of their AUC, in multilabel builds of those with 20 held-out images.

    Raises
    ------
    ConfigError
        As :func:`make_label_split`.

    Notes
    -----
    The raw pixels are grey values as they are. Standardised image by image they give less: 0.972 against 0.977 on paediatric chest films
    with 100 labels per class. The CNN has to beat the stronger of the two.
    """
    split = make_label_split(config, images)
    trunk = build_network(config.trunk, config.input.rows, config.input.columns)
    representative = images.pixels[draw_representative(np.flatnonzero(~split.held_out), config)]
    embeddings = embed_images(convert_to_int8(trunk, representative), images.pixels).embeddings
    raw = raw_pixels(images, np.flatnonzero(split.held_out))

    def embedding_auc(drawn: BoolArray) -> float:
        if config.train.self_training:
            heads = fit_self_trained_heads(embeddings, images.targets, drawn, ~split.held_out & ~drawn, config)
        else:
            heads = split.fit(embeddings[drawn], drawn)
        return split.mean_auc(classical.head_logits(heads, embeddings[split.held_out]))

    def raw_pixel_auc(drawn: BoolArray) -> float:
        return split.mean_auc(classical.head_logits(split.fit(raw_pixels(images, np.flatnonzero(drawn)), drawn), raw))

    points = []
    for per_class in split.sizes():
        draws = [split.draw(per_class, number) for number in range(DRAW_COUNT)]
        ours, theirs = (np.array([measure(drawn) for drawn in draws]) for measure in (embedding_auc, raw_pixel_auc))
        figures = (float(figure) for values in (ours, theirs, ours - theirs) for figure in (values.mean(), values.std()))
        points.append(Point(per_class, *figures))
    return LabelEfficiency(
        name=config.name,
        labels=[config.source.labels[column] for column in split.columns],
        draws=DRAW_COUNT,
        held_out_images=int(split.held_out.sum()),
        held_out_patients=len({images.files[index].patient for index in np.flatnonzero(split.held_out).tolist()}),
        points=points,
    )
