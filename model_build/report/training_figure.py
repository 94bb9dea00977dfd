"""The training curve: loss and monitored AUC of every epoch."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from model_build.plots import BLUE, GREEN, GREY, LINES, STYLE, VERMILLION, svg
from model_build.training.epoch_log import Epoch

_FINISH = "finish"


def _by_phase(epochs: Sequence[Epoch]) -> dict[str, list[Epoch]]:
    phases: dict[str, list[Epoch]] = {}
    for entry in epochs:
        phases.setdefault(entry.phase, []).append(entry)
    return phases


def _plot(axes: Axes, series: Sequence[tuple[list[int], list[float]]], colour: str, line: int, mark: str, label: str) -> None:
    """One line for each phase, thin where there are several, and then their mean."""
    for at, values in series:
        alone = len(series) == 1
        axes.plot(
            at,
            values,
            color=colour,
            linestyle=LINES[line],
            marker=mark if alone else None,
            linewidth=1.5 if alone else 0.7,
            alpha=1.0 if alone else 0.5,
            label=label if alone else None,
        )
    if len(series) > 1:
        shortest = min(series, key=lambda one: len(one[0]))[0]
        means = np.mean([values[: len(shortest)] for _, values in series], axis=0)
        axes.plot(
            shortest, means, color=colour, linestyle=LINES[line], marker=mark, linewidth=1.8, label=f"{label}, mean of {len(series)} folds"
        )


def draw_training(epochs: Sequence[Epoch]) -> bytes:
    """Training loss, and loss and AUC on the monitored held-out images, of each epoch; an SVG file.

    Parameters
    ----------
    epochs : sequence of Epoch
        Of all phases. Folds start at epoch 1 each and are drawn on one another; a "finish" that goes on from the measured model is drawn
        behind its epochs, one that starts anew, as after folds, from epoch 1.
    """
    phases = _by_phase(epochs)
    finish = phases.pop(_FINISH, [])
    measured = list(phases.values())
    offset = len(measured[0]) if len(measured) == 1 else 0
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.4, 3.4), layout="constrained")
        left, right = figure.subplots(1, 2)
        if measured:
            series = [([entry.epoch for entry in own], [entry.loss for entry in own]) for own in measured]
            _plot(left, series, BLUE, 0, "o", "training")
        if finish:
            again = [([offset + entry.epoch for entry in finish], [entry.loss for entry in finish])]
            _plot(left, again, VERMILLION, 1, "s", "training, the model that ships")
        for axes, name, colour, line, mark in ((left, "monitor_loss", GREEN, 2, "^"), (right, "monitor_auc", GREEN, 2, "^")):
            known = [[(entry.epoch, getattr(entry, name)) for entry in own if getattr(entry, name) is not None] for own in measured]
            pairs = [([epoch for epoch, _ in own], [value for _, value in own]) for own in known if own]
            if pairs:
                _plot(axes, pairs, colour, line, mark, "held-out images")
        left.set(xlabel="epoch", ylabel="loss", ylim=(0.0, None))
        right.set(xlabel="epoch", ylabel="AUC, mean over labels")
        for axes in (left, right):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if axes.has_data():
                axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), fontsize=9)
            else:
                axes.text(0.5, 0.5, "not monitored", transform=axes.transAxes, ha="center", color=GREY)
        return svg(figure)
