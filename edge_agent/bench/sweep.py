"""Runs each measurement in a child process, over runtimes and threads."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent.bench.child import Answer, BenchmarkJob, repeat
from edge_agent.bench.result import BenchmarkRow, ModelFile, Stage, latency_of
from edge_agent.child_process import PythonChild
from edge_agent.errors import ModelError
from edge_agent.inference.bundle import load_bundle

_TFLITE_IDENTIFIER = b"TFL3"
_CHILD_GRACE_S = 300
"""How long a child may take beyond its measurement, for imports on a slow board."""
_MANY_CORES = 8
"""Up to here every number of threads is measured."""


@dataclass(frozen=True)
class BenchmarkModel:
    """The model to measure: a ``.tflite`` file, and the bundle that it belongs to where there is one."""

    file: ModelFile
    tflite: Path
    bundle: Path | None


def find_model(path: Path) -> BenchmarkModel:
    """Find out what a path holds.

    Parameters
    ----------
    path : Path
        A bundle's folder or a ``.tflite`` file.

    Raises
    ------
    ModelError
        If it is neither, or the bundle is not whole.
    """
    if path.is_dir():
        bundle = load_bundle(path)
        name, version = bundle.manifest.name, bundle.manifest.version
        return BenchmarkModel(_model_file(name, version, "bundle", bundle.model), (path / "model.tflite").absolute(), path.absolute())
    try:
        model = path.read_bytes()
    except OSError as fault:
        raise ModelError(f"{path}: cannot be read ({fault.strerror}); name a bundle's folder or a .tflite file") from fault
    if model[4:8] != _TFLITE_IDENTIFIER:
        raise ModelError(f"{path}: not a TFLite model; name a bundle's folder or a .tflite file")
    return BenchmarkModel(_model_file(path.name, None, "tflite", model), path.absolute(), None)


def _model_file(name: str, version: str | None, kind: Literal["bundle", "tflite"], model: bytes) -> ModelFile:
    return ModelFile(name=name, version=version, kind=kind, digest=hashlib.sha256(model).hexdigest(), size_bytes=len(model))


def thread_counts(cores: int) -> list[int]:
    """Every number of threads from one to the cores; on a large machine the powers of two and the cores."""
    if cores <= _MANY_CORES:
        return list(range(1, cores + 1))
    return sorted({1 << power for power in range(cores.bit_length())} | {cores})


def measure_model(
    model: BenchmarkModel,
    runtimes: Sequence[str],
    threads: Sequence[int],
    seconds: float,
    images: Sequence[Path],
    report: Callable[[str], None],
) -> Iterator[BenchmarkRow]:
    """Measure every combination of runtime and threads.

    Parameters
    ----------
    model : BenchmarkModel
        What to measure. A bare model has no ``decode`` to ``image`` rows.
    runtimes, threads : sequence
        What to combine.
    seconds : float
        For each row; at least ten iterations are made, unless they take too long.
    images : sequence of Path
        Decoded and classified in turn.
    report : callable
        Gets in a few words what begins now.

    Yields
    ------
    BenchmarkRow
        A runtime that cannot be used is a row with an error.
    """
    for runtime in runtimes:
        for count in threads:
            job = BenchmarkJob(
                task="start",
                runtime=runtime,
                threads=count,
                tflite=str(model.tflite),
                bundle=None if model.bundle is None else str(model.bundle),
                images=[str(path.absolute()) for path in images],
                seconds=seconds,
            )
            rows = _start_rows(job, report)
            yield from rows
            if any(row.error for row in rows):
                continue
            yield from _steady_rows(msgspec.structs.replace(job, task="warm"), report)
            if model.bundle is not None:
                yield from _steady_rows(msgspec.structs.replace(job, task="images"), report)


def _start_rows(job: BenchmarkJob, report: Callable[[str], None]) -> list[BenchmarkRow]:
    report(f"{job.runtime}, threads: {job.threads}, start")
    samples_ms: dict[Stage, list[float]] = defaultdict(list)

    def step() -> None:
        for stage, start_ms in _run_child(job).start_ms.items():
            samples_ms[stage].append(start_ms)

    try:
        elapsed_s = repeat(step, job.seconds)
    except ModelError as fault:
        return [BenchmarkRow(runtime=job.runtime, threads=job.threads, stage=None, error=str(fault))]
    return [
        BenchmarkRow(runtime=job.runtime, threads=job.threads, stage=stage, latency_ms=latency_of(samples, elapsed_s))
        for stage, samples in samples_ms.items()
    ]


def _steady_rows(job: BenchmarkJob, report: Callable[[str], None]) -> list[BenchmarkRow]:
    report(f"{job.runtime}, threads: {job.threads}, {'the model alone' if job.task == 'warm' else 'images'}")
    try:
        answer = _run_child(job)
    except ModelError as fault:
        stage: Stage = "warm_invoke" if job.task == "warm" else "image"
        return [BenchmarkRow(runtime=job.runtime, threads=job.threads, stage=stage, error=str(fault))]
    return [
        BenchmarkRow(runtime=job.runtime, threads=job.threads, stage=stage, latency_ms=latency)
        for stage, latency in answer.latency_ms.items()
    ]


def _run_child(job: BenchmarkJob) -> Answer:
    """Run one job in a new process. Raises ModelError for a model that cannot be measured, a crash, a hang and a traceback."""
    with PythonChild("edge_agent.bench.child", given=msgspec.json.encode(job), answers=True) as child:
        ended = child.wait(job.seconds * 10 + _CHILD_GRACE_S)
        if ended.exit_code == 0 and child.answer:
            answer = msgspec.json.decode(child.answer, type=Answer)
            if answer.error is None:
                return answer
            raise ModelError(answer.error)
    raise ModelError(f"the process {ended}")
