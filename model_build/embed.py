"""Run the int8 model over many images, on all cores."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_agent.inference.interpreter import Interpreter
from edge_agent.inference.novelty import novelty_features


@dataclass(frozen=True)
class Embedded:
    """What the int8 model gives for a set of images, in their order.

    ``embeddings`` is float32, shape (images, D), dequantised; ``features`` is float32, shape (images, F): what the novelty score looks at.
    """

    embeddings: NDArray[np.float32]
    features: NDArray[np.float32]


def embed_images(model: bytes, pixels: NDArray[np.uint8]) -> Embedded:
    """Embed prepared images with the int8 model.

    Parameters
    ----------
    model : bytes
        The ``.tflite`` file.
    pixels : ndarray, uint8, shape (images, rows, columns, 1)

    Returns
    -------
    Embedded

    Notes
    -----
    One interpreter for each core, since ``invoke`` releases the GIL.
    """
    core_count = os.cpu_count() or 1

    def embed_share(share: NDArray[np.uint8]) -> tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]]:
        interpreter = Interpreter(model)
        embeddings, features = [], []
        for grey in share:
            embedding = interpreter.invoke(grey)
            embeddings.append(embedding)
            features.append(novelty_features(embedding, interpreter.feature_map()))
        return embeddings, features

    with ThreadPoolExecutor(core_count) as pool:
        shares = list(pool.map(embed_share, np.array_split(pixels, core_count)))
    return Embedded(
        np.stack([e for embeddings, _ in shares for e in embeddings]), np.stack([f for _, features in shares for f in features])
    )


def measure_latency_ms(model: bytes, grey: NDArray[np.uint8], num_threads: int, repetitions: int = 200) -> float:
    """Median duration of one invocation in milliseconds, after ten to warm up."""
    interpreter = Interpreter(model, num_threads=num_threads)
    durations = []
    for _ in range(10 + repetitions):
        started_ns = time.perf_counter_ns()
        interpreter.invoke(grey)
        durations.append((time.perf_counter_ns() - started_ns) / 1e6)
    return float(np.median(durations[10:]))
