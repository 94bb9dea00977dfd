"""Golden vectors: phantoms and the embeddings that a board must compute for them."""

from __future__ import annotations

import numpy as np

from edge_agent.imaging.preprocess import InputContract
from model_build.arrays import pack_arrays
from model_build.data.phantom.draw import draw_phantom
from model_build.heads.embed import embed_images

_GOLDEN_COUNT = 4


def golden_vectors(model: bytes, contract: InputContract) -> bytes:
    """Draw phantoms, half of them with opacities, and pack them with the embeddings that this machine computes for them."""
    inputs = np.stack(
        [
            draw_phantom(seed, rows=contract.rows, columns=contract.columns, opacity_count=seed % 2)[:, :, np.newaxis]
            for seed in range(_GOLDEN_COUNT)
        ]
    )
    return pack_arrays(inputs=inputs, embeddings=embed_images(model, inputs).embeddings)
