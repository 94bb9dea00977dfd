"""How pixels become a model input, the same way in training and on the device."""

from __future__ import annotations

from typing import Literal

import msgspec
import numpy as np
from PIL import Image

from edge_agent.array_types import UInt8Array


class InputContract(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The input that a model expects, as the bundle's manifest states it.

    ``resize="stretch"`` gives every image the model's size without keeping its aspect ratio. ``intensity="identity"`` leaves grey values as
    decoded, 0 (black) to 255.
    """

    rows: int
    columns: int
    channels: Literal[1] = 1
    resize: Literal["stretch"] = "stretch"
    intensity: Literal["identity"] = "identity"


def prepare_input(pixels: UInt8Array, contract: InputContract) -> UInt8Array:
    """Resize a grey image to the model's input.

    Parameters
    ----------
    pixels : ndarray, uint8, shape (rows, columns)
        Grey values as decoded.
    contract : InputContract
        The model's size and rules.

    Returns
    -------
    ndarray, uint8, shape (contract.rows, contract.columns, 1)
        Antialiased bilinear resampling: each output pixel averages the input pixels below it, so that a reduced-size decode
        and a full one give nearly the same values. A new array.
    """
    size = (contract.columns, contract.rows)
    if (pixels.shape[1], pixels.shape[0]) == size:
        return pixels[:, :, np.newaxis].copy()
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(resized, dtype=np.uint8)[:, :, np.newaxis]
