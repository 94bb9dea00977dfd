"""What somebody would write in an afternoon, to hold the agent against: Pillow, an interpreter on one thread, a CSV file.

Run by ``bench_throughput.py``, also in an environment without edge-agent: so it imports nothing of it. Prints the seconds of the loop,
without imports and without loading the model.
"""

from __future__ import annotations

import csv
import importlib
import json
import math
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image


def main(runtime: str, bundle: Path, inbox: Path, table: Path) -> None:
    interpreter = importlib.import_module(f"{runtime}.interpreter").Interpreter(str(bundle / "model.tflite"), num_threads=1)
    interpreter.allocate_tensors()
    model_input = interpreter.get_input_details()[0]
    embedding = next(output for output in interpreter.get_output_details() if len(output["shape"]) == 2)
    scale, zero_point = embedding["quantization"]
    _, rows, columns, _ = model_input["shape"]
    head = json.loads((bundle / "head.json").read_text())
    coefficients = np.array(head["coefficients"], dtype=np.float32)
    files = sorted(inbox.iterdir())

    started_s = time.perf_counter()
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "logit", "probability"])
        for path in files:
            with Image.open(path) as image:
                grey = np.asarray(image.convert("L").resize((columns, rows), Image.Resampling.BILINEAR))
            if model_input["dtype"] == np.int8:
                grey = (grey.astype(np.int16) - 128).astype(np.int8)
            interpreter.set_tensor(model_input["index"], grey[np.newaxis, :, :, np.newaxis])
            interpreter.invoke()
            values = (interpreter.get_tensor(embedding["index"])[0].astype(np.float32) - zero_point) * scale
            logit = float(values @ coefficients + head["intercept"])
            writer.writerow([path.name, logit, 1 / (1 + math.exp(-max(-60.0, min(60.0, logit))))])
    print(time.perf_counter() - started_s)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
