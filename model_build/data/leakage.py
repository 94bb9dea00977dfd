"""What stands on both sides of a split: patients, and images that are nearly the same."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from model_build.array_types import Int64Array, UInt8Array
from model_build.data.similarity import near_identical_pairs


@dataclass(frozen=True)
class Leakage:
    """``patients`` with images on both sides; ``pairs``, int64, shape (pairs, 2): nearly the same images, one on each side."""

    patients: list[str]
    pairs: Int64Array

    def __bool__(self) -> bool:
        return bool(self.patients) or len(self.pairs) > 0

    def __str__(self) -> str:
        """Counts only: the audit gives the names."""
        return f"{len(self.patients)} patient(s) and {len(self.pairs)} pair(s) of nearly identical images stand on both sides of the split"


def patients_on_several_sides(sides: Sequence[Hashable], patients: Sequence[str]) -> list[str]:
    """Patients whose images stand on more than one side, sorted."""
    first: dict[str, Hashable] = {}
    return sorted({patient for patient, side in zip(patients, sides, strict=True) if first.setdefault(patient, side) != side})


def find_leakage(sides: Sequence[Hashable], patients: Sequence[str], thumbnails: UInt8Array) -> Leakage:
    """Look for what a split fails to keep apart.

    Parameters
    ----------
    sides : sequence
        The side on which each image stands.
    patients : sequence of str
        The patient of each image.
    thumbnails : ndarray, uint8, shape (images, 32, 32)

    Returns
    -------
    Leakage
        ``pairs`` leaves out those of one patient: ``patients`` holds them.
    """
    pairs, _ = near_identical_pairs(thumbnails)
    across = [(i, j) for i, j in pairs.tolist() if sides[i] != sides[j] and patients[i] != patients[j]]
    return Leakage(patients_on_several_sides(sides, patients), np.array(across, np.int64).reshape(-1, 2))
