"""Memory does not follow the number of images: their pixels stay on disk while they are decoded, compared and read in batches."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FEW, MANY = 1_000, 8_000
SIDE_PX = 160
# For each image a thumbnail (1 KiB) stays in memory, twice while the index is written, and its entry.
KIBIBYTES_PER_IMAGE = 8

STEPS = """
import sys
from pathlib import Path
import numpy as np
from edge_agent.imaging.preprocess import InputContract
from model_build.config import SourceConfig
from model_build.data.images import read_images
from model_build.data.split import hold_out, refuse_leakage

root, side = Path(sys.argv[1]), int(sys.argv[2])
source = SourceConfig(
    labels=["A", "B"], positive=["B"], patient_pattern=r"^(p\\d+)", allow_leakage=True, title="t", licence="l", attribution="a"
)
contract = InputContract(rows=side, columns=side)
images = read_images(root / "data", source, contract, task="binary", cache=root / "cache", in_memory_bytes=0)
refuse_leakage(images, hold_out(images.files, source, 1)[0], source)
order = np.random.default_rng(1).permutation(len(images.files))
total = sum(int(images.pixels[np.sort(order[start : start + 32])].sum()) for start in range(0, len(order), 32))
assert total > 0
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(len(images.files), peak.split()[1])
"""


def put_textures(folder: Path, count: int) -> None:
    """Write different small pictures, half of them in each class."""
    for label in "AB":
        (folder / label).mkdir(parents=True)
    for number in range(count):
        grain = np.random.default_rng(number).integers(0, 256, (8, 8), dtype=np.uint8)
        path = folder / "AB"[number % 2] / f"p{number}.png"
        Image.fromarray(grain).resize((64, 64), Image.Resampling.BICUBIC).save(path, compress_level=1)


def peak_kibibytes(root: Path, count: int) -> int:
    put_textures(root / "data", count)
    done = subprocess.run([sys.executable, "-c", STEPS, str(root), str(SIDE_PX)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    found, peak = done.stdout.split()
    assert int(found) == count
    return int(peak)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_does_not_follow_the_pixels(tmp_path: Path) -> None:
    """
    1. A thousand images are read, compared and handed out in batches.
    2. The same with eight thousand, whose pixels take 171 MiB more.
    Result: each further image costs a few KiB of memory, not its 25 KiB of pixels.
    """
    growth = peak_kibibytes(tmp_path / "many", MANY) - peak_kibibytes(tmp_path / "few", FEW)
    assert growth < KIBIBYTES_PER_IMAGE * (MANY - FEW)
