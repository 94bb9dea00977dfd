"""What else could be made of few labels: blocks of the CNN, joined blocks, mirrored and changed copies, heads, unlabelled images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import msgspec
import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import LabelSpreading

from edge_agent.inference.head import Head
from edge_agent.inference.scoring import make_scorer
from model_build.array_types import BoolArray, Float32Array, Int64Array
from model_build.config import AugmentationConfig, HeadKind, TrunkConfig
from model_build.data.images import ImageSet
from model_build.heads.estimators import FITTERS, fit_logistic_regression
from model_build.heads.raw_pixel_baseline import raw_pixels
from model_build.studies.label_efficiency.curve import LabelSplit, compare_variants
from model_build.studies.label_efficiency.result import LabelUse
from model_build.training.augment import augment
from model_build.training.trunk.efficientnet import BLOCKS
from model_build.training.trunk.trunk import INPUT_DIVISOR, build_network

SIZES = (10, 100)
DRAW_COUNT = 10
READ_AFTER = (5, 8, 11, 15, 16)
BASE = 11
COPIES = 4
_BATCH = 32
_WHITENED = 50
_NEIGHBOURS = 15

# Much less than a fine-tuning takes: the CNN does not learn from these copies, only the head does.
NARROW = AugmentationConfig(
    rotation_deg=4, scale=0.06, aspect=0.04, shift=0.03, gamma=1.2, brightness=0.03, contrast=0.1, blur_probability=0.1, noise=0.01
)

Fit = Callable[[BoolArray, BoolArray], Float32Array]
"""From the drawn images and the positive ones, bool, shape (images,), to the held-out images' scores, float32."""


@dataclass(frozen=True)
class Views:
    """All images as the float CNN sees them, after each of ``READ_AFTER``: float32, shape (images, channels of that block).

    ``copies`` are changed at random, and NaN where an image was in no draw.
    """

    plain: dict[int, Float32Array]
    mirrored: dict[int, Float32Array]
    copies: list[dict[int, Float32Array]]
    raw: Float32Array


def _batches(images: ImageSet, chosen: Int64Array) -> Iterator[tuple[Int64Array, Any]]:
    for start in range(0, len(chosen), _BATCH):
        part = chosen[start : start + _BATCH]
        yield part, tf.constant(images.pixels[part].astype(np.float32) / 255.0)


def read_views(split: LabelSplit, draws: list[BoolArray]) -> Views:
    """Run the uncut CNN over all images, plain and mirrored, and over ``COPIES`` copies of the images of the draws."""
    images, contract = split.images, split.config.input
    trunk = build_network(TrunkConfig(block_count=len(BLOCKS)), contract.rows, contract.columns)
    ends = [[layer for layer in trunk.layers if layer.name.startswith(f"block{number - 1}_")][-1].output for number in READ_AFTER]
    model = keras.Model(trunk.input, [keras.layers.GlobalAveragePooling2D()(end) for end in ends])
    scale = 255.0 / INPUT_DIVISOR
    # The seed is an argument: TensorFlow would take a Python number for another program and compile it again.
    ways = {
        "plain": tf.function(lambda grey, seed: model(grey * scale, training=False)),
        "mirrored": tf.function(lambda grey, seed: model(grey[:, :, ::-1] * scale, training=False)),
        "copies": tf.function(lambda grey, seed: model(augment(grey, NARROW, seed) * scale, training=False)),
    }

    def view(way: str, chosen: Int64Array, copy: int = 0) -> dict[int, Float32Array]:
        found = {
            number: np.full((len(images.files), end.shape[-1]), np.nan, np.float32) for number, end in zip(READ_AFTER, ends, strict=True)
        }
        for part, grey in _batches(images, chosen):
            for number, values in zip(READ_AFTER, ways[way](grey, tf.constant([copy, int(part[0])], tf.int32)), strict=True):
                found[number][part] = np.asarray(values)
        return found

    everybody, drawn = np.arange(len(images.files)), np.flatnonzero(np.any(draws, axis=0))
    copies = [view("copies", drawn, copy) for copy in range(COPIES)]
    return Views(view("plain", everybody), view("mirrored", everybody), copies, raw_pixels(images, everybody))


class Ways:
    """Each way to make scores from labels, by its name; the first is the build's own without self-training."""

    def __init__(self, split: LabelSplit, views: Views) -> None:
        self.split, self.views = split, views
        self.held_out, self.pool = split.held_out, ~split.held_out
        self.strength = split.config.head.regularization
        self.fits: dict[str, Fit] = {f"block {BASE}": self._plain(self._joined(BASE))}
        self._add_embeddings()
        self._add_copies()
        self._add_heads()
        self._add_unlabelled()
        raw = views.raw
        standardised = (raw - raw.mean(axis=1, keepdims=True)) / np.maximum(raw.std(axis=1, keepdims=True), 1e-6)
        self.fits["raw pixels"] = self._plain(raw)
        self.fits["raw pixels, C = 0.001"] = self._plain(raw, strength=0.001)
        self.fits["raw pixels, standardised image by image"] = self._plain(standardised)

    def auc(self, name: str, drawn: BoolArray) -> float:
        """Mean AUC over the split's labels on the held-out images."""
        targets = self.split.images.targets
        return self.split.mean_auc(np.stack([self.fits[name](drawn, targets[:, column]) for column in self.split.columns], axis=1))

    def _joined(self, *numbers: int, view: dict[int, Float32Array] | None = None) -> Float32Array:
        view = self.views.plain if view is None else view
        return np.concatenate([view[number] for number in numbers], axis=1)

    def _score(self, head: Head, values: Float32Array) -> Float32Array:
        return np.asarray(make_scorer(head).logits(values[self.held_out]))

    def _plain(self, values: Float32Array, kind: HeadKind = "logistic_regression", strength: float | None = None) -> Fit:
        # Of the other kinds each has its own default.
        own = msgspec.structs.replace(self.split.config.head, kind=kind, inverse_regularization=None).regularization
        chosen = strength or (self.strength if kind == "logistic_regression" else own)
        return lambda drawn, positive: self._score(FITTERS[kind](values[drawn], positive[drawn], "positive", chosen), values)

    def _add_embeddings(self) -> None:
        for number in READ_AFTER:
            if number != BASE:
                self.fits[f"block {number}"] = self._plain(self._joined(number))
        for numbers in ((8, 11), (5, 11), (5, 8, 11), (11, 15), (8, 11, 16)):
            self.fits[f"blocks {' + '.join(map(str, numbers))} joined"] = self._plain(self._joined(*numbers))
        values = self._joined(BASE)
        count = min(_WHITENED, values.shape[1], int(self.pool.sum()) - 1)
        whitened = PCA(count, whiten=True, random_state=0).fit(values[self.pool]).transform(values).astype(np.float32)
        self.fits[f"{count} principal components of all training images, whitened"] = self._plain(whitened)

    def _add_copies(self) -> None:
        mirrored = self._joined(BASE, view=self.views.mirrored)
        self.fits["mean with the mirrored image, training and test"] = self._plain((self._joined(BASE) + mirrored) / 2.0)
        self.fits["mirrored copies to train on"] = self._with_copies([self.views.mirrored])
        self.fits[f"mirrored and {COPIES} changed copies to train on"] = self._with_copies([self.views.mirrored, *self.views.copies])

    def _with_copies(self, copies: list[dict[int, Float32Array]]) -> Fit:
        plain = self._joined(BASE)
        every = [plain, *(self._joined(BASE, view=copy) for copy in copies)]

        def fit(drawn: BoolArray, positive: BoolArray) -> Float32Array:
            # An image and its copies together weigh as much as one image.
            weights = np.full(int(drawn.sum()) * len(every), 1.0 / len(every), np.float32)
            known, truth = np.concatenate([values[drawn] for values in every]), np.tile(positive[drawn], len(every))
            return self._score(fit_logistic_regression(known, truth, "positive", self.strength, weights), plain)

        return fit

    def _add_heads(self) -> None:
        values = self._joined(BASE)
        kinds: tuple[HeadKind, ...] = ("linear_discriminant", "linear_svm", "rbf_svm", "nearest_prototype", "random_forest")
        for kind in kinds:
            self.fits[kind.replace("_", " ")] = self._plain(values, kind)
        for strength in (0.01, 0.03, 0.3, 1.0):
            self.fits[f"logistic regression, C = {strength:g}"] = self._plain(values, strength=strength)

    def _add_unlabelled(self) -> None:
        for share, total in ((1.0, 1.0), (0.5, 1.0), (1.0, 5.0), (0.5, None)):
            what = "all" if share == 1.0 else f"the surer {share:.0%}"
            weight = "each as a label" if total is None else f"{total:g} times the labels' weight"
            self.fits[f"self-training: {what}, {weight}"] = self._self_training(share, total)
        self.fits["self-training, twice: the surer 50%, 1 times the labels' weight"] = self._self_training(0.5, 1.0, rounds=2)
        self.fits["label spreading among neighbours"] = self._spreading

    def _self_training(self, share: float, total: float | None, rounds: int = 1) -> Fit:
        """``total`` is the weight of all others together, in labels' weights; None gives each the weight of a label."""
        values = self._joined(BASE)

        def fit(drawn: BoolArray, positive: BoolArray) -> Float32Array:
            head = FITTERS["logistic_regression"](values[drawn], positive[drawn], "positive", self.strength)
            others = np.flatnonzero(self.pool & ~drawn)
            for _ in range(rounds if len(others) else 0):
                logits = make_scorer(head).logits(values[others])
                sides = [np.flatnonzero(side) for side in (logits > 0, logits <= 0)]
                surest = np.concatenate(
                    [side[np.argsort(-np.abs(logits[side]), kind="stable")][: round(share * len(side))] for side in sides]
                )
                said = positive.copy()
                said[others] = logits > 0
                chosen = np.concatenate([np.flatnonzero(drawn), others[surest]])
                weights = np.ones(len(chosen), np.float32)
                if total is not None:
                    weights[-len(surest) :] = total * drawn.sum() / len(surest)
                head = fit_logistic_regression(values[chosen], said[chosen], "positive", self.strength, weights)
            return self._score(head, values)

        return fit

    def _spreading(self, drawn: BoolArray, positive: BoolArray) -> Float32Array:
        """Zhou et al., Learning with local and global consistency, 2004; a logistic regression then learns what it says."""
        values = self._joined(BASE)
        scaled = StandardScaler().fit(values[self.pool]).transform(values[self.pool])
        known = np.where(drawn[self.pool], positive[self.pool].astype(np.int64), -1)
        # Of unit length, so that neighbours are those of the same direction.
        places = scaled / np.linalg.norm(scaled, axis=1, keepdims=True)
        neighbours = min(_NEIGHBOURS, len(places) - 1)
        said = LabelSpreading(kernel="knn", n_neighbors=neighbours, alpha=0.9, max_iter=100).fit(places, known).transduction_ == 1
        said[known >= 0] = known[known >= 0] == 1
        if said.all() or not said.any():
            said = np.where(known >= 0, known == 1, ~said)
        return self._score(FITTERS["logistic_regression"](values[self.pool], said, "positive", self.strength), values)


def measure_variants(split: LabelSplit, draw_count: int = DRAW_COUNT) -> list[LabelUse]:
    """Measure every way at 10 and 100 labels per class on float embeddings of the uncut CNN.

    Parameters
    ----------
    split : LabelSplit
    draw_count : int
        Draws of the labels at each number of them.

    Returns
    -------
    list of LabelUse
        The first is the embedding after block 11 with the config's logistic regression; the differences are from it.
    """
    sizes = [size for size in SIZES if size in split.sizes()]
    ways = Ways(split, read_views(split, [split.draw(size, number) for size in sizes for number in range(draw_count)]))
    return compare_variants(list(ways.fits), ways.auc, split, sizes, draw_count)
