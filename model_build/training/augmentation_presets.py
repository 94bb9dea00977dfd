"""Which random changes a training uses, by name: none, geometric, intensity, all."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec

from model_build.config import AugmentationConfig

PresetName = Literal["none", "geometric", "intensity", "all"]
PRESETS: tuple[PresetName, ...] = get_args(PresetName)

_GEOMETRIC: dict[str, Any] = {"flip": False, "rotation_deg": 0.0, "scale": 0.0, "aspect": 0.0, "shift": 0.0, "border": 0.0}
"""With these values a change leaves every image as it is."""
_INTENSITY: dict[str, Any] = {
    "gamma": 1.0,
    "brightness": 0.0,
    "contrast": 0.0,
    "blur_probability": 0.0,
    "noise": 0.0,
    "low_resolution_probability": 0.0,
    "jpeg_probability": 0.0,
}


def augmentation_preset(name: PresetName, ranges: AugmentationConfig) -> AugmentationConfig:
    """Keep one kind of the random changes and switch the other off.

    Parameters
    ----------
    name : str
        "geometric" keeps what changes where things lie (flip, rotation, scale, aspect, shift, painted borders); "intensity" what changes
        how they look there (gamma, brightness, contrast, blur, noise, resolution, JPEG).
    ranges : AugmentationConfig
        The ranges of what is kept.
    """
    off: dict[PresetName, dict[str, Any]] = {
        "none": _GEOMETRIC | _INTENSITY,
        "geometric": _INTENSITY,
        "intensity": _GEOMETRIC,
        "all": {},
    }
    return msgspec.structs.replace(ranges, **off[name])
