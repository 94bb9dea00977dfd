"""Radiograph-like test images, drawn in memory: a benchmark needs no data, and the same seed gives the same pixels on every board."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from edge_agent.array_types import Float32Array

ROWS = COLUMNS = 1024
DESCRIPTION = f"synthetic grey JPEG, {COLUMNS}x{ROWS}"
_JPEG_QUALITY = 90
_NOISE_LEVELS = 4.0


def draw_jpeg(seed: int) -> bytes:
    """Draw two dark lungs in a bright body, with film grain, as a grey JPEG of one megapixel.

    Parameters
    ----------
    seed : int
        Moves the outlines and changes the grain: two seeds never give the same bytes.

    Returns
    -------
    bytes
        About 210 kB: the grain costs as many bytes per pixel as that of a real radiograph, and so as much work to decode.
    """
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : ROWS * 1j, -1 : 1 : COLUMNS * 1j].astype(np.float32)
    shift = generator.uniform(-0.05, 0.05, size=3).astype(np.float32)
    body = 150 * _soft_ellipse(x, y - shift[0], 0.92, 1.1)
    lungs = 90 * (_soft_ellipse(x - 0.4, y - shift[1], 0.3, 0.65) + _soft_ellipse(x + 0.4, y - shift[2], 0.3, 0.65))
    ribs = 12 * np.sin(28 * (y + 0.25 * x * x)) * _soft_ellipse(x, y, 0.8, 0.8)
    grain = generator.normal(0, _NOISE_LEVELS, size=(ROWS, COLUMNS)).astype(np.float32)
    grey = np.clip(30 + body - lungs + ribs + grain, 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "JPEG", quality=_JPEG_QUALITY)
    return file.getvalue()


def _soft_ellipse(x: Float32Array, y: Float32Array, half_width: float, half_height: float) -> Float32Array:
    """1 inside, 0 outside, smooth at the edge."""
    distance = np.hypot(x / half_width, y / half_height)
    return np.asarray(1 / (1 + np.exp(18 * (distance - 1))), dtype=np.float32)
