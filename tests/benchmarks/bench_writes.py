"""What one image costs the disk: bytes and flushes that reach a device, and the calls that the agent makes. SD cards wear out by both.

    sudo .venv/bin/python tests/benchmarks/bench_writes.py [--images 50]

The home lies on an ext4 file system in a file, mounted as a loop device, whose own counters tell what reached it: database, journal of the
file system and all. The image itself is left out: whoever drops it writes it. Then the same again under strace, which tells what the agent
wrote where, and how often it waited for the disk.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reporting import Measured, arguments, print_report
from support.disks import LoopDisk, NoDisksError, scratch

from edge_agent.bench.arrivals import distinct_jpeg, write_config
from edge_agent.bench.images import draw_jpeg

DISK_MIB = 512
SECTOR_BYTES = 512
KIBIBYTE = 1024
IDLE_S = 2.5
# Longer than the agent waits for quiet before it lets the disk have results/.
SYNC_CALLS = ("fsync", "fdatasync", "syncfs")
TRACED = ("write", "pwrite64", "writev", "sendfile", "copy_file_range", *SYNC_CALLS)
_CALL = re.compile(r"(?P<name>\w+)\((?P<fd>\d+)<(?P<path>[^>]*)>.*?\)? += (?P<result>-?\d+)")


class Traffic(NamedTuple):
    """What reached a device since it was mounted."""

    writes: int
    written_bytes: int
    flushes: int


def traffic(folder: Path) -> Traffic:
    """Read the counters of the device that a folder lies on; see Linux, Documentation/block/stat.rst."""
    device = folder.stat().st_dev
    fields = [int(field) for field in Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()]
    return Traffic(fields[4], fields[6] * SECTOR_BYTES, fields[15])


@contextmanager
def agent(home: Path, bundle: Path, prefix: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run an agent on a home until the block ends."""
    config = home.with_name("bench.toml")
    write_config(
        config,
        {
            "home": str(home),
            "model.bundle": str(bundle.absolute()),
            "intake.settle_time_s": 0.1,
            "log.level": "warning",
            "storage.min_free_bytes": 0,
        },
    )
    process = subprocess.Popen([*prefix, sys.executable, "-m", "edge_agent.cli", "run", "--config", str(config)])
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def drop(home: Path, numbers: range, content: bytes) -> int:
    """Drop images and wait for their records; gives their bytes."""
    size_bytes = 0
    for number in numbers:
        image = distinct_jpeg(content, number)
        part = home / "inbox" / f".{number}.part"
        part.write_bytes(image)
        part.rename(home / "inbox" / f"{number:06d}.jpg")
        size_bytes += len(image)
    deadline_s = time.monotonic() + 120
    for number in numbers:
        while not (home / "results" / f"{number:06d}.jpg.json").exists():
            if time.monotonic() > deadline_s:
                raise SystemExit("the agent gave no record in time")
            time.sleep(0.005)
    return size_bytes


def one_by_one(home: Path, images: int, content: bytes) -> int:
    """Let each image find an agent that has come to rest."""
    size_bytes = 0
    for number in range(images):
        size_bytes += drop(home, range(number, number + 1), content)
        time.sleep(IDLE_S)
    return size_bytes


def at_once(home: Path, images: int, content: bytes) -> int:
    """Let all images come together."""
    size_bytes = drop(home, range(1_000_000, 1_000_000 + images), content)
    time.sleep(IDLE_S)
    return size_bytes


def measure(bundle: Path, images: int, content: bytes) -> list[Measured]:
    """Count what reaches the device."""
    lines = []
    with scratch() as folder, LoopDisk.make(folder / "disk.img", folder / "disk", DISK_MIB).mounted() as disk:
        home = disk / "home"
        (home / "inbox").mkdir(parents=True)
        with agent(home, bundle, []):
            drop(home, range(2_000_000, 2_000_003), content)
            time.sleep(IDLE_S)
            for what, work in (("one by one", one_by_one), ("at once", at_once)):
                os.sync()
                before = traffic(disk)
                size_bytes = work(home, images, content)
                os.sync()
                after = traffic(disk)
                own_bytes = after.written_bytes - before.written_bytes - size_bytes
                lines += [
                    Measured(f"{what}: bytes that reach the device, beyond the image", own_bytes / images / KIBIBYTE, "KiB"),
                    Measured(f"{what}: writes", (after.writes - before.writes) / images, "an image"),
                    Measured(f"{what}: flushes of its cache", (after.flushes - before.flushes) / images, "an image"),
                ]
    return lines


def kind_of(path: str) -> str:
    """What a file is to the agent."""
    name = Path(path).name
    if name.startswith("edge-agent.db"):
        return "database journal" if name.endswith("-wal") else "database"
    if "/results" in path:
        return (
            "predictions.jsonl"
            if "jsonl" in name
            else "daily CSV"
            if ".csv" in name
            else "sidecar"
            if name.endswith(".tmp")
            else "results/"
        )
    return "the disk of the inbox" if path.endswith("/inbox") else "other"


def trace(bundle: Path, images: int, content: bytes) -> list[Measured]:
    """Count what the agent asks for, call by call."""
    if shutil.which("strace") is None:
        return [Measured("calls", None, "", note="not measured: strace is missing")]
    lines = []
    with scratch() as folder:
        for what, work in (("one by one", one_by_one), ("at once", at_once)):
            home = folder / what / "home"
            (home / "inbox").mkdir(parents=True)
            log = folder / f"{what}.txt"
            prefix = ["strace", "-D", "-f", "-y", "-s", "0", "-o", str(log), "-e", f"trace={','.join(TRACED)}"]
            with agent(home, bundle, prefix):
                drop(home, range(2_000_000, 2_000_003), content)
                time.sleep(IDLE_S)
                skipped = len(log.read_text().splitlines())
                work(home, images, content)
                calls = log.read_text().splitlines()[skipped:]
            written: Counter[str] = Counter()
            synced: Counter[str] = Counter()
            for line in calls:
                if (found := _CALL.search(line)) and str(folder) in found["path"]:
                    if found["name"] in SYNC_CALLS:
                        synced[f"{found['name']} of {kind_of(found['path'])}"] += 1
                    else:
                        written[kind_of(found["path"])] += max(0, int(found["result"]))
            lines += [Measured(f"{what}: written to {kind}", size / images / KIBIBYTE, "KiB") for kind, size in sorted(written.items())]
            lines += [Measured(f"{what}: {call}", count / images, "an image") for call, count in sorted(synced.items())]
    return lines


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=50)
    options = parser.parse_args()
    content = draw_jpeg(seed=0)
    try:
        lines = measure(options.model, options.images, content)
    except NoDisksError as fault:
        lines = [Measured("device", None, "", note=f"not measured: no disk can be mounted here ({fault}); it takes root")]
    lines += trace(options.model, options.images, content)
    return print_report(f"Writes for an image of {len(content) / KIBIBYTE:.0f} KiB, {options.images} images each", lines)


if __name__ == "__main__":
    raise SystemExit(main())
