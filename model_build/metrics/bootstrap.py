"""Intervals by bootstrap over patients: the images of one patient are drawn together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from model_build.array_types import Float64Array, Int64Array

BOOTSTRAP_DRAWS = 1000


class Estimate(msgspec.Struct, frozen=True):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f} to {self.high:.4f})"


def patient_draws(patients: Sequence[str] | Int64Array, seed: int, count: int = BOOTSTRAP_DRAWS) -> list[Int64Array]:
    """Indices of the images in each of ``count`` draws of patients with replacement."""
    _, codes = np.unique(np.asarray(patients), return_inverse=True)
    order = np.argsort(codes, kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(codes))[:-1])
    random = np.random.default_rng(seed)
    return [np.concatenate([groups[i] for i in random.integers(0, len(groups), len(groups))]) for _ in range(count)]


def estimate_figure(figure: Callable[[Int64Array], float], draws: Sequence[Int64Array]) -> Estimate:
    """A figure of all images, with its interval over draws of patients; draws where it is NaN are passed over.

    Parameters
    ----------
    figure : callable
        From indices, int64, shape (chosen,), to the figure.
    draws : sequence of ndarray
        From :func:`patient_draws`; every image stands in one at least.

    Returns
    -------
    Estimate
        The bounds are NaN where no draw has a value.
    """
    everything = np.arange(1 + max(int(chosen.max()) for chosen in draws))
    return estimate_of(figure(everything), np.array([figure(chosen) for chosen in draws]))


def estimate_of(value: float, drawn: Float64Array) -> Estimate:
    """A figure with the 95 % interval of its values in the draws, shape (draws,); NaN are passed over, and the bounds where all are."""
    known = drawn[~np.isnan(drawn)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (float("nan"), float("nan"))
    return Estimate(float(value), float(low), float(high))


_WEIGHTS_AT_ONCE = 4_000_000
"""Weights of so many images, over the draws held at once: 32 MB."""


def patient_quantiles(
    patients: Int64Array, figure: Callable[[Float64Array], Float64Array], seed: int, shares: Sequence[float] = (0.025, 0.975)
) -> tuple[Float64Array, ...]:
    """Quantiles of one or several figures over draws of patients with replacement.

    Parameters
    ----------
    patients : ndarray, int64, shape (images,)
        The patient of each image.
    figure : callable
        From weights, shape (draws, images), equal within a patient, to the figures, shape (draws, points); NaN where there is none.
    seed : int
        Of the draws.
    shares : sequence of float
        Which quantiles; the ends of a 95 % interval if not given.

    Returns
    -------
    tuple of ndarray, float64, shape (points,)
        Each quantile, point by point, over 1,000 draws; NaN where no draw has a value.
    """
    _, patient_of = np.unique(patients, return_inverse=True)
    count, random = int(patient_of.max()) + 1, np.random.default_rng(seed)
    at_once = max(1, _WEIGHTS_AT_ONCE // len(patients))
    found = []
    for start in range(0, BOOTSTRAP_DRAWS, at_once):
        drawn = [np.bincount(random.integers(0, count, count), minlength=count) for _ in range(min(at_once, BOOTSTRAP_DRAWS - start))]
        found.append(figure(np.stack(drawn)[:, patient_of].astype(np.float64)))
    values = np.concatenate(found)
    known = ~np.isnan(values).all(axis=0)
    quantiles = np.full((len(shares), values.shape[1]), np.nan)
    if known.any():
        quantiles[:, known] = np.nanquantile(values[:, known], shares, axis=0)
    return tuple(quantiles)


def estimate_columns(patients: Int64Array, figure: Callable[[Float64Array], Float64Array], seed: int) -> list[Estimate]:
    """Figures of all images, each with its interval over draws of patients.

    Parameters
    ----------
    patients, figure, seed
        As for :func:`model_build.metrics.bootstrap.patient_quantiles`.
    """
    values = figure(np.ones((1, len(patients))))[0]
    low, high = patient_quantiles(patients, figure, seed)
    return [Estimate(*bounds) for bounds in zip(values.tolist(), low.tolist(), high.tolist(), strict=True)]
