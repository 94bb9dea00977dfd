"""One measurement in a process of its own, so that loads are cold and a runtime that crashes takes nothing with it.

``python -P -m edge_agent.bench.child DESCRIPTOR`` reads a job from standard input, measures, and writes the answer to a file descriptor.
Standard output is not used, because runtimes print on it as they like.
"""

from __future__ import annotations

import itertools
import os
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_agent.bench.result import MIN_ITERATIONS, Latency, Stage, latency_of
from edge_agent.errors import EdgeAgentError, ModelError

LONGEST_FACTOR = 6
"""A row that does not reach ten iterations in this many times its seconds ends with fewer."""
_WARM_UP_INVOCATIONS = 3


class BenchmarkJob(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure, with absolute paths. ``bundle`` is null for a bare model."""

    task: Literal["start", "warm", "images"]
    runtime: str
    threads: int
    tflite: str
    bundle: str | None
    images: list[str]
    seconds: float


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured: ``start_ms`` for a start, else ``latency_ms``; or the ``error`` that prevented it."""

    start_ms: dict[Stage, float] = {}
    latency_ms: dict[Stage, Latency] = {}
    error: str | None = None


def repeat(step: Callable[[], None], seconds: float) -> float:
    """Call ``step`` for ``seconds`` and at least ten times, as :data:`LONGEST_FACTOR` allows; return the seconds it took."""
    started_s = time.perf_counter()
    for done in itertools.count(1):
        step()
        elapsed_s = time.perf_counter() - started_s
        if (elapsed_s >= seconds and done >= MIN_ITERATIONS) or elapsed_s >= seconds * LONGEST_FACTOR:
            break
    return elapsed_s


def main(descriptor: int) -> None:
    """Do one job. A model that cannot be measured is an answer too."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=BenchmarkJob)
    tasks = {"start": _measure_start, "warm": _measure_warm, "images": _measure_images}
    try:
        answer = tasks[job.task](job)
    except EdgeAgentError as fault:
        answer = Answer(error=str(fault))
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(answer))


def _measure_start(job: BenchmarkJob) -> Answer:
    from edge_agent.inference.interpreter import RUNTIME_FAULTS, interpreter_class

    model = Path(job.tflite).read_bytes()
    started_ns = time.perf_counter_ns()
    try:
        make_interpreter = interpreter_class(job.runtime)
        imported_ns = time.perf_counter_ns()
        interpreter = make_interpreter(model_content=model, num_threads=job.threads)
        interpreter.allocate_tensors()
        loaded_ns = time.perf_counter_ns()
        _fill_inputs(interpreter)
        filled_ns = time.perf_counter_ns()
        interpreter.invoke()
    except RUNTIME_FAULTS as fault:
        raise ModelError(f"cannot run the model: {fault.__cause__ or fault}") from fault
    invoked_ns = time.perf_counter_ns()
    return Answer(
        start_ms={
            "import": (imported_ns - started_ns) / 1e6,
            "load": (loaded_ns - imported_ns) / 1e6,
            "first_invoke": (invoked_ns - filled_ns) / 1e6,
        }
    )


def _measure_warm(job: BenchmarkJob) -> Answer:
    from edge_agent.inference.interpreter import interpreter_class

    interpreter = interpreter_class(job.runtime)(model_content=Path(job.tflite).read_bytes(), num_threads=job.threads)
    interpreter.allocate_tensors()
    _fill_inputs(interpreter)
    for _ in range(_WARM_UP_INVOCATIONS):
        interpreter.invoke()
    samples_ms = array("d")  # a tiny model makes millions

    def step() -> None:
        started_ns = time.perf_counter_ns()
        interpreter.invoke()
        samples_ms.append((time.perf_counter_ns() - started_ns) / 1e6)

    return Answer(latency_ms={"warm_invoke": latency_of(samples_ms, repeat(step, job.seconds))})


def _measure_images(job: BenchmarkJob) -> Answer:
    from edge_agent.imaging.decode import decode_image
    from edge_agent.inference.bundle import load_bundle
    from edge_agent.inference.classifier import Classifier

    if job.bundle is None:
        raise ModelError("a bare model has no head: only a bundle classifies images")
    classifier = Classifier(load_bundle(Path(job.bundle)), num_threads=job.threads, runtime=job.runtime)
    rows, columns = classifier.input.rows, classifier.input.columns
    contents = itertools.cycle([Path(path).read_bytes() for path in job.images])
    samples_ms: dict[Stage, list[float]] = {"decode": [], "preprocess": [], "invoke": [], "head": [], "image": []}

    def step() -> None:
        content = next(contents)
        started_ns = time.perf_counter_ns()
        frame = decode_image(content, rows=rows, columns=columns)
        decoded_ns = time.perf_counter_ns()
        verdict = classifier.classify(frame)
        samples_ms["image"].append((time.perf_counter_ns() - started_ns) / 1e6)
        samples_ms["decode"].append((decoded_ns - started_ns) / 1e6)
        samples_ms["preprocess"].append(verdict.preprocess_ms)
        samples_ms["invoke"].append(verdict.invoke_ms)
        samples_ms["head"].append(verdict.head_ms)

    seconds = repeat(step, job.seconds)
    return Answer(latency_ms={stage: latency_of(samples, seconds) for stage, samples in samples_ms.items()})


def _fill_inputs(interpreter: Any) -> None:
    """Give every input of any model random values of its type: zeros would let some kernels skip work."""
    generator = np.random.default_rng(0)
    for details in interpreter.get_input_details():
        interpreter.set_tensor(details["index"], _random_tensor(details["shape"], np.dtype(details["dtype"]), generator))


def _random_tensor(shape: NDArray[Any], dtype: np.dtype[Any], generator: np.random.Generator) -> NDArray[Any]:
    if dtype in (np.int8, np.uint8):
        return generator.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, size=tuple(shape), dtype=dtype, endpoint=True)
    if np.issubdtype(dtype, np.floating):
        return generator.random(size=tuple(shape), dtype=np.float32).astype(dtype)
    return np.zeros(shape, dtype)  # lengths, indices, flags: any other value may lie outside what the model allows


if __name__ == "__main__":
    main(int(sys.argv[1]))
