"""Benchmark results: how durations are summed up, written, read, shown and compared."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from edge_agent.bench.board import Board
from edge_agent.bench.child import repeat
from edge_agent.bench.condition import BoardState
from edge_agent.bench.images import draw_jpeg
from edge_agent.bench.result import BenchmarkResult, BenchmarkRow, Latency, ModelFile, encode_result, latency_of, read_result
from edge_agent.bench.sweep import find_model, thread_counts
from edge_agent.bench.tables import print_comparison, print_result
from edge_agent.cli import main
from edge_agent.errors import ConfigError, ModelError

STATE = BoardState(
    governor="performance",
    clock_hz=1_800_000_000,
    clock_min_hz=600_000_000,
    clock_max_hz=1_800_000_000,
    temperature_c=48.3,
    throttled=0x50000,
    load_average=0.1,
)
BOARD = Board(
    model="Raspberry Pi 4 Model B Rev 1.1",
    cpu="Cortex-A72",
    architecture="aarch64",
    features=["neon"],
    cores=4,
    memory_bytes=4 * 1024**3,
    page_size_bytes=4096,
    os="Debian GNU/Linux 12 (bookworm)",
    kernel="6.6.31",
    glibc="2.36",
    python="3.11.2",
    packages={"ai-edge-litert": "2.1.6"},
    power_supply=None,
)
RESULT = BenchmarkResult(
    schema_version=1,
    created_at=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC),
    edge_agent_version="0.1.0",
    model=ModelFile(name="cxr-pneumonia", version="1.0.0", kind="bundle", digest="ab" * 32, size_bytes=941_296),
    images="synthetic grey JPEG, 1024x1024",
    board=BOARD,
    before=STATE,
    after=STATE,
    invalid=[],
    cautions=["since the last boot: under-voltage has occurred"],
    rows=[
        BenchmarkRow(runtime="ai_edge_litert", threads=1, stage="decode", latency_ms=latency_of([4.0, 5.0, 6.0], 0.2)),
        BenchmarkRow(runtime="ai_edge_litert", threads=1, stage="warm_invoke", latency_ms=latency_of([20.0] * 100, 10.0)),
        BenchmarkRow(runtime="tflite_runtime", threads=1, stage=None, error="the process crashed: [Segmentation fault]"),
    ],
)


def rows_with(median: float) -> list[BenchmarkRow]:
    return [BenchmarkRow(runtime="ai_edge_litert", threads=1, stage="warm_invoke", latency_ms=latency_of([median] * 10, 10.0))]


def shown(print_something: Any, *arguments: Any) -> str:
    console = Console(file=io.StringIO(), width=120)
    print_something(*arguments, console)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def write(path: Path, **changes: Any) -> Path:
    path.write_bytes(encode_result(msgspec.structs.replace(RESULT, **changes)))
    return path


def test_percentiles_are_values_that_occurred() -> None:
    latency = latency_of(list(np.random.default_rng(1).permutation(np.arange(1.0, 101.0))), 12.0)
    assert (latency.min, latency.median, latency.p90, latency.p99, latency.max) == (1, 50, 90, 99, 100)
    assert (latency.iterations, latency.seconds) == (100, 12.0)


@pytest.mark.parametrize(("iterations", "seconds", "short"), [(10, 10.0, False), (9, 10.0, True), (1000, 9.0, True), (10, 9.99, False)])
def test_a_row_of_less_than_ten_iterations_or_seconds_is_short(iterations: int, seconds: float, short: bool) -> None:
    assert latency_of([1.0] * iterations, seconds).short is short


def test_a_loop_makes_ten_iterations_even_when_its_time_is_over() -> None:
    calls: list[None] = []
    assert repeat(lambda: calls.append(None), 0.0005) > 0
    assert len(calls) >= 10


def test_a_result_reads_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_result(write(tmp_path / "pi4.json")) == RESULT


def test_the_reference_results_can_be_read_and_are_sound(repository: Path) -> None:
    for path in (repository / "docs" / "bench").glob("*.json"):
        result = read_result(path)
        assert result.invalid == [], path.name
        assert all(row.latency_ms is None or not row.latency_ms.short for row in result.rows), path.name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a result of edge-agent bench"),
        (b"[1, 2]", "not a result of edge-agent bench"),
        (b"{}", "missing required field `schema_version`"),
        (b"\xff\xfe{}", "not a result of edge-agent bench"),
        (encode_result(RESULT).replace(b'"schema_version": 1', b'"schema_version": 9'), "schema version 9"),
        (encode_result(RESULT).replace(b'"median"', b'"middle"'), "median"),
    ],
)
def test_a_file_that_is_no_result_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "pi.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_result(path)
    assert "pi.json" in str(caught.value)


def test_the_table_says_what_was_measured_on_what() -> None:
    text = shown(print_result, RESULT)
    for part in (
        "Raspberry Pi 4 Model B Rev 1.1",
        "4 x Cortex-A72, neon",
        "1800 MHz -> 1800 MHz, governor performance",
        "48.3 °C",
        "0x50000 under-voltage has occurred, throttling has occurred",
        "cxr-pneumonia 1.0.0, 941296 bytes",
        "3*",
        "* less than 10 iterations or 10 s",
        "failed: tflite_runtime, threads: 1: the process crashed: [Segmentation fault]",
        "caution: since the last boot",
    ):
        assert part in text
    assert "INVALID" not in text


def test_an_invalid_run_says_so() -> None:
    text = shown(print_result, msgspec.structs.replace(RESULT, invalid=["throttled while the benchmark ran"]))
    assert "INVALID: throttled while the benchmark ran" in text


def test_boards_are_compared_row_by_row() -> None:
    faster = msgspec.structs.replace(RESULT, rows=rows_with(5.0))
    text = shown(print_comparison, [(Path("pi4.json"), RESULT), (Path("pi5.json"), faster)])
    lines = [line.split() for line in text.splitlines()]
    row = next(line for line in lines if "warm_invoke" in line)
    assert [cell for cell in row if cell not in "│┃|"][-3:] == ["20.0", "5.00", "0.25"]
    decode = next(line for line in lines if "decode" in line)
    assert [cell for cell in decode if cell not in "│┃|"][-1] == "5.00"
    assert "warning" not in text


def test_a_comparison_warns_of_what_cannot_be_compared() -> None:
    other = msgspec.structs.replace(
        RESULT,
        model=msgspec.structs.replace(RESULT.model, digest="cd" * 32, name="other"),
        images="folder films: 12",
        invalid=["throttled while the benchmark ran"],
    )
    text = shown(print_comparison, [(Path("a.json"), RESULT), (Path("b.json"), other)])
    assert "the models differ" in text
    assert "the images differ" in text
    assert "b.json is invalid: throttled" in text


def test_the_command_compares_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(write(tmp_path / f"{name}.json", rows=rows_with(median))) for name, median in (("a", 8.0), ("b", 4.0))]
    assert main(["bench", "compare", *files]) == 0
    out, err = capsys.readouterr()
    assert "0.50" in out
    assert err == ""


def test_the_command_refuses_a_wrong_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "notes.json"
    wrong.write_text("{}")
    assert main(["bench", "compare", str(wrong)]) == 10
    assert "notes.json is not a result of edge-agent bench" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["compare"], ["compare", "gone.json"], ["gone.tflite"], ["--runtime", "onnx"], ["--seconds", "0"], ["--threads", "0"]],
)
def test_wrong_usage_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    assert "Usage: edge-agent bench" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_refused_before_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--out", str(tmp_path / "gone" / "x.json")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_help_tells_of_comparing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--help"]) == 0
    assert "edge-agent bench compare A.json B.json" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"", b"text", b"\x1c\0\0\0TFL2" + bytes(100)])
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not a TFLite model"):
        find_model(path)


def test_drawn_images_are_radiograph_sized_and_differ() -> None:
    one, other = draw_jpeg(0), draw_jpeg(1)
    assert one != other
    assert one == draw_jpeg(0)
    with Image.open(io.BytesIO(one)) as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "L", (1024, 1024))


def test_threads_are_swept_over_the_cores() -> None:
    assert thread_counts(4) == [1, 2, 3, 4]
    assert thread_counts(24) == [1, 2, 4, 8, 16, 24]


def test_latency_is_refused_without_its_fields() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"iterations": 3}', type=Latency)
