"""A real agent on a temporary home: from a file's arrival to its durable record."""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import msgspec

from edge_agent.bench.child import repeat
from edge_agent.bench.images import draw_jpeg
from edge_agent.bench.result import BenchmarkRow, latency_of
from edge_agent.child_process import PythonChild
from edge_agent.errors import EdgeAgentError
from edge_agent.inference.interpreter import installed_runtimes
from edge_agent.records import Record

_SETTLE_TIME_S = 0.2
_LOOK_INTERVAL_S = 0.0005
_START_TIMEOUT_S = 120.0
_RECORD_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 10.0
_WARM_UP_FILES = 3
_DISK_FOLDER = "/var/tmp"  # noqa: S108 - survives a restart, so it is no tmpfs
_START_OF_IMAGE = b"\xff\xd8"


class AgentFailedError(EdgeAgentError):
    """The measured agent ended, or gave no record in time."""


def disk_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a temporary folder, on a disk if possible: in memory, where ``/tmp`` often is, a commit would be unrealistically fast."""
    return tempfile.TemporaryDirectory(prefix="edge-agent-bench-", dir=_DISK_FOLDER if os.access(_DISK_FOLDER, os.W_OK) else None)


def write_config(path: Path, settings: Mapping[str, float | str]) -> None:
    """Write a configuration of settings by their key path, such as ``intake.settle_time_s``."""
    # JSON's strings and numbers are TOML's too.
    path.write_text("".join(f"{key} = {msgspec.json.encode(value).decode()}\n" for key, value in settings.items()))


class RunningAgent:
    """An agent in a process of its own, on a home that is removed afterwards. Use it as a context manager.

    Parameters
    ----------
    bundle : Path
        The bundle that it runs.
    settings : mapping, optional
        Further settings by their key path, such as ``{"intake.settle_time_s": 0.2}``.

    Attributes
    ----------
    home, inbox : Path
        Its folders, on a disk.
    process : PythonChild
        The agent, while the context lasts.
    """

    def __init__(self, bundle: Path, settings: Mapping[str, float | str] | None = None) -> None:
        self._bundle = bundle
        self._settings = dict(settings or {})
        self._temporary = disk_folder()
        self.home = Path(self._temporary.name) / "home"
        self.inbox = self.home / "inbox"

    def __enter__(self) -> Self:
        self.inbox.mkdir(parents=True)
        config = self.home.with_name("bench.toml")
        bundle: dict[str, float | str] = {"model.bundle": str(self._bundle.absolute()), "model.allow_unsigned": True}
        write_config(config, {"home": str(self.home)} | bundle | self._settings)
        self.process = PythonChild("edge_agent.cli", "run", "--config", str(config))
        return self

    def __exit__(self, *fault: object) -> None:
        with self._temporary, self.process:
            self.process.terminate(_STOP_TIMEOUT_S)

    def drop(self, name: str, content: bytes) -> float:
        """Put a file into the inbox at once and whole; return when, by ``time.monotonic``."""
        part = self.inbox / f".{name}.part"
        part.write_bytes(content)
        dropped_s = time.monotonic()
        part.rename(self.inbox / name)
        return dropped_s

    def wait_for_record(self, name: str, timeout_s: float = _RECORD_TIMEOUT_S) -> tuple[Record, float]:
        """Wait until the record of ``name`` can be read, which is after its commit.

        Returns
        -------
        Record
            From the sidecar.
        float
            When it was found, by ``time.monotonic``.

        Raises
        ------
        AgentFailedError
            If the agent ended, or ``timeout_s`` passed.
        """
        sidecar = self.home / "results" / f"{name}.json"
        deadline_s = time.monotonic() + timeout_s
        while not os.path.exists(sidecar):  # noqa: PTH110 - twice as fast as Path.exists, in a loop that must not disturb
            if ended := self.process.poll():
                raise AgentFailedError(f"the agent {ended}")
            if time.monotonic() > deadline_s:
                said = self.process.last_line or "it wrote nothing"
                raise AgentFailedError(f"the agent gave no record of {name} within {timeout_s:g} s: {said}")
            time.sleep(_LOOK_INTERVAL_S)
        found_s = time.monotonic()
        return msgspec.json.decode(sidecar.read_bytes(), type=Record), found_s


def measure_arrivals(bundle: Path, seconds: float, images: Sequence[Path]) -> list[BenchmarkRow]:
    """Drop one image at a time into an idle agent's inbox.

    Parameters
    ----------
    bundle : Path
        What the agent runs, with the runtime that it prefers and a worker for each core.
    seconds : float
        How long, not counting the agent's start.
    images : sequence of Path
        The JPEGs among them are dropped in turn, each with a comment that makes it a new file: the same bytes are not classified twice.

    Returns
    -------
    list of BenchmarkRow
        ``commit`` and ``drop_to_record``, or one row with the error that prevented them.
    """
    runtime, threads = installed_runtimes()[0], len(os.sched_getaffinity(0))
    samples_ms: list[float] = []
    commits_ms: list[float] = []
    files = _new_jpegs(images)
    try:
        with RunningAgent(bundle, {"intake.settle_time_s": _SETTLE_TIME_S}) as agent:

            def step(timeout_s: float = _RECORD_TIMEOUT_S) -> None:
                name, content = next(files)
                dropped_s = agent.drop(name, content)
                record, found_s = agent.wait_for_record(name, timeout_s)
                samples_ms.append((found_s - dropped_s - _SETTLE_TIME_S) * 1000)
                commits_ms.append(record.timing_ms.commit or 0.0)

            for _ in range(_WARM_UP_FILES):
                step(_START_TIMEOUT_S)
            samples_ms.clear()
            commits_ms.clear()
            elapsed_s = repeat(step, seconds)
    except AgentFailedError as fault:
        return [BenchmarkRow(runtime=runtime, threads=threads, stage="drop_to_record", error=str(fault))]
    return [
        BenchmarkRow(runtime=runtime, threads=threads, stage="commit", latency_ms=latency_of(commits_ms, elapsed_s)),
        BenchmarkRow(runtime=runtime, threads=threads, stage="drop_to_record", latency_ms=latency_of(samples_ms, elapsed_s)),
    ]


def distinct_jpeg(content: bytes, number: int) -> bytes:
    """Return a JPEG of the same pixels with other bytes: a comment segment with ``number`` stands behind its start marker."""
    comment = b"%016d" % number
    return _START_OF_IMAGE + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + content[len(_START_OF_IMAGE) :]


def _new_jpegs(images: Sequence[Path]) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents without end, no two contents alike: of the JPEGs among the images, else drawn ones."""
    contents = [content for path in images if (content := path.read_bytes()).startswith(_START_OF_IMAGE)] or [draw_jpeg(seed=0)]
    for number, content in enumerate(itertools.cycle(contents)):
        yield f"bench-{number:06d}.jpg", distinct_jpeg(content, number)
