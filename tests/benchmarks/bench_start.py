"""How soon the command line answers: import time, and ``edge-agent predict`` from process start to exit.

.venv/bin/python tests/benchmarks/bench_start.py
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reporting import arguments, at_most, median, print_report, radiographs

IMAGES = 624
IMPORT = "import time; start = time.perf_counter(); import edge_agent.cli; print(time.perf_counter() - start)"


def seconds_of(*command: str | Path) -> float:
    started_s = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started_s


def main() -> int:
    options = arguments(__doc__).parse_args()
    small, large = radiographs(options.data, "kermany/train"), radiographs(options.data, "kermany/fullres")
    predict = (sys.executable, "-m", "edge_agent.cli", "predict", "--model", options.model, "--format", "jsonl")
    imports = [float(subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True, text=True).stdout) for _ in range(21)]
    one = [seconds_of(*predict, large[turn % len(large)]) for turn in range(11)]
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(small[:: len(small) // IMAGES][:IMAGES]):
            shutil.copy(path, Path(folder) / f"{number:04d}.jpeg")
        many = [seconds_of(*predict, folder) for _ in range(5)]
    return print_report(
        "Start",
        [
            at_most("import of edge_agent.cli, median of 21", median(imports) * 1000, 150, "ms"),
            at_most("edge-agent predict, one full-size file, median of 11", median(one), 0.8, "s"),
            at_most(f"edge-agent predict, folder of {IMAGES} files of 224x224, median of 5", median(many), 5, "s"),
        ],
    )


if __name__ == "__main__":
    raise SystemExit(main())
