"""One file's bytes become one prepared image, with what else is worth knowing of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_agent.imaging.decode import decode_image
from edge_agent.imaging.preprocess import InputContract, prepare_input
from model_build.array_types import Float64Array, UInt8Array
from model_build.data.similarity import thumbnail

PROPERTY_COUNT = 4


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image as the model wants it.

    ``pixels`` is uint8, shape (rows, columns, 1); ``thumbnail`` uint8, shape (32, 32), to compare images by; ``properties`` float64, shape
    (4,): the file's bytes, rows and columns of the whole image, and its mean grey value from 0 to 255.
    """

    pixels: UInt8Array
    thumbnail: UInt8Array
    properties: Float64Array


def prepare_file(content: bytes, contract: InputContract) -> Prepared:
    """Decode a file and prepare its pixels.

    Parameters
    ----------
    content : bytes
        The whole file.
    contract : InputContract
        The model's input size and rules.

    Returns
    -------
    Prepared

    Raises
    ------
    InputFault
        As :func:`edge_agent.imaging.decode.decode_image`.
    """
    frame = decode_image(content, rows=contract.rows, columns=contract.columns)
    pixels = prepare_input(frame.pixels, contract)
    properties = np.array([len(content), frame.rows, frame.columns, frame.pixels.mean()], np.float64)
    return Prepared(pixels, thumbnail(pixels[:, :, 0]), properties)
