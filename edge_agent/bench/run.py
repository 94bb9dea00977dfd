"""One benchmark of one model on this board, from the facts before to the facts after."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.bench.arrivals import measure_arrivals
from edge_agent.bench.board import read_board
from edge_agent.bench.condition import cautions, invalidity, read_state
from edge_agent.bench.images import DESCRIPTION, draw_jpeg
from edge_agent.bench.result import SCHEMA_VERSION, BenchmarkResult, BenchmarkRow
from edge_agent.bench.sweep import BenchmarkModel, find_model, measure_model
from edge_agent.errors import ConfigError, InputFault
from edge_agent.version import program_version

_DRAWN_IMAGES = 8
_MAX_IMAGES = 256


def run_bench(
    model: Path, runtimes: Sequence[str], threads: Sequence[int], seconds: float, image_folder: Path | None, report: Callable[[str], None]
) -> BenchmarkResult:
    """Measure a model and, if it is a bundle, the agent that runs it.

    Parameters
    ----------
    model : Path
        A bundle's folder or a ``.tflite`` file.
    runtimes : sequence of str
        Of :data:`edge_agent.inference.interpreter.RUNTIMES`.
    threads : sequence of int
        Numbers of threads of one inference.
    seconds : float
        For each row.
    image_folder : Path or None
        Images to use instead of drawn ones; those that cannot be decoded are left out.
    report : callable
        Called with a few words on what begins now.

    Raises
    ------
    ModelError
        If the model cannot be used.
    ConfigError
        If the folder holds no image that can be decoded.
    """
    measured = find_model(model)
    board, states = read_board(), [read_state()]
    warnings = cautions(board, states[0])
    with tempfile.TemporaryDirectory(prefix="edge-agent-bench-") as scratch:
        images, description = _images(measured, image_folder, Path(scratch), warnings)
        rows: list[BenchmarkRow] = []
        for row in measure_model(measured, runtimes, threads, seconds, images, report):
            rows.append(row)
            states.append(read_state())
        if measured.bundle is not None:
            report("a running agent")
            rows += measure_arrivals(measured.bundle, seconds, images)
    states.append(read_state())
    return BenchmarkResult(
        schema_version=SCHEMA_VERSION,
        created_at=datetime.now(UTC),
        edge_agent_version=program_version(),
        model=measured.file,
        images=description,
        board=board,
        before=states[0],
        after=states[-1],
        invalid=invalidity(states),
        cautions=warnings,
        rows=rows,
    )


def _images(model: BenchmarkModel, folder: Path | None, scratch: Path, warnings: list[str]) -> tuple[list[Path], str]:
    """Find or draw the images, and say in words what they are; a bare model needs none."""
    if model.bundle is None:
        return [], "none: random values"
    if folder is None:
        drawn = [scratch / f"drawn-{seed}.jpg" for seed in range(_DRAWN_IMAGES)]
        for seed, path in enumerate(drawn):
            path.write_bytes(draw_jpeg(seed))
        return drawn, DESCRIPTION
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    usable = [path for path in files[:_MAX_IMAGES] if _can_be_decoded(path)]
    if not usable:
        raise ConfigError(f"{folder} holds no image that can be decoded; leave --images out to use drawn ones")
    if len(usable) < len(files):
        warnings.append(f"of {len(files)} files in the image folder {len(usable)} were used")
    return usable, f"folder {folder.name}: {len(usable)}"


def _can_be_decoded(path: Path) -> bool:
    from edge_agent.imaging.decode import decode_image

    try:
        decode_image(path.read_bytes(), rows=1, columns=1)
    except (InputFault, OSError):
        return False
    return True
