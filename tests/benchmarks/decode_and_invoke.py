"""The least that must be done: decode, prepare and invoke on every core, with nothing stored. Run by ``bench_throughput.py``."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from edge_agent.imaging.decode import decode_image
from edge_agent.imaging.preprocess import prepare_input
from edge_agent.inference.bundle import Bundle, load_bundle
from edge_agent.inference.interpreter import Interpreter


def work(bundle: Bundle, interpreter: Interpreter, files: list[Path]) -> None:
    """Take files off the shared list until it is empty."""
    while True:
        try:
            path = files.pop()
        except IndexError:
            return
        frame = decode_image(path.read_bytes(), rows=bundle.input.rows, columns=bundle.input.columns)
        interpreter.invoke(prepare_input(frame.pixels, bundle.input))


def main(bundle_folder: Path, inbox: Path) -> None:
    bundle = load_bundle(bundle_folder)
    files = sorted(inbox.iterdir(), reverse=True)
    count = len(os.sched_getaffinity(0))
    threads = [threading.Thread(target=work, args=(bundle, Interpreter(bundle.model), files)) for _ in range(count)]
    started_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(time.perf_counter() - started_s)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
