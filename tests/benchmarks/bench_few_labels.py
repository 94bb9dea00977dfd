"""Builds from few labels: how long each takes, and how far its CNN leads raw pixels, over several draws of patients and labels.

.venv/bin/python tests/benchmarks/bench_few_labels.py
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reporting import ROOT, Measured, arguments, at_least, at_most, print_report

CONFIG = ROOT / "model_build" / "configs" / "few-labels.toml"
# Each seed draws other patients to hold out, and other images to label.
SEEDS = (1, 2, 3, 4, 5)
RAW_PIXELS = """
import sys
from pathlib import Path
from model_build.config import load_build_config
from model_build.data.images import read_images
from model_build.heads.raw_pixel_baseline import raw_pixels
from model_build.heads.fit import head_logits
from model_build.studies.label_efficiency.curve import make_label_split
import numpy as np
config = load_build_config(Path(sys.argv[1]))
images = read_images(Path(sys.argv[2]), config.source, config.input, task=config.task)
split = make_label_split(config, images)
drawn = split.draw(config.train.labels_per_class, 0)
heads = split.fit(raw_pixels(images, np.flatnonzero(drawn)), drawn)
print(split.mean_auc(head_logits(heads, raw_pixels(images, np.flatnonzero(split.held_out)))))
"""


def build(config: Path, data: Path, out: Path) -> tuple[float, float, int]:
    """Seconds of the whole command, AUC on the held-out patients, bytes of the model."""
    started_s = time.perf_counter()
    command: list[str | Path] = [sys.executable, "-m", "model_build", "train", config, "--data", data, "--out", out]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    seconds = time.perf_counter() - started_s
    report = json.loads((out / "report.json").read_bytes())
    return seconds, report["measured"]["points"][0]["metrics"]["auc"]["value"], report["model_size_bytes"]


def raw_pixel_auc(config: Path, data: Path) -> float:
    """AUC of the same head on raw pixels, from the same labels, on the same held-out patients."""
    done = subprocess.run([sys.executable, "-c", RAW_PIXELS, config, data], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def main() -> int:
    options = arguments(__doc__).parse_args()
    data = options.data / "kermany" / "train"
    text, lines, leads, aucs = CONFIG.read_text(encoding="utf-8"), [], [], []
    with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
        for seed in SEEDS:
            config = Path(folder) / f"seed-{seed}.toml"
            config.write_text(re.sub(r"(?m)^seed = \d+$", f"seed = {seed}", text), encoding="utf-8")
            seconds, auc, size_bytes = build(config, data, Path(folder) / f"run-{seed}")
            raw = raw_pixel_auc(config, data)
            leads.append(auc - raw)
            aucs.append(auc)
            lines.append(at_most(f"draw {seed}: the whole build", seconds, 90, "s", f"AUC {auc:.4f}, raw pixels {raw:.4f}"))
            lines.append(at_most(f"draw {seed}: model.tflite", size_bytes, 1_000_000, "bytes"))
    spread = f"{min(aucs):.4f} to {max(aucs):.4f}"
    lines.append(Measured("AUC on held-out patients, mean of the draws, x 100", 100 * sum(aucs) / len(aucs), "", note=spread))
    spread = f"{min(leads):+.4f} to {max(leads):+.4f}"
    lines.append(at_least("lead over raw pixels, mean of the draws, x 100", 100 * sum(leads) / len(leads), 3.0, "", spread))
    return print_report("Few labels", lines)


if __name__ == "__main__":
    raise SystemExit(main())
