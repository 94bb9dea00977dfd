"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Tests of every kind import what they share as "support".
sys.path.insert(0, str(ROOT / "tests"))
# Started in the background by a script, this process would ignore Ctrl-C, and so would the programs that it interrupts to see what they do.
signal.signal(signal.SIGINT, signal.default_int_handler)


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
