"""What a benchmark says: the JSON that boards are compared by, with a schema version."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np

from edge_agent.bench.board import Board
from edge_agent.bench.condition import BoardState
from edge_agent.errors import ConfigError

SCHEMA_VERSION = 1

MIN_ITERATIONS = 10
MIN_SECONDS = 10.0

Stage = Literal[
    "import",
    "load",
    "first_invoke",
    "warm_invoke",
    "decode",
    "preprocess",
    "invoke",
    "head",
    "image",
    "commit",
    "drop_to_record",
]
"""What a row measures.

* In a fresh process each time: ``import`` of the runtime, ``load`` of the model, ``first_invoke``.
* ``warm_invoke``: the model alone, again and again.
* ``decode``, ``preprocess``, ``invoke``, ``head``: the steps of one image in one process; ``image``: all of them together.
* Of a running agent: ``commit``, its durable commit, and ``drop_to_record``, from the moment a file appears in the inbox until its record
  is durable, less the settle time.
"""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in milliseconds. ``seconds`` is how long the row was measured, ``iterations`` how often."""

    iterations: int
    seconds: float
    min: float
    median: float
    p90: float
    p99: float
    max: float

    @property
    def short(self) -> bool:
        """Whether the row rests on less than ten iterations or ten seconds."""
        # A loop of ten seconds may be measured as slightly less.
        return self.iterations < MIN_ITERATIONS or self.seconds < MIN_SECONDS - 0.05


class BenchmarkRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table: ``latency_ms``, or the ``error`` that prevented it. A null ``stage`` stands for all of them."""

    runtime: str
    threads: int
    stage: Stage | None
    latency_ms: Latency | None = None
    error: str | None = None


class ModelFile(msgspec.Struct, frozen=True, kw_only=True):
    """Which model was measured. ``digest`` is the SHA-256 of the ``.tflite`` file: what the latency depends on, in a bundle or bare."""

    name: str
    version: str | None
    kind: Literal["bundle", "tflite"]
    digest: str
    size_bytes: int


class BenchmarkResult(msgspec.Struct, frozen=True, kw_only=True):
    """One run on one board. ``invalid`` says why it measures the power supply or the cooling and not the board; empty where it does not."""

    schema_version: int
    created_at: datetime
    edge_agent_version: str
    model: ModelFile
    images: str
    board: Board
    before: BoardState
    after: BoardState
    invalid: list[str]
    cautions: list[str]
    rows: list[BenchmarkRow]


def latency_of(samples_ms: Sequence[float], seconds: float) -> Latency:
    """Sum up durations.

    Parameters
    ----------
    samples_ms : sequence of float
        At least one, in milliseconds.
    seconds : float
        How long measuring them took.

    Returns
    -------
    Latency
        Percentiles are observed values (the nearest rank at or above), never values between two that did not occur.
    """
    values = np.asarray(samples_ms, dtype=np.float64)
    low, median, p90, p99, high = (round(float(value), 4) for value in np.percentile(values, (0, 50, 90, 99, 100), method="inverted_cdf"))
    return Latency(iterations=len(values), seconds=round(seconds, 2), min=low, median=median, p90=p90, p99=p99, max=high)


def encode_result(result: BenchmarkResult) -> bytes:
    """Return the result as indented JSON, ending in a newline."""
    return msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"


def read_result(path: Path) -> BenchmarkResult:
    """Read a result that ``edge-agent bench --out`` wrote.

    Raises
    ------
    ConfigError
        If the file cannot be read, is something else, or has a schema version that this version does not know.
    """
    try:
        content = path.read_bytes()
    except OSError as fault:
        raise ConfigError(f"{path} cannot be read: {fault.strerror}") from fault
    try:
        version = msgspec.json.decode(content, type=dict[str, msgspec.Raw]).get("schema_version")
        if version is not None and bytes(version) != b"%d" % SCHEMA_VERSION:
            raise ConfigError(
                f"{path} has schema version {bytes(version).decode('utf-8', 'replace')}, this version of edge-agent reads {SCHEMA_VERSION}:"
                " compare with the version that wrote it"
            )
        return msgspec.json.decode(content, type=BenchmarkResult)
    except (msgspec.DecodeError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path} is not a result of edge-agent bench ({fault}); write one with  edge-agent bench --out FILE") from fault
