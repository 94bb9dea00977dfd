"""One trunk in every number format that TFLite offers: the file, what its kernels hold, its embeddings, its speed."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import numpy as np
import tensorflow as tf
from tensorflow.lite.tools import flatbuffer_utils

from edge_agent.errors import InferenceError, ModelContractError
from edge_agent.inference.interpreter import Interpreter, load_into_runtime
from model_build.array_types import Float32Array, Float64Array, Int64Array, UInt8Array
from model_build.data.pixels import Pixels
from model_build.training.quantize import convert_quietly, convert_to_int8, make_converter
from model_build.training.trunk.trunk import INPUT_DIVISOR

Precision = Literal["float32", "float16", "dynamic range", "int8 per tensor", "int8 per channel"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

_KERNEL_RANK = 4
_KERNEL_TYPES = {0: np.float32, 1: np.float16, 9: np.int8}
"""TFLite's numbers of the types that a kernel may have."""
_INVOCATIONS_PER_ROUND = 10


class Embedder(Protocol):
    """A loaded trunk of any precision."""

    def invoke(self, grey: UInt8Array) -> Float32Array:
        """From a prepared image, uint8, shape (rows, columns, 1), to its embedding, float32, shape (D,)."""


class FloatInterpreter:
    """A trunk that takes and gives real numbers, whatever its kernels are stored as. Not thread-safe."""

    def __init__(self, model: bytes, num_threads: int = 1) -> None:
        """Load a model.

        Raises
        ------
        ModelError
            If the runtime refuses it.
        ModelContractError
            If it does not take one image as float32 and give an embedding as float32.
        """
        _, self._interpreter = load_into_runtime(model, num_threads)
        inputs = self._interpreter.get_input_details()
        embeddings = [d for d in self._interpreter.get_output_details() if len(d["shape"]) == 2]
        if len(inputs) != 1 or len(embeddings) != 1 or {inputs[0]["dtype"], embeddings[0]["dtype"]} != {np.float32}:
            raise ModelContractError("the model must take one float32 image and give one float32 embedding")
        self._input, self._embedding = inputs[0], embeddings[0]

    def invoke(self, grey: UInt8Array) -> Float32Array:
        """Run the trunk on one prepared image; a new array, shape (D,).

        Raises
        ------
        InferenceError
            If the runtime fails.
        """
        try:
            self._interpreter.set_tensor(self._input["index"], grey[np.newaxis].astype(np.float32) / np.float32(INPUT_DIVISOR))
            self._interpreter.invoke()
            return np.asarray(self._interpreter.get_tensor(self._embedding["index"])[0], dtype=np.float32)
        except (RuntimeError, ValueError) as fault:
            raise InferenceError(f"the runtime failed on an image: {fault}") from fault


@dataclass(frozen=True)
class Converted:
    """A trunk as a ``.tflite`` file, and how its images go in."""

    model: bytes
    takes_int8: bool

    def open(self, num_threads: int = 1) -> Embedder:
        """Load it; an int8 model is held against the agent's own contract."""
        return Interpreter(self.model, num_threads) if self.takes_int8 else FloatInterpreter(self.model, num_threads)

    def zipped_bytes(self) -> int:
        """Size after deflate, as in a ``.zip``: what an update over a slow line costs."""
        return len(zlib.compress(self.model, 9))


def convert(trunk: Any, precision: Precision, representative: UInt8Array) -> Converted:
    """Convert a trunk.

    Parameters
    ----------
    trunk : keras.Model
        One image in, embedding and feature map out.
    precision : Precision
        "float16" stores the kernels in half the bytes and computes in float32; "dynamic range" stores them as int8 and chooses the range
        of every activation anew for each image.
    representative : ndarray, uint8, shape (images, rows, columns, 1)
        Prepared images of training patients; the int8 formats take the activations' ranges from them.

    Returns
    -------
    Converted

    References
    ----------
    LiteRT post-training quantization.
    """
    if precision in ("int8 per channel", "int8 per tensor"):
        return Converted(convert_to_int8(trunk, representative, per_channel=precision == "int8 per channel"), takes_int8=True)
    converter = make_converter(trunk)
    if precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if precision == "float16":
        converter.target_spec.supported_types = [tf.float16]
    return Converted(convert_quietly(converter), takes_int8=False)


@dataclass(frozen=True)
class Kernels:
    """What the kernels of a file hold: their values, how many of them are zero, and the most scales that any of them has (floats: 0)."""

    value_count: int
    zero_count: int
    most_scales: int

    @property
    def zero_share(self) -> float:
        """Share of zeros in [0, 1]."""
        return self.zero_count / self.value_count


def read_kernels(model: bytes) -> Kernels:
    """Look into a ``.tflite`` file; zeros are counted as stored, so that what rounds to zero counts too.

    Raises
    ------
    ModelContractError
        If it holds no convolution kernel.
    """
    content = flatbuffer_utils.read_model_from_bytearray(bytearray(model))
    values, zeros, scales = 0, 0, 0
    for tensor in content.subgraphs[0].tensors:
        stored = content.buffers[tensor.buffer].data
        if stored is None or len(stored) == 0 or len(tensor.shape) != _KERNEL_RANK or tensor.type not in _KERNEL_TYPES:
            continue
        kernel = np.frombuffer(bytes(stored), _KERNEL_TYPES[tensor.type])
        values += kernel.size
        zeros += int(np.count_nonzero(kernel == 0))
        if tensor.quantization is not None and tensor.quantization.scale is not None:
            scales = max(scales, len(tensor.quantization.scale))
    if values == 0:
        raise ModelContractError("the model holds no convolution kernel")
    return Kernels(values, zeros, scales)


def embed(converted: Converted, pixels: Pixels, chosen: Int64Array) -> Float32Array:
    """Embed some images on all cores.

    Parameters
    ----------
    converted : Converted
    pixels : Pixels, uint8, shape (images, rows, columns, 1)
    chosen : ndarray, int64, shape (chosen,)
        Which images; not empty.

    Returns
    -------
    ndarray, float32, shape (chosen, D)
    """
    core_count = os.cpu_count() or 1

    def embed_share(share: Int64Array) -> list[Float32Array]:
        embedder = converted.open()
        return [embedder.invoke(pixels[index]) for index in share.tolist()]

    with ThreadPoolExecutor(core_count) as pool:
        shares = pool.map(embed_share, np.array_split(chosen, min(core_count, len(chosen))))
        return np.stack([embedding for share in shares for embedding in share])


@dataclass(frozen=True)
class Latencies:
    """Durations of one invocation in milliseconds: the median and the shortest of each round, float64, shape (rounds,)."""

    medians: Float64Array
    shortest: Float64Array

    def ratio_to(self, other: Latencies) -> float:
        """How many times as long as another model of the same rounds: by the shortest, which the machine's other work delays least."""
        return float(np.median(self.shortest / other.shortest))


def measure_latencies_ms(models: Mapping[str, Converted], grey: UInt8Array, rounds: int = 20) -> dict[str, Latencies]:
    """Time one invocation of each model on one thread.

    Parameters
    ----------
    models : mapping of str to Converted
    grey : ndarray, uint8, shape (rows, columns, 1)
    rounds : int
        In each of them every model runs ten times, one model after another: what slows the machine down for a while slows all of them, and
        the ratio of two models within a round stays. One more round to warm up is left out.

    Returns
    -------
    dict of str to Latencies
    """
    embedders = {name: model.open() for name, model in models.items()}
    durations_ms: dict[str, list[list[float]]] = {name: [] for name in models}
    for _ in range(1 + rounds):
        for name, embedder in embedders.items():
            durations_ms[name].append([])
            for _ in range(_INVOCATIONS_PER_ROUND):
                started_ns = time.perf_counter_ns()
                embedder.invoke(grey)
                durations_ms[name][-1].append((time.perf_counter_ns() - started_ns) / 1e6)
    return {name: Latencies(np.median(values[1:], axis=1), np.min(values[1:], axis=1)) for name, values in durations_ms.items()}
