"""An inbox on a network share: others write past the kernel, its server fails, hangs and vanishes, and the share comes back.

The share is a real mount (tests/support/share.py), and needs root and /dev/fuse.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agents import LIMIT_S, AgentHome, FakeClassifier, doing, drop, image_bytes, wait_until
from support.share import NoShareError, Share

from edge_agent import cli
from edge_agent.agent.timings import Timings
from edge_agent.commands import status as status_command
from edge_agent.errors import SourceGoneError
from edge_agent.intake import presence


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Share]:
    (tmp_path / "films").mkdir()
    try:
        with Share(tmp_path / "inbox", tmp_path / "films") as share:
            yield share
    except NoShareError as fault:
        pytest.skip(str(fault))


@pytest.fixture
def home(share: Share, tmp_path: Path) -> AgentHome:
    home = AgentHome(tmp_path, inbox=share.mount_point, poll_interval_s=0.05)
    home.timings = Timings(first_wait_s=0.1, longest_wait_s=0.2, heartbeat_s=0.2)
    return home


def is_away(home: AgentHome) -> bool:
    return doing(home.home) == ("waiting", "inbox_away")


def each_once(home: AgentHome, names: list[str]) -> None:
    rows = home.rows()
    assert sorted(row["path"] for row in rows) == sorted(names)
    assert {row["status"] for row in rows} == {"done"}
    assert not [row for row in rows if row["duplicate_of"]]
    assert home.files("done") == sorted(names)


def test_what_others_drop_on_a_share_is_found_by_polling(home: AgentHome, share: Share) -> None:
    with home.running():
        for seed in range(10):
            drop(share.folder, f"sub {seed % 2}/{seed}.png", image_bytes(seed))
        home.wait_for(10)
        wait_until(lambda: not [path for path in share.folder.rglob("*") if path.is_file()])
    each_once(home, [f"sub {seed % 2}/{seed}.png" for seed in range(10)])


@pytest.mark.parametrize("how", ["EIO", "ESTALE", "EHOSTDOWN", "hang"])
def test_a_server_that_fails_in_the_middle_costs_no_image(home: AgentHome, share: Share, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    1. Images are being taken from the share; its server fails, or stops answering.
    2. The agent says that the inbox is away. Others drop more images. The server is well again.
    Result: each image has one record, none is rejected, and all have left the inbox.
    """
    names = [f"{seed}.png" for seed in range(40)]
    if how == "hang":
        monkeypatch.setattr(presence, "ANSWER_S", 0.5)
    with home.running():
        for seed in range(20):
            drop(share.folder, f"{seed}.png", image_bytes(seed))
        home.wait_for(5)
        share.answer(how)
        if how != "hang":  # what the main loop itself waits for, it waits for
            wait_until(lambda: is_away(home))
        for seed in range(20, 40):
            drop(share.folder, f"{seed}.png", image_bytes(seed))
        share.answer("well")
        home.wait_for(40)
        wait_until(lambda: not [path for path in share.folder.iterdir() if path.is_file()])
    each_once(home, names)


def test_a_share_that_was_unmounted_in_the_middle_and_numbers_its_files_anew(home: AgentHome, share: Share) -> None:
    """
    1. Images are being taken from the share; it is unmounted. Its mount point stays, an empty folder.
    2. The agent says that the inbox is away. The share is mounted again, with other inode numbers.
    Result: each image has one record; those that could not leave the inbox have left it.
    """
    with home.running():
        for round_number in range(5):
            names = [f"{round_number}-{seed}.png" for seed in range(10)]
            for seed, name in enumerate(names):
                drop(share.folder, name, image_bytes(round_number * 10 + seed))
            home.wait_for(round_number * 10 + 3)
            share.unmount()
            wait_until(lambda: is_away(home))
            share.mount()
            home.wait_for(round_number * 10 + 10)
            wait_until(lambda: not list(share.folder.iterdir()))
    each_once(home, [f"{round_number}-{seed}.png" for round_number in range(5) for seed in range(10)])


def test_an_idle_agent_notices_too(home: AgentHome, share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "ANSWER_S", 0.5)
    with home.running():
        wait_until(lambda: doing(home.home) == ("working", ""))
        for go in (lambda: share.answer("hang"), share.kill, share.unmount):
            go()
            wait_until(lambda: is_away(home))
            share.unmount()
            share.mount()
            wait_until(lambda: doing(home.home) == ("working", ""))


def test_one_file_that_cannot_be_read_is_rejected_when_all_others_can(home: AgentHome, share: Share) -> None:
    """A server that answers everything but to the reading of a file, twice: the file is damaged, not the share."""
    share.answer("read EIO")
    with home.running():
        drop(share.folder, "a.png", image_bytes(1))
        rows = home.wait_for(1)
        assert (rows[0]["status"], rows[0]["reason_code"]) == ("rejected", "read_error")


def test_once_is_not_done_when_the_share_goes_away(home: AgentHome, share: Share) -> None:
    """
    1. ``run --once`` on a share that is unmounted as its first image is classified.
    Result: it ends with "source gone", not as if everything had been done.
    """

    first_only = threading.Lock()  # there are two workers

    def unmount() -> None:
        with first_only:
            if os.path.ismount(share.mount_point):
                share.unmount()

    def load(_config: Any, count: int) -> list[FakeClassifier]:
        return [FakeClassifier(home.classified, before=unmount) for _ in range(count)]

    for seed in range(100):
        drop(share.folder, f"{seed}.png", image_bytes(seed))
    with pytest.raises(SourceGoneError, match="is not mounted"):
        home.agent(load=load).run()
    share.mount()
    home.run_once()
    each_once(home, [f"{seed}.png" for seed in range(100)])


def test_who_asks_for_the_status_does_not_wait_for_a_server_that_hangs(
    home: AgentHome, share: Share, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """
    1. The share hangs, and somebody wants to know why nothing happens.
    Result: the status is shown while the server still hangs; it says that the inbox cannot be read.
    """
    monkeypatch.setattr(status_command, "_ANSWER_S", 0.3)
    home.run_once()
    share.answer("hang")
    give_up = threading.Timer(LIMIT_S, share.answer, ["well"])
    give_up.start()
    try:
        assert cli.main(["status", "--home", str(home.home)]) == 0
        assert give_up.is_alive(), "the server had to answer first"
    finally:
        give_up.cancel()
        share.answer("well")
    assert "cannot be read" in capsys.readouterr().out
