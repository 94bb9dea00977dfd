"""Resident memory: the proportional set size (PSS) of all the agent's processes, idle after 1,000 full-size radiographs and more.

    .venv/bin/python tests/benchmarks/bench_memory.py [--images 5000]

PSS counts a page that several processes share in equal parts, so that the sum over processes is what the machine would get back.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from reporting import Measured, arguments, at_most, print_report, radiographs

from edge_agent.bench.arrivals import RunningAgent, distinct_jpeg

MEBIBYTE = 1024**2
BATCH = 100
IDLE_S = 3.0
FLAT_WITHIN_MEBIBYTES = 10


def processes(root: int) -> list[int]:
    """A process and all its descendants."""
    found = [root]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found.extend(map(int, children.read_text().split()))
    return found


def pss_mebibytes(root: int) -> float:
    """The sum over a process and its descendants, in MiB."""
    total_kib = 0
    for pid in processes(root):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total_kib += int(line.split()[1])
    return total_kib * 1024 / MEBIBYTE


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=5000)
    options = parser.parse_args()
    originals = radiographs(options.data, "kermany/fullres")
    marks = sorted({1, 1000, *range(1000, options.images + 1, 1000), options.images})
    memory: dict[int, float] = {}
    with RunningAgent(options.model, {"intake.settle_time_s": 0.1, "intake.on_done": "delete", "log.level": "warning"}) as agent:
        number = 0
        for mark in marks:
            while number < mark:
                names = [f"{index:06d}.jpeg" for index in range(number, min(number + BATCH, mark))]
                for name in names:
                    agent.drop(name, distinct_jpeg(originals[number % len(originals)].read_bytes(), number))
                    number += 1
                for name in names:
                    agent.wait_for_record(name)
            time.sleep(IDLE_S)
            memory[mark] = pss_mebibytes(agent.process.pid)
            print(f"after {mark} images: {memory[mark]:.1f} MiB in {len(processes(agent.process.pid))} processes", file=sys.stderr)
    growth = memory[options.images] - memory[1000]
    return print_report(
        f"Resident memory, PSS of all the agent's processes, {len(originals)} radiographs of full size in turn",
        [
            Measured("after the first image", memory[1], "MiB"),
            at_most("after 1,000 images", memory[1000], 130, "MiB"),
            Measured(f"after {options.images:,} images", memory[options.images], "MiB"),
            at_most(f"growth from 1,000 to {options.images:,} images", growth, FLAT_WITHIN_MEBIBYTES, "MiB", "flat"),
        ],
    )


if __name__ == "__main__":
    raise SystemExit(main())
