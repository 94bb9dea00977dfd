"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).resolve().parents[1]
# Tests of every kind import what they share as "support".
sys.path.insert(0, str(ROOT / "tests"))
# Started in the background by a script, this process would ignore Ctrl-C, and so would the programs that it interrupts to see what they do.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A slow or busy machine is no failure of a property.
hypothesis.settings.register_profile("any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("any machine")

WORKERS_MAX = 4
WORKER_BYTES = 2 * 1024**3
"""Memory of a process of tests with TensorFlow in it, and of what it starts."""


def pytest_xdist_auto_num_workers() -> int:
    """Choose how many processes share the tests: the cores that this one may use, as far as memory goes."""
    free_bytes = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, StopIteration):
        available = next(line for line in Path("/proc/meminfo").read_text("ascii").splitlines() if line.startswith("MemAvailable"))
        free_bytes = int(available.split()[1]) * 1024
    return max(1, min(WORKERS_MAX, len(os.sched_getaffinity(0)), free_bytes // WORKER_BYTES))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take longest first, so that no process is left alone with one: whole builds, then those that use TensorFlow."""

    def rank(item: pytest.Item) -> int:
        module = item.getparent(pytest.Module)
        if module is None:
            return 2
        return 0 if module.get_closest_marker("timeout") else 1 if {"tf", "keras"} & vars(module.obj).keys() else 2

    items.sort(key=rank)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this checkout."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the real radiographs, which never enter the repository: EDGE_AGENT_DATA, or ``../shared/data`` beside it."""
    named = os.environ.get("EDGE_AGENT_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not (folder / "kermany").is_dir():
        pytest.skip(f"no real radiographs: {folder} has no folder kermany (EDGE_AGENT_DATA names another place)")
    return folder


@pytest.fixture
def other_file_system() -> Iterator[Path]:
    """A new folder on another file system than the temporary folders of the tests."""
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == Path(tempfile.gettempdir()).stat().st_dev:
        pytest.skip("no second file system: /dev/shm is missing or holds the temporary folder too")
    with tempfile.TemporaryDirectory(dir=shared_memory, prefix="edge-agent-") as name:
        yield Path(name)
