"""The sweep over runtimes and threads, with runtimes that are a few lines of Python in a folder of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.bench.result import BenchmarkRow
from edge_agent.bench.sweep import find_model, measure_model

WORKING = """
import numpy as np
import time

class Interpreter:
    def __init__(self, model_content, num_threads):
        assert model_content[4:8] == b"TFL3"
        self.seconds = 0.004 / num_threads

    def allocate_tensors(self):
        pass

    def get_input_details(self):
        types = (np.int8, np.uint8, np.float32, np.int32)
        return [{"index": index, "shape": np.array([1, 4, 4, 1]), "dtype": dtype} for index, dtype in enumerate(types)]

    def set_tensor(self, index, value):
        assert value.shape == (1, 4, 4, 1)

    def invoke(self):
        time.sleep(self.seconds)
"""
CRASHING = "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n"
WRONG_NUMPY = "raise ImportError('numpy.core.multiarray failed to import')\n"
BROKEN_INVOKE = WORKING + "\n    def allocate_tensors(self):\n        raise ValueError('Op builtin_code out of range')\n"
ENDING = "import sys\nprint('what is this?', file=sys.stderr)\nsys.exit(3)\n"


@pytest.fixture
def bare_model(tmp_path: Path) -> Path:
    path = tmp_path / "any.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))
    return path


def measure(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, threads: list[int]) -> list[BenchmarkRow]:
    """Sweep with ``source`` as the runtime ``tflite_runtime``."""
    package = tmp_path / "modules" / "tflite_runtime"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "interpreter.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    said: list[str] = []
    rows = list(measure_model(find_model(model), ["tflite_runtime"], threads, 0.1, [], said.append))
    assert said[0] == f"tflite_runtime, threads: {threads[0]}, start"
    return rows


def test_every_number_of_threads_is_measured(bare_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = measure(bare_model, tmp_path, monkeypatch, WORKING, [1, 2])
    assert [(row.threads, row.stage) for row in rows] == [
        (threads, stage) for threads in (1, 2) for stage in ("import", "load", "first_invoke", "warm_invoke")
    ]
    warm = [row.latency_ms for row in rows if row.stage == "warm_invoke"]
    assert warm[0] is not None
    assert warm[1] is not None
    assert warm[0].iterations >= 10
    assert warm[0].min >= 4.0
    assert warm[1].min >= 2.0
    assert all(row.latency_ms is not None and row.latency_ms.short and row.error is None for row in rows)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (CRASHING, "the process was killed by SIGSEGV"),
        (WRONG_NUMPY, "numpy.core.multiarray failed to import"),
        (BROKEN_INVOKE, "Op builtin_code out of range"),
        (ENDING, "exit code 3: what is this?"),
    ],
)
def test_a_runtime_that_cannot_be_used_is_a_row_that_says_so(
    bare_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, error: str
) -> None:
    rows = measure(bare_model, tmp_path, monkeypatch, source, [1])
    assert [(row.stage, row.latency_ms) for row in rows] == [(None, None)]
    assert error in (rows[0].error or "")


def test_a_missing_runtime_is_a_row_too(bare_model: Path) -> None:
    rows = list(measure_model(find_model(bare_model), ["no_such_runtime"], [1], 0.1, [], lambda _: None))
    assert "No module named 'no_such_runtime'" in (rows[0].error or "")
