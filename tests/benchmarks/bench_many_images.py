"""Memory and time of a build's steps on very many images: listing, decoding, the cache, the search for leakage, training, embedding.

    .venv/bin/python tests/benchmarks/bench_many_images.py [--images 100000] [--folder DIR]

The images are made first: phantoms, each cropped, turned, brightened and sized anew, so that hardly two are nearly the same; grey PNG and
JPEG of 64 to 224 pixels, three a patient. They go into DIR (a temporary folder if not given) and are removed at the end. The steps then
run in a process of their own, whose highest resident memory (VmHWM) counts. Only memory has a budget; times are those of the machine as it
is.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from reporting import Measured, at_most, print_report

from edge_agent.imaging.preprocess import InputContract
from edge_agent.inference.bundle import default_bundle_path
from model_build.config import SourceConfig, TrainConfig, TrunkConfig
from model_build.data.phantom.draw import draw_phantom
from model_build.data.pixels import Pixels

BUDGET_MEBIBYTES = 3 * 1024
PHANTOMS = 64
PHANTOM_PX = 320
SMALLEST_PX, LARGEST_PX = 64, 224
IMAGES_PER_PATIENT = 3
TRAINED_ON, EMBEDDED = 960, 2_000
CONTRACT = InputContract(rows=160, columns=160)
SOURCE = SourceConfig(
    labels=["NORMAL", "OPACITY"],
    positive=["OPACITY"],
    patient_pattern=r"^(p\d+)",
    allow_leakage=True,
    title="phantoms",
    licence="ours",
    attribution="none",
)


def make_images(folder: Path, count: int) -> None:
    """Write ``count`` different images, one folder per class."""
    originals = [
        Image.fromarray(draw_phantom(seed, rows=PHANTOM_PX, columns=PHANTOM_PX, opacity_count=seed % 2)) for seed in range(PHANTOMS)
    ]
    for label in SOURCE.labels:
        (folder / label).mkdir(parents=True)
    for number in range(count):
        draw = np.random.default_rng(number)
        patient = number // IMAGES_PER_PATIENT
        phantom = 2 * int(draw.integers(PHANTOMS // 2)) + patient % 2
        angle, zoom, (left, top) = draw.uniform(-0.5, 0.5), draw.uniform(0.35, 0.75), draw.uniform(0.0, 0.25, 2) * PHANTOM_PX
        side = int(draw.integers(SMALLEST_PX, LARGEST_PX + 1))
        cosine, sine = np.cos(angle) * zoom * PHANTOM_PX / side, np.sin(angle) * zoom * PHANTOM_PX / side
        matrix = (cosine, -sine, left + 0.15 * PHANTOM_PX, sine, cosine, top)
        film = originals[phantom].transform((side, side), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        table = (255.0 * (np.arange(256) / 255.0) ** draw.uniform(0.7, 1.4)).astype(np.uint8).tolist()
        path = folder / SOURCE.labels[patient % 2] / f"p{patient}_{number}.{'png' if number % 2 else 'jpg'}"
        film.point(table).save(path, compress_level=1)


@dataclass(frozen=True)
class Share:
    """The first ``count`` of some pixels, read from where they are."""

    whole: Pixels
    count: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.whole.shape[1:])

    def __len__(self) -> int:
        return min(self.count, len(self.whole))

    def __getitem__(self, index: Any, /) -> NDArray[np.uint8]:
        return self.whole[index]


def measure(folder: Path) -> None:
    """Run every step once and print what each took, as JSON."""
    steps: dict[str, float] = {}

    def timed(name: str, step: Callable[[], Any]) -> Any:
        started_s = time.perf_counter()
        outcome = step()
        steps[f"{name}, s"] = time.perf_counter() - started_s
        steps[f"{name}, peak MiB"] = peak_mebibytes()
        print(f"{name}: {steps[f'{name}, s']:.1f} s, {steps[f'{name}, peak MiB']:,.0f} MiB", file=sys.stderr)
        return outcome

    from model_build.data.audit.shortcuts import image_shortcuts
    from model_build.data.images import ImageSet, read_images
    from model_build.data.layouts.reading import list_source
    from model_build.data.split import hold_out, refuse_leakage

    data, cache = folder / "data", folder / "cache"
    timed("list", lambda: list_source(data, SOURCE))

    def read() -> ImageSet:
        return read_images(data, SOURCE, CONTRACT, task="binary", cache=cache, in_memory_bytes=0)

    timed("decode and cache", read)
    images = timed("read again from the cache", read)
    held_out, _ = hold_out(images.files, SOURCE, 1)
    print(timed("leakage", lambda: refuse_leakage(images, held_out, SOURCE)), file=sys.stderr)
    timed("shortcuts", lambda: image_shortcuts(images, SOURCE.labels))
    order = np.random.default_rng(1).permutation(len(images.files))

    def read_batches() -> None:
        for start in range(0, len(order), 32):
            images.pixels[np.sort(order[start : start + 32])]

    timed("one epoch's batches", read_batches)

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from model_build.heads.embed import embed_images
    from model_build.training.train import Phase, Trainer
    from model_build.training.trunk.trunk import build_network

    def train() -> None:
        trainer = Trainer(build_network(TrunkConfig(), CONTRACT.rows, CONTRACT.columns), 2, TrainConfig(), 1)
        trainer.run(Phase("measure", 1, 1e-4, 1e-4), images.pixels, images.targets, chosen=np.sort(order[:TRAINED_ON]))

    timed(f"train on {TRAINED_ON:,}", train)
    model = (default_bundle_path() / "model.tflite").read_bytes()
    timed(f"embed {EMBEDDED:,}", lambda: embed_images(model, Share(images.pixels, EMBEDDED)))
    print(json.dumps(steps | {"images": len(images.files), "peak": peak_mebibytes(), "on disk": cache_mebibytes(cache)}))


def peak_mebibytes() -> float:
    """The highest resident memory of this process so far."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def cache_mebibytes(cache: Path) -> float:
    return sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) / 1024**2


def report(steps: dict[str, float]) -> int:
    count = int(steps["images"])
    lines = [at_most("highest resident memory, all steps", steps["peak"], BUDGET_MEBIBYTES, "MiB", f"{count:,} images")]
    lines += [Measured(f"decode, of one image, with {os.cpu_count()} cores", steps["decode and cache, s"] / count * 1e3, "ms")]
    lines += [Measured("of one image already in the cache", steps["read again from the cache, s"] / count * 1e3, "ms")]
    for name, value in steps.items():
        if name.endswith(", s"):
            lines.append(
                Measured(name.removesuffix(", s"), value, "s", note=f"{steps[name.replace(', s', ', peak MiB')]:,.0f} MiB by then")
            )
    lines.append(Measured("pixels and index on disk", steps["on disk"], "MiB"))
    return print_report(f"A build's steps on {count:,} images of 160x160 pixels", lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="where images and cache go for the while [a temporary folder]")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure is not None:
        measure(options.measure)
        return 0
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="many-images-") as name:
        started_s = time.perf_counter()
        make_images(Path(name) / "data", options.images)
        print(f"made {options.images:,} images in {time.perf_counter() - started_s:.0f} s", file=sys.stderr)
        done = subprocess.run([sys.executable, __file__, "--measure", name], stdout=subprocess.PIPE, text=True, check=True)
        return report(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    raise SystemExit(main())
