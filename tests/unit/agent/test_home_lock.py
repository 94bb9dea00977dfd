"""One agent for one home folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.agent import home_lock as lock_module
from edge_agent.agent.home_lock import HomeLock, lock_holder
from edge_agent.errors import StorageError

HOLD = """
import sys
from pathlib import Path
from edge_agent.agent.home_lock import HomeLock
lock = HomeLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_the_second_agent_is_refused_with_the_process_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock_module, "_WAIT_S", 0.05)
    with subprocess.Popen([sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        assert lock_holder(tmp_path) == first.pid
        with pytest.raises(StorageError, match=rf"another agent \(process {first.pid}\).*--home"):
            HomeLock(tmp_path)
        first.kill()
    assert lock_holder(tmp_path) is None
    HomeLock(tmp_path).release()  # the system let go of it


def test_asking_who_holds_it_does_not_keep_an_agent_from_starting(tmp_path: Path) -> None:
    assert lock_holder(tmp_path) is None
    for _ in range(3):
        lock = HomeLock(tmp_path)
        assert lock_holder(tmp_path) == os.getpid()
        lock.release()
        assert lock_holder(tmp_path) is None


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "agent.lock").mkdir()
    with pytest.raises(StorageError, match=r"agent\.lock"):
        HomeLock(tmp_path)
