"""Fixtures that unit tests of several rooms share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.share import NoShareError, Share


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Share]:
    """A mounted share, whose server does what a test says."""
    for name in ("share", "films"):
        (tmp_path / name).mkdir()
    try:
        with Share(tmp_path / "share", tmp_path / "films") as share:
            yield share
    except NoShareError as fault:
        pytest.skip(str(fault))
