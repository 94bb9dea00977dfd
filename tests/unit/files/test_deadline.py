"""Questions to a file system that may never be answered."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from support.share import Share

from edge_agent.errors import StorageError
from edge_agent.files.deadline import NoAnswerError, ask_within, real_path


def test_an_answer_and_a_fault_are_handed_on() -> None:
    def fail() -> None:
        raise StorageError("no")

    assert ask_within(10, "well", lambda: 7) == 7
    with pytest.raises(StorageError, match="no"):
        ask_within(10, "ill", fail)
    with pytest.raises(FileNotFoundError):
        ask_within(10, "absent", Path("/absent/file").stat)


def test_a_question_that_is_waited_for_is_not_asked_again() -> None:
    """
    1. A question is not answered in time, twice.
    2. It is answered, and asked once more.
    Result: one thread waited; the old answer is not taken for the new one.
    """
    answered = threading.Event()
    asked: list[int] = []

    def ask() -> int:
        asked.append(len(asked))
        answered.wait(60)
        return asked[-1]

    for _ in range(2):
        with pytest.raises(NoAnswerError):
            ask_within(0.05, "slow", ask)
    assert asked == [0]
    answered.set()
    assert ask_within(10, "slow", ask) == 1


def test_links_to_a_share_are_not_resolved_for_ever(share: Share) -> None:
    link = share.mount_point.with_name("link")
    link.symlink_to(share.mount_point)
    assert real_path(link / "sub") == share.mount_point / "sub"
    share.answer("hang")
    assert real_path(link / "sub", timeout_s=0.2) == link / "sub"
    share.answer("well")
