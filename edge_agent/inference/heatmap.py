"""Class activation maps: which part of the image speaks for a label."""

from __future__ import annotations

import numpy as np
from PIL import Image

from edge_agent.array_types import Float32Array, UInt8Array

_CONTRAST = 2.0
"""The evidence is taken to this power, so that the places that decided stand out from the broad field that agrees a little."""
_COLOURS = np.array([[60, 0, 90], [190, 40, 80], [250, 130, 30], [255, 235, 110]], dtype=np.float32)
"""Dark to bright in one hue order that colour-blind readers tell apart: black-violet, red-orange, yellow."""
_OPACITY = 0.55


def draw_heatmap(pixels: UInt8Array, evidence: Float32Array, probability: float) -> UInt8Array:
    """Lay a class activation map over its image.

    Parameters
    ----------
    pixels : ndarray, uint8, shape (rows, columns)
        The grey image.
    evidence : ndarray, float32, shape (h, w)
        Log odds of the label at each place of the feature map; their mean is the image's own log odds.
    probability : float
        Of the label. It scales the colour: a normal image stays grey instead of showing its own noise at full strength.

    Returns
    -------
    ndarray, uint8, shape (rows, columns, 3)
        RGB. The strongest place gets the most colour; places that speak against the label, or for nothing, stay grey.

    References
    ----------
    Zhou et al., Learning Deep Features for Discriminative Localization, CVPR 2016.
    """
    rows, columns = pixels.shape
    supporting = np.maximum(evidence, 0.0)
    strength = (probability * (supporting / max(float(supporting.max()), 1.0)) ** _CONTRAST).astype(np.float32)
    smooth = np.asarray(Image.fromarray(strength).resize((columns, rows), Image.Resampling.BICUBIC), dtype=np.float32)
    smooth = np.clip(smooth, 0.0, 1.0)
    positions = np.linspace(0.0, 1.0, len(_COLOURS))
    colour = np.stack([np.interp(smooth, positions, _COLOURS[:, channel]) for channel in range(3)], axis=-1)
    opacity = (_OPACITY * np.minimum(1.0, 2.0 * smooth))[:, :, np.newaxis]
    return np.asarray(np.rint(pixels[:, :, np.newaxis] * (1.0 - opacity) + colour * opacity), dtype=np.uint8)
