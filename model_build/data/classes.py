"""From the data set's own labels to the classes of a build."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_agent.errors import ConfigError
from edge_agent.records import Task
from model_build.array_types import BoolArray, Int64Array
from model_build.config import SourceConfig
from model_build.data.example import Example
from model_build.data.layouts.nih import NO_FINDING

_ALL_OTHERS = "*"


def choose_classes(example: Example, source: SourceConfig, task: Task) -> tuple[int, ...] | None:
    """The classes of an example, as ascending indices into ``source.labels``.

    Parameters
    ----------
    example : Example
        As the layout's reader lists it.
    source : SourceConfig
        Its ``labels``, ``merge``, ``leave_out`` and ``negative``.
    task : str

    Returns
    -------
    tuple of int, or None
        For task binary and multiclass exactly one; None where ``source.leave_out`` leaves none, so that the image is left out. For
        multilabel any number: none at all is an image without a finding, and stays.

    Raises
    ------
    ConfigError
        If one of its labels is unknown to the config, or if it has no label or two classes and the task needs one; names file and line.
    """
    names = list(dict.fromkeys(source.merge.get(label, label) for label in example.labels))
    classes = tuple(sorted(source.labels.index(name) for name in names if name in source.labels))
    negative = {*source.negative, *([NO_FINDING] if source.layout == "nih" else ())} if task == "multilabel" else set()
    unknown = [name for name in names if not (name in source.labels or name in source.leave_out or name in negative)]
    if unknown and _ALL_OTHERS not in source.leave_out:
        ways = "source.merge, source.leave_out or source.negative" if task == "multilabel" else "source.merge or source.leave_out"
        raise ConfigError(
            f"{example.origin}: the label {unknown[0]!r} is none of source.labels {source.labels}; correct it, or name it in {ways}"
        )
    if classes and (both := [name for name in names if name in negative]):
        raise ConfigError(f"{example.origin}: {both[0]!r} stands beside {source.labels[classes[0]]!r}; remove one of them")
    if task == "multilabel":
        return classes
    if not names:
        raise ConfigError(f"{example.origin}: the image has no label, and task {task!r} needs one; fill it in or remove the line")
    if len(classes) > 1:
        raise ConfigError(
            f"{example.origin}: the image is {' and '.join(repr(source.labels[index]) for index in classes)} at once, and task {task!r}"
            " needs one; merge the two, leave one out by source.leave_out, or build with task 'multilabel'"
        )
    return classes or None


def targets_of(classes: Sequence[tuple[int, ...]], label_count: int) -> BoolArray:
    """The classes of every image as a table, bool, shape (images, labels)."""
    targets = np.zeros((len(classes), label_count), np.bool_)
    for row, own in zip(targets, classes, strict=True):
        row[list(own)] = True
    return targets


def strata_of(targets: BoolArray) -> Int64Array:
    """What a split has to spread evenly.

    Parameters
    ----------
    targets : ndarray, bool, shape (images, labels)

    Returns
    -------
    ndarray, int64, shape (images,)
        The index of the image's class; of several, the one that fewest images have; the number of labels where it has none.
    """
    by_rarity = np.argsort(targets.sum(axis=0), kind="stable")
    strata: Int64Array = by_rarity[targets[:, by_rarity].argmax(axis=1)]
    strata[~targets.any(axis=1)] = targets.shape[1]
    return strata
