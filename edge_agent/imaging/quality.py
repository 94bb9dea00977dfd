"""Whether an image is good enough to classify: a few flags, each a reason for a person to look."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from edge_agent.records import Frame

MIN_SHORT_SIDE_PX = 128
MIN_SPREAD = 64
MIN_MEAN = 55.0
MAX_MEAN = 195.0
"""Each limit was set on the 5,216 radiographs of the Kermany training set, so that next to none of them is flagged, and looked at on other
sets. Share flagged (low_resolution, low_contrast, too_dark, too_bright) in %: Kermany at 224x224: 0, 0, 0, 0.04; Kermany as scanned (64):
0, 0, 0, 0; COVID-19 (251, adults and children): 0, 0, 0, 0; NIH (723 thumbnails of 64x64): 100, 0, 0, 0.1; mammograms (242): 0, 0, 58, 0,
as their background is black by nature."""

QUALITY_MESSAGES = MappingProxyType(
    {
        "low_resolution": f"the image is very small (its shorter side is under {MIN_SHORT_SIDE_PX} pixels); export it at full size",
        "low_contrast": "the image has hardly any contrast; check exposure and export, or repeat the exposure",
        "too_dark": "the image is very dark; check exposure and export, or repeat the exposure",
        "too_bright": "the image is very bright; check exposure and export, or repeat the exposure",
    }
)

_SAMPLES_PER_AXIS = 128


def assess_quality(frame: Frame) -> list[str]:
    """Flag what makes an image doubtful, whatever it shows.

    Dark and bright are meant as on the screen; what they say of the dose depends on the detector.

    Parameters
    ----------
    frame : Frame
        As decoded, possibly at reduced size; its resolution is that of the file's own rows and columns.

    Returns
    -------
    list of str
        Keys of ``QUALITY_MESSAGES``, in that order; empty for a good image.
    """
    row_step, column_step = (max(1, side // _SAMPLES_PER_AXIS) for side in frame.pixels.shape)
    counts = np.bincount(frame.pixels[::row_step, ::column_step].ravel(), minlength=256)
    share_up_to = np.cumsum(counts) / counts.sum()
    darkest, brightest = (int(np.searchsorted(share_up_to, quantile)) for quantile in (0.05, 0.95))
    mean = float(counts @ np.arange(256) / counts.sum())
    found = {
        "low_resolution": min(frame.rows, frame.columns) < MIN_SHORT_SIDE_PX,
        "low_contrast": brightest - darkest < MIN_SPREAD,
        "too_dark": mean < MIN_MEAN,
        "too_bright": mean > MAX_MEAN,
    }
    return [flag for flag in QUALITY_MESSAGES if found[flag]]
