"""Run the int8 model over many images, on all cores."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edge_agent.inference.interpreter import Interpreter
from edge_agent.inference.novelty import novelty_features
from model_build.array_types import Float32Array, Int64Array, UInt8Array
from model_build.data.pixels import Pixels


@dataclass(frozen=True)
class Embedded:
    """What the int8 model gives for a set of images, in their order.

    ``embeddings`` is float32, shape (images, D), dequantised; ``features`` is float32, shape (images, F): what the novelty score looks at.
    """

    embeddings: Float32Array
    features: Float32Array


def embed_images(model: bytes, pixels: Pixels) -> Embedded:
    """Embed prepared images with the int8 model.

    Parameters
    ----------
    model : bytes
        The ``.tflite`` file.
    pixels : Pixels
        uint8, shape (images, rows, columns, 1); at least one.

    Returns
    -------
    Embedded

    Notes
    -----
    One interpreter for each core, since ``invoke`` releases the GIL. Each reads one image at a time: what stays in memory are the outputs.
    """
    core_count = os.cpu_count() or 1
    first = Interpreter(model)
    embedding = first.invoke(pixels[0])
    features = novelty_features(embedding, first.feature_map())
    embedded = Embedded(
        np.empty((len(pixels), *embedding.shape), embedding.dtype), np.empty((len(pixels), *features.shape), features.dtype)
    )

    def embed_share(share: Int64Array) -> None:
        interpreter = Interpreter(model)
        for index in share.tolist():
            embedding = interpreter.invoke(pixels[index])
            embedded.embeddings[index] = embedding
            embedded.features[index] = novelty_features(embedding, interpreter.feature_map())

    with ThreadPoolExecutor(core_count) as pool:
        list(pool.map(embed_share, np.array_split(np.arange(len(pixels)), core_count)))
    return embedded


def measure_latency_ms(model: bytes, grey: UInt8Array, num_threads: int, repetitions: int = 200) -> float:
    """Median duration of one invocation in milliseconds, after ten to warm up."""
    interpreter = Interpreter(model, num_threads=num_threads)
    durations = []
    for _ in range(10 + repetitions):
        started_ns = time.perf_counter_ns()
        interpreter.invoke(grey)
        durations.append((time.perf_counter_ns() - started_ns) / 1e6)
    return float(np.median(durations[10:]))
