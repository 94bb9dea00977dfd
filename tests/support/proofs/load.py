"""Many images: a steady stream for a long time, then all at once."""

from __future__ import annotations

import hashlib
import os
import random
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from edge_agent.intake import folder as intake
from support.agent_process import exec_agent, run_agent
from support.agents import doing, image_bytes, wait_until
from support.memory import proportional_mib
from support.reckoning import faults_of, read_rows
from support.writers import Drop

SETTLE_S = 0.2
IMAGE_SIZE = (64, 64)
MOST_WAITING = intake.LIMITS.waiting_files
"""The intake's own limit for one pass over the inbox."""
WARM_UP_S = 60.0
STANDSTILL_S = 120.0
AT_WORK = 100
"""Images that two workers may have taken and in hand."""


@dataclass
class LoadFigures:
    """What came of it; ``faults`` names everything that was lost, twice, or not in agreement."""

    images: int = 0
    stream_hz: float = 0.0
    stream_s: float = 0.0
    median_ms: float = 0.0
    p99_ms: float = 0.0
    """From the moment at which an image of the stream had settled to its durable record."""
    burst: int = 0
    burst_s: float = 0.0
    images_per_s: float = 0.0
    longest_queue: int = 0
    queue_bound: int = 0
    """Images that memory held at once, and how many it may: see ``intake.folder.Limits.held_files``, and what is at work."""
    order_correlation: float = 0.0
    """Of the order of the burst's records with the order of its dates, newest first (Spearman): 1 is the same, 0 is none."""
    memory_first_mib: float = 0.0
    memory_highest_mib: float = 0.0
    memory_growth_percent: float = 0.0
    """PSS, from the median of the first tenth of the stream after the warm-up to the highest of all."""
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


class MemoryGauge:
    """Measures the memory (PSS) of a process again and again, in a thread of its own, for as long as the block lasts."""

    def __init__(self, pid: int, period_s: float) -> None:
        self.sizes: list[tuple[float, float]] = []
        """Seconds of ``time.monotonic``, and MiB."""
        self._pid = pid
        self._period_s = period_s
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_looking, name="gauge")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _keep_looking(self) -> None:
        while not self._stopping.wait(self._period_s):
            self.sizes.append((time.monotonic(), proportional_mib(self._pid)))


def bear_load(
    folder: Path, *, stream_hz: float, stream_s: float, burst: int, shipped: bool, most_waiting: int = MOST_WAITING
) -> LoadFigures:
    """Drop images at a steady rate, then many at once, and measure what that does to the agent.

    Parameters
    ----------
    folder : Path
        Empty; the home folder is made in it.
    stream_hz, stream_s : float
        Images in a second, and for how many seconds.
    burst : int
        So many come at once afterwards.
    shipped : bool
        Whether the agent has the model that ships.
    most_waiting : int
        The intake's limit: so many files a pass over the inbox keeps.
    """
    home, note, began_s = folder / "home", folder / "queue", time.monotonic()
    inbox = home / "inbox"
    inbox.mkdir(parents=True)
    figures = LoadFigures(stream_hz=stream_hz, stream_s=stream_s, burst=burst, queue_bound=intake.Limits(most_waiting).held_files + AT_WORK)
    book: list[Drop] = []
    settings = {"shipped": shipped, "most_waiting": most_waiting, "queue_note": str(note)}
    with exec_agent(home, {}, settle_time_s=SETTLE_S, extra='[log]\nlevel = "error"\n', **settings) as process:
        try:
            wait_until(lambda: process.poll() is not None or doing(home) == ("working", ""))
            with MemoryGauge(process.pid, period_s=1.0 if stream_s > WARM_UP_S else 0.1) as gauge:
                _stream(inbox, book, stream_hz, stream_s)
                _wait_for(home, len(book), process)
                streamed_s = time.monotonic()
                newest_first = _burst(folder, inbox, book, burst)
                came_s = time.monotonic()
                _wait_for(home, len(book), process)
                figures.burst_s = round(time.monotonic() - came_s, 1)
        finally:
            process.terminate()
        _, said = process.communicate(timeout=120)
    if process.returncode:
        figures.faults.append(f"the agent ended with {process.returncode}: {said[-500:]}")
    code, said = run_agent(home, once=True, settle_time_s=SETTLE_S)
    figures.faults += [f"the last agent ended with {code}: {said[-500:]}"] if code else []
    figures.faults += faults_of(home, inbox, book)
    figures.longest_queue = int(note.read_text("ascii"))
    _measure_memory(figures, gauge, streamed_s)
    _measure_records(figures, home, newest_first)
    figures.seconds = round(time.monotonic() - began_s, 1)
    return figures


def _measure_memory(figures: LoadFigures, gauge: MemoryGauge, streamed_s: float) -> None:
    # The first tenth of the stream, or its first minute, is for what every process does in the beginning.
    from_s = gauge.sizes[0][0] + min(WARM_UP_S, 0.1 * (streamed_s - gauge.sizes[0][0]))
    warm = [size for at_s, size in gauge.sizes if at_s >= from_s]
    first = statistics.median(warm[: max(1, len(warm) // 10)])
    figures.memory_first_mib, figures.memory_highest_mib = round(first, 1), round(max(warm), 1)
    figures.memory_growth_percent = round(100 * (max(warm) / first - 1), 1)


def _measure_records(figures: LoadFigures, home: Path, newest_first: list[str]) -> None:
    rows = read_rows(home, "SELECT path, total_ms FROM record ORDER BY id")
    figures.images = len(rows)
    stream_ms = sorted(row["total_ms"] for row in rows[: len(rows) - figures.burst] if row["total_ms"] is not None)
    figures.median_ms, figures.p99_ms = round(statistics.median(stream_ms), 1), round(stream_ms[int(len(stream_ms) * 0.99)], 1)
    figures.images_per_s = round(figures.burst / max(figures.burst_s, 0.1), 1)
    place = {path: number for number, path in enumerate(newest_first)}
    taken = [place[row["path"]] for row in rows if row["path"] in place]
    figures.order_correlation = round(statistics.correlation(taken, range(len(taken))), 4)


def _stream(inbox: Path, book: list[Drop], rate_hz: float, for_s: float) -> None:
    """Drop images at a steady rate, whatever the agent does with them."""
    began_s = time.monotonic()
    for number in range(int(rate_hz * for_s)):
        content = image_bytes(number, IMAGE_SIZE)
        drop = Drop((f"{number}.png",), hashlib.sha256(content).hexdigest(), "there")
        part = inbox / f".{number}.part"
        part.write_bytes(content)
        part.rename(inbox / drop.names[0])
        book.append(drop)
        time.sleep(max(0.0, began_s + (number + 1) / rate_hz - time.monotonic()))


def _burst(folder: Path, inbox: Path, book: list[Drop], count: int) -> list[str]:
    """Let many images be there at once: a folder of them is moved into the inbox. Gives their paths, the newest first."""
    beside = folder / "burst"
    beside.mkdir()
    dates = random.Random(1).sample(range(count), count)
    by_date: list[tuple[int, str]] = []
    for number, date in enumerate(dates):
        content = image_bytes(10_000_000 + number, IMAGE_SIZE)
        path = beside / f"{number}.png"
        path.write_bytes(content)
        os.utime(path, ns=(0, 1_700_000_000_000_000_000 + date * 1_000_000_000))
        drop = Drop((f"burst/{number}.png",), hashlib.sha256(content).hexdigest(), "there")
        book.append(drop)
        by_date.append((-date, drop.names[0]))
    beside.rename(inbox / "burst")
    return [path for _, path in sorted(by_date)]


def _wait_for(home: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many records are there, as long as they become more."""
    last, changed_s = 0, time.monotonic()
    while (now := int(read_rows(home, "SELECT coalesce(max(id), 0) AS last FROM record")[0]["last"])) < count:
        assert process.poll() is None, "the agent ended by itself"
        if now > last:
            last, changed_s = now, time.monotonic()
        assert time.monotonic() < changed_s + STANDSTILL_S, f"{now} of {count} records, and no more come"
        time.sleep(0.1)
