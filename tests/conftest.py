"""Fixtures that every kind of test shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


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
