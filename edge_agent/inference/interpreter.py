"""A TFLite model, loaded by whichever runtime the board has."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.array_types import Float32Array, UInt8Array
from edge_agent.errors import InferenceError, ModelContractError, ModelError

RUNTIMES: tuple[str, ...] = ("ai_edge_litert", "tflite_runtime", "tensorflow")
"""Import names in order of preference: LiteRT runs int8 through XNNPACK, tflite-runtime is for boards without a LiteRT wheel."""

RUNTIME_FAULTS = (ImportError, AttributeError, RuntimeError, ValueError, TypeError, OSError, SystemError)
"""What runtimes have been seen to raise at loading; SystemError is tflite-runtime's under numpy 2, with an ImportError as its cause."""


def installed_runtimes() -> list[str]:
    """Import names of the TFLite runtimes that are installed, the preferred one first. Nothing is imported."""
    return [name for name in RUNTIMES if importlib.util.find_spec(name) is not None]


def interpreter_class(runtime: str) -> Any:
    """Import a runtime, one of :data:`RUNTIMES`, and give its ``Interpreter`` class; they all have the same methods."""
    if runtime == "tensorflow":
        return importlib.import_module("tensorflow").lite.Interpreter
    return importlib.import_module(f"{runtime}.interpreter").Interpreter


@contextmanager
def _without_native_chatter() -> Iterator[None]:
    """Keep off standard error what the native library writes there at every load, such as the name of its delegate.

    Its errors come as exceptions too. The process's file descriptor is turned away for some milliseconds, so this is for start-up only.
    """
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def dequantize(raw: NDArray[Any], scale: float, zero_point: int) -> Float32Array:
    """Turn quantised values back into real ones.

    Parameters
    ----------
    raw : ndarray, int8 or uint8, any shape
        As the interpreter gives it; may be a view into its memory.
    scale : float
        Real units per step, > 0.
    zero_point : int
        The step that means zero.

    Returns
    -------
    ndarray, float32, same shape
        ``(raw - zero_point) * scale``. A new array: safe to keep after the next ``invoke``.

    References
    ----------
    LiteRT 8-bit quantization specification.
    """
    return (raw.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)


def load_into_runtime(model: bytes, num_threads: int = 1, runtime: str | None = None) -> tuple[str, Any]:
    """Load a model of any kind, whatever its inputs and outputs.

    Parameters
    ----------
    model, num_threads, runtime
        As for :class:`Interpreter`.

    Returns
    -------
    runtime : str
        The import name of the one that was taken.
    interpreter
        The runtime's own ``Interpreter``, its tensors allocated.

    Raises
    ------
    ModelError
        If no runtime is installed, or the runtime refuses the model.
    """
    available = installed_runtimes()
    if runtime is None and not available:
        raise ModelError("no TFLite runtime is installed; install one with  pip install ai-edge-litert")
    chosen = runtime if runtime is not None else available[0]
    try:
        make = interpreter_class(chosen)
        with _without_native_chatter():
            interpreter = make(model_content=model, num_threads=num_threads)
            interpreter.allocate_tensors()
    except RUNTIME_FAULTS as fault:
        raise ModelError(f"the runtime {chosen} cannot load the model: {fault.__cause__ or fault}") from fault
    return chosen, interpreter


class Interpreter:
    """One loaded int8 trunk: grey image in, embedding and feature map out. Not thread-safe; ``invoke`` releases the GIL."""

    def __init__(self, model: bytes, num_threads: int = 1, runtime: str | None = None) -> None:
        """Load a model and check that it keeps the bundle contract.

        Parameters
        ----------
        model : bytes
            The ``.tflite`` file: the very bytes whose checksum was verified.
        num_threads : int
            Threads of one ``invoke``.
        runtime : str, optional
            One of :data:`RUNTIMES`; the first installed one where not given.

        Raises
        ------
        ModelError
            If no runtime is installed, or the runtime refuses the model.
        ModelContractError
            If the model is not fully int8 with one image input and the two outputs, embedding and feature map.
        """
        self.runtime, self._interpreter = load_into_runtime(model, num_threads, runtime)
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        floats = [d["name"] for d in self._interpreter.get_tensor_details() if np.issubdtype(d["dtype"], np.floating)]
        if floats:
            raise ModelContractError(f"the model is not fully int8: {floats[0]!r} and {len(floats) - 1} more tensors hold real numbers")
        if len(inputs) != 1 or len(inputs[0]["shape"]) != 4 or inputs[0]["dtype"] not in (np.int8, np.uint8):
            raise ModelContractError("the model must have one int8 or uint8 input of shape (1, rows, columns, channels)")
        by_rank = {len(d["shape"]): d for d in outputs}
        if sorted(len(d["shape"]) for d in outputs) != [2, 4] or by_rank[2]["shape"][1] != by_rank[4]["shape"][3]:
            raise ModelContractError("the model must have two outputs, the embedding (1, D) and the feature map (1, h, w, D)")
        self._input, self._embedding, self._feature_map = inputs[0], by_rank[2], by_rank[4]
        zero_point = int(self._input["quantization"][1])
        if zero_point != (-128 if self._input["dtype"] == np.int8 else 0):
            raise ModelContractError(f"the model's input must take grey values 0 to 255 one to one; its zero point is {zero_point}")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(rows, columns, channels) in pixels."""
        _, rows, columns, channels = (int(n) for n in self._input["shape"])
        return rows, columns, channels

    @property
    def embedding_size(self) -> int:
        """Number of values of the embedding, D."""
        return int(self._embedding["shape"][1])

    @property
    def embedding_step(self) -> float:
        """Real units per int8 step of the embedding."""
        return float(self._embedding["quantization"][0])

    def invoke(self, grey: UInt8Array) -> Float32Array:
        """Run the trunk on one image.

        Parameters
        ----------
        grey : ndarray, uint8, shape (rows, columns, channels)
            From :func:`edge_agent.imaging.preprocess.prepare_input`.

        Returns
        -------
        ndarray, float32, shape (D,)
            The dequantised embedding; a new array.

        Raises
        ------
        InferenceError
            If the runtime fails.
        """
        # Grey g is the int8 value g - 128: the same bits with the highest one turned.
        quantized = (grey ^ np.uint8(0x80)).view(np.int8) if self._input["dtype"] == np.int8 else grey
        try:
            self._interpreter.set_tensor(self._input["index"], quantized[np.newaxis])
            self._interpreter.invoke()
            raw = self._interpreter.get_tensor(self._embedding["index"])[0]
        except (RuntimeError, ValueError) as fault:
            raise InferenceError(f"the runtime {self.runtime} failed on an image: {fault}") from fault
        return dequantize(raw, *self._embedding["quantization"])

    def feature_map(self) -> Float32Array:
        """The feature map of the last ``invoke``: float32, shape (h, w, D), dequantised; a new array."""
        return dequantize(self._interpreter.get_tensor(self._feature_map["index"])[0], *self._feature_map["quantization"])
