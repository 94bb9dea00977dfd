"""Which labels have enough positive images to be measured one by one."""

from __future__ import annotations

import numpy as np

from model_build.array_types import Int64Array

MIN_POSITIVES = 20
"""A mean over labels with fewer held-out positives would be mostly noise."""


def judged_columns(positives: Int64Array) -> Int64Array:
    """The labels or operating points over which means are taken.

    Parameters
    ----------
    positives : ndarray, int64, shape (columns,)
        How many images are positive for each.

    Returns
    -------
    ndarray, int64
        Ascending indices of those with ``MIN_POSITIVES`` or more; all of them where none has so many.
    """
    enough = np.flatnonzero(positives >= MIN_POSITIVES)
    return enough if len(enough) else np.arange(len(positives))
