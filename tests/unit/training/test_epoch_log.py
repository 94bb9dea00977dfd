"""The lines of ``epochs.jsonl``, also on a disk that fills up, and that no file of a build is written in a way that a full disk breaks."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge_agent.errors import DiskFullError
from model_build.training.epoch_log import NOTHING_DONE, Done, EpochLog, read_epochs


def test_lines_beyond_the_checkpoint_are_dropped_and_new_ones_follow(tmp_path: Path) -> None:
    log = EpochLog(tmp_path / "epochs.jsonl", NOTHING_DONE)
    for epoch in (1, 2, 3):
        log.append("measure", epoch, 0.5, 10.0 * epoch, {})
    again = EpochLog(tmp_path / "epochs.jsonl", Done("measure", 2, 20.0))
    again.append("measure", 3, 0.25, 31.0, {"monitor_loss": 0.5})
    assert [(entry.epoch, entry.loss, entry.monitor_loss) for entry in read_epochs(log.path)] == [
        (1, 0.5, None),
        (2, 0.5, None),
        (3, 0.25, 0.5),
    ]


def test_a_full_disk_is_said_and_the_lines_before_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EpochLog(tmp_path / "epochs.jsonl", NOTHING_DONE)
    log.append("measure", 1, 0.5, 10.0, {})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFullError, match=r"epochs\.jsonl.*No space left on device; free space"):
        log.append("measure", 2, 0.5, 20.0, {})
    assert [entry.epoch for entry in read_epochs(log.path)] == [1]
    assert [path.name for path in tmp_path.iterdir()] == ["epochs.jsonl"]


def test_every_file_of_a_build_is_written_whole_or_not_at_all(repository: Path) -> None:
    """Tracking fills a temporary folder, which nobody reads again."""
    found = [
        f"{path.name}:{number}"
        for path in sorted((repository / "model_build").rglob("*.py"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if (".write_bytes(" in line or ".write_text(" in line) and path.parent.name != "tracking"
    ]
    assert found == []
