"""Small pictures that stand in for films where a test needs many: a class differs from the other by its bright spots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def save_film(path: Path, seed: int, *, side: int = 96, opacity_count: int = 0) -> None:
    """Write a PNG of coarse grain, another one for each seed, with so many bright spots.

    It takes a millisecond; a phantom (``model_build.data.phantom``) takes half a second.
    """
    random = np.random.default_rng(seed)
    grain = Image.fromarray(random.integers(0, 120, (8, 8), dtype=np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(grain).copy()
    rows, columns = np.mgrid[:side, :side]
    for row, column in random.uniform(0.2, 0.8, (opacity_count, 2)) * side:
        pixels[(rows - row) ** 2 + (columns - column) ** 2 < (side / 10) ** 2] = 230
    Image.fromarray(pixels).save(path, compress_level=1)
