"""Throughput on full-size radiographs, durable, against what else one could do with the same files on the same machine in the same run.

    .venv/bin/python tests/benchmarks/bench_throughput.py [--files 512] [--rounds 3]

Contenders, in turn, round after round: the agent (``run --once``: everything committed, moved and written to results/, less the time of a
run with an empty inbox); a plain loop with Pillow, LiteRT on one thread and a CSV file; the same loop with tflite-runtime, in
``.venv-tflite``, which is made where it is missing; and decoding and inference alone on every core, nothing stored.

Every round keeps its images on the disk, 0.6 GB of 1,536, to the end. Begin five minutes after many files were deleted on that disk.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path

from reporting import ROOT, Measured, arguments, at_least, median, print_report, radiographs

from edge_agent.bench.arrivals import disk_folder, distinct_jpeg, write_config

HERE = Path(__file__).parent
TFLITE_VENV = ROOT / ".venv-tflite"
TFLITE_PACKAGES = ("tflite-runtime==2.14.0", "numpy<2", "pillow>=12.2")


def make_files(originals: list[Path], count: int, folder: Path) -> Path:
    """Write ``count`` files, no two alike, so that none is a duplicate to the agent."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:05d}.jpeg").write_bytes(distinct_jpeg(originals[number % len(originals)].read_bytes(), number))
    return folder


def run_agent(files: Path | None, bundle: Path, scratch: Path) -> float:
    """Seconds of one ``edge-agent run --once`` over copies of the files, from process start to exit."""
    home = scratch / "home"
    inbox = home / "inbox"
    inbox.parent.mkdir()
    if files is None:
        inbox.mkdir()
    else:
        shutil.copytree(files, inbox)
    # The agent waits until the disk has its results; what this script wrote before must not wait in the same queue.
    os.sync()
    count = len(list(inbox.iterdir()))
    config = scratch / "agent.toml"
    model: dict[str, float | str] = {"model.bundle": str(bundle.absolute()), "model.allow_unsigned": True}
    write_config(config, model | {"home": str(home), "intake.settle_time_s": 0})
    started_s = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "edge_agent.cli", "run", "--once", "--config", str(config)], check=True, stderr=subprocess.DEVNULL
    )
    elapsed_s = time.perf_counter() - started_s
    results = home / "results" / "predictions.jsonl"
    records = results.read_bytes().count(b"\n") if results.exists() else 0
    done = len(list((home / "done").glob("*"))) if count else 0
    assert (records, done) == (count, count), f"{count} files gave {records} records and {done} files in done/"
    # Kept to the end: ext4 searches long for a new file's inode where many were deleted in the last minutes, half a millisecond for each.
    home.rename(scratch / f"home-{len(list(scratch.iterdir()))}")
    return elapsed_s


def run_loop(python: str | Path, script: str, *arguments: str | Path) -> float:
    """Seconds that a script says its loop took."""
    answer = subprocess.run([python, HERE / script, *arguments], check=True, capture_output=True, text=True).stdout
    return float(answer.split()[-1])


def tflite_python() -> Path | None:
    """The Python that has tflite-runtime; None where it cannot be had: it has no wheel past Python 3.11."""
    python = TFLITE_VENV / "bin" / "python"
    if not python.exists() and sys.version_info[:2] == (3, 11):
        print(f"making {TFLITE_VENV.name} ...", file=sys.stderr)
        venv.create(TFLITE_VENV, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *TFLITE_PACKAGES], check=True)
    return python if python.exists() else None


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--files", type=int, default=1536)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    originals, model = radiographs(options.data, "kermany/fullres"), options.model.absolute()
    with disk_folder() as folder:
        scratch = Path(folder)
        files = make_files(originals, options.files, scratch / "files")
        table = scratch / "table.csv"
        contenders: dict[str, Callable[[], float]] = {
            "agent": lambda: run_agent(files, model, scratch) - run_agent(None, model, scratch),
            "plain LiteRT": lambda: run_loop(sys.executable, "plain_loop.py", "ai_edge_litert", model, files, table),
            "decode and invoke": lambda: run_loop(sys.executable, "decode_and_invoke.py", model, files),
        }
        python = tflite_python()
        if python is not None:
            contenders["plain tflite-runtime"] = lambda: run_loop(python, "plain_loop.py", "tflite_runtime", model, files, table)
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(options.rounds):
            for name, contender in contenders.items():
                rates[name].append(options.files / contender())
                print(f"round {turn + 1}: {name}: {rates[name][-1]:.1f} images/s", file=sys.stderr)

    def ratio(other: str) -> float:
        # Of the same round, so that a slow minute of the machine meets both.
        return median([ours / theirs for ours, theirs in zip(rates["agent"], rates[other], strict=True)])

    lines = [Measured(name, median(values), "images/s") for name, values in rates.items()]
    lines.append(at_least("agent : plain LiteRT loop, one thread", ratio("plain LiteRT"), 2.5, "times"))
    lines.append(at_least("agent : decode and invoke alone, all cores", ratio("decode and invoke"), 0.75, "times"))
    if python is None:
        lines.append(Measured("agent : plain tflite-runtime loop", None, "times", ">= 8 times", note="tflite-runtime needs Python 3.11"))
    else:
        lines.append(at_least("agent : plain tflite-runtime loop", ratio("plain tflite-runtime"), 8, "times"))
    return print_report(f"Throughput, {options.files} full-size radiographs, {options.rounds} rounds", lines)


if __name__ == "__main__":
    raise SystemExit(main())
