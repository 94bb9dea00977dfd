"""Runs each measurement in a child process, over runtimes and threads."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from edge_agent.bench.child import LONGEST_FACTOR, Answer, Job
from edge_agent.bench.result import MIN_ITERATIONS, ModelFile, Row, Stage, latency_of
from edge_agent.errors import ModelError
from edge_agent.inference.bundle import load_bundle

_TFLITE_IDENTIFIER = b"TFL3"
_START_STAGES: tuple[Stage, ...] = ("import", "load", "first_invoke")
_CHILD_GRACE_S = 300
_MANY_CORES = 8


@dataclass(frozen=True)
class Subject:
    """The model to measure: a ``.tflite`` file, and the bundle that it belongs to where there is one."""

    file: ModelFile
    tflite: Path
    bundle: Path | None


def find_subject(path: Path) -> Subject:
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
        return Subject(_model_file(name, version, "bundle", bundle.model), (path / "model.tflite").absolute(), path.absolute())
    try:
        model = path.read_bytes()
    except OSError as fault:
        raise ModelError(f"{path}: can not be read ({fault.strerror}); name a bundle's folder or a .tflite file") from fault
    if model[4:8] != _TFLITE_IDENTIFIER:
        raise ModelError(f"{path}: not a TFLite model; name a bundle's folder or a .tflite file")
    return Subject(_model_file(path.name, None, "tflite", model), path.absolute(), None)


def _model_file(name: str, version: str | None, kind: Literal["bundle", "tflite"], model: bytes) -> ModelFile:
    return ModelFile(name=name, version=version, kind=kind, digest=hashlib.sha256(model).hexdigest(), size_bytes=len(model))


def thread_counts(cores: int) -> list[int]:
    """Every number of threads from one to the cores; on a large machine the powers of two and the cores."""
    if cores <= _MANY_CORES:
        return list(range(1, cores + 1))
    return sorted({1 << power for power in range(cores.bit_length())} | {cores})


def sweep(
    subject: Subject, runtimes: Sequence[str], threads: Sequence[int], seconds: float, images: Sequence[Path], report: Callable[[str], None]
) -> Iterator[Row]:
    """Measure every combination of runtime and threads.

    Parameters
    ----------
    subject : Subject
        What to measure. A bare model has no ``decode`` to ``image`` rows.
    runtimes, threads : sequence
        What to combine.
    seconds : float
        For each row; at least ten iterations are made in any case, as far as patience goes.
    images : sequence of Path
        Decoded and classified in turn.
    report : callable
        PendingPaths in a few words what begins now.

    Yields
    ------
    Row
        A runtime that can not be used is a row with an error.
    """
    with tempfile.TemporaryDirectory(prefix="edge-agent-bench-") as folder:
        for runtime in runtimes:
            for count in threads:
                job = Job(
                    task="start",
                    runtime=runtime,
                    threads=count,
                    tflite=str(subject.tflite),
                    bundle=None if subject.bundle is None else str(subject.bundle),
                    images=[str(path.absolute()) for path in images],
                    seconds=seconds,
                    answer=str(Path(folder) / "answer.json"),
                )
                rows = _start_rows(job, report)
                yield from rows
                if any(row.error for row in rows):
                    continue
                yield from _steady_rows(msgspec.structs.replace(job, task="warm"), report)
                if subject.bundle is not None:
                    yield from _steady_rows(msgspec.structs.replace(job, task="images"), report)


def _start_rows(job: Job, report: Callable[[str], None]) -> list[Row]:
    report(f"{job.runtime}, threads: {job.threads}, start")
    samples_ms: dict[Stage, list[float]] = {stage: [] for stage in _START_STAGES}
    started_s = time.monotonic()
    elapsed_s, count = 0.0, 0
    while (elapsed_s < job.seconds or count < MIN_ITERATIONS) and elapsed_s < job.seconds * LONGEST_FACTOR:
        answer = _run_child(job)
        if answer.error is not None:
            return [Row(runtime=job.runtime, threads=job.threads, stage=None, error=answer.error)]
        for stage in _START_STAGES:
            samples_ms[stage].append(answer.start_ms[stage])
        elapsed_s, count = time.monotonic() - started_s, count + 1
    return [
        Row(runtime=job.runtime, threads=job.threads, stage=stage, latency_ms=latency_of(samples, elapsed_s))
        for stage, samples in samples_ms.items()
    ]


def _steady_rows(job: Job, report: Callable[[str], None]) -> list[Row]:
    report(f"{job.runtime}, threads: {job.threads}, {'the model alone' if job.task == 'warm' else 'images'}")
    answer = _run_child(job)
    if answer.error is not None:
        stage: Stage = "warm_invoke" if job.task == "warm" else "image"
        return [Row(runtime=job.runtime, threads=job.threads, stage=stage, error=answer.error)]
    return [Row(runtime=job.runtime, threads=job.threads, stage=stage, latency_ms=latency) for stage, latency in answer.latency_ms.items()]


def _run_child(job: Job) -> Answer:
    """Run one job in a new process; a crash, a hang and a traceback become an answer with an error."""
    answer_file = Path(job.answer)
    answer_file.unlink(missing_ok=True)
    job_file = answer_file.with_name("job.json")
    job_file.write_bytes(msgspec.json.encode(job))
    command = [sys.executable, "-m", "edge_agent.bench.child", str(job_file)]
    try:
        child = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=job.seconds * 10 + _CHILD_GRACE_S)  # noqa: S603
    except subprocess.TimeoutExpired:
        return Answer(error=f"no answer after {job.seconds * 10 + _CHILD_GRACE_S:.0f} s")
    if child.returncode == 0 and answer_file.exists():
        return msgspec.json.decode(answer_file.read_bytes(), type=Answer)
    return Answer(error=_why_it_ended(child.returncode, child.stderr))


def _why_it_ended(returncode: int, stderr: str) -> str:
    """Name the signal that killed a child, or the last line it wrote."""
    if returncode < 0:
        return f"the process crashed: {signal.strsignal(-returncode)}"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    return f"the process ended with exit code {returncode}: {lines[-1] if lines else 'it wrote nothing'}"
