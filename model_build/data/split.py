"""Splits by patient: all images of one patient fall on the same side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge_agent.errors import ConfigError


def hold_out_patients(labels: NDArray[np.int64], patients: Sequence[str], fraction: float, seed: int) -> NDArray[np.bool_]:
    """Choose the patients to hold out, stratified by class.

    Parameters
    ----------
    labels : ndarray, int64, shape (images,)
        Class index per image.
    patients : sequence of str
        Patient per image.
    fraction : float
        Share of the patients to hold out, in (0, 1).
    seed : int
        The same seed, labels and patients give the same split, in any order of the images.

    Returns
    -------
    ndarray, bool, shape (images,)
        True where the image is held out. A patient with several classes counts with the highest one.

    Raises
    ------
    ConfigError
        If a class has fewer than two patients, so that no split can show it on both sides.
    """
    stratum: dict[str, int] = {}
    for label, patient in zip(labels.tolist(), patients, strict=True):
        stratum[patient] = max(label, stratum.get(patient, label))
    held_out: set[str] = set()
    for label in sorted(set(labels.tolist())):
        members = sorted(patient for patient, highest in stratum.items() if highest == label)
        if len(members) < 2:
            raise ConfigError(f"class {label} has {len(members)} patient(s) of its own; at least 2 are needed to hold one out")
        count = min(max(1, round(fraction * len(members))), len(members) - 1)
        order = np.random.default_rng([seed, label]).permutation(len(members))
        held_out.update(members[i] for i in order[:count])
    return np.array([patient in held_out for patient in patients], dtype=np.bool_)
