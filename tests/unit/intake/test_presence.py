"""Whether the inbox is there: looked up in real mounts, asked of a real share that hangs, fails and goes away."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.disks import NoDisksError, memory_disk
from support.share import Share

from edge_agent.errors import SourceGoneError
from edge_agent.files.mounts import Mount
from edge_agent.intake import presence
from edge_agent.intake.presence import check_present


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    return inbox


class TestLocal:
    def test_a_folder_is_there(self, inbox: Path) -> None:
        assert check_present(inbox, check_present(inbox, None)) == check_present(inbox, None)

    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (lambda inbox: None, "there is no such folder"),
            (lambda inbox: inbox.touch(), "it is not a folder"),
            (lambda inbox: inbox.symlink_to("/nowhere"), "there is no such folder"),
        ],
    )
    def test_what_is_no_folder(self, tmp_path: Path, make: Callable[[Path], None], reason: str) -> None:
        make(tmp_path / "absent")
        with pytest.raises(SourceGoneError, match=reason) as caught:
            check_present(tmp_path / "absent", None)
        assert "plug in or mount" in str(caught.value)
        assert caught.value.exit_code == 30

    @pytest.mark.parametrize(
        ("number", "reason"), [(errno.EACCES, "not allowed to list"), (errno.EIO, "Input/output"), (errno.ESTALE, "Stale file handle")]
    )
    def test_a_folder_that_cannot_be_listed(self, inbox: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str) -> None:
        def failing(*_: Any) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(presence.os, "scandir", failing)
        with pytest.raises(SourceGoneError, match=reason):
            check_present(inbox, None)

    def test_a_pulled_disk_although_the_kernel_still_lists_it(self, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Mount, "is_pulled", True)
        with pytest.raises(SourceGoneError, match="its disk was pulled out"):
            check_present(inbox, None)

    def test_an_empty_mount_point_is_no_empty_inbox(self, inbox: Path) -> None:
        """
        1. The inbox lies on a disk of its own, in a sub-folder of it.
        2. The disk is unmounted; below it there is a folder of the same name.
        Result: the inbox is away, and it says what is missing. When the disk is back it is there, whatever the disk is called now.
        """
        (inbox / "in").mkdir()
        try:
            with memory_disk(inbox, 64):
                (inbox / "in").mkdir()
                expected = check_present(inbox / "in", None)
                note = expected.to_text(inbox / "in")
        except NoDisksError as fault:
            pytest.skip(str(fault))
        with pytest.raises(SourceGoneError, match=f"tmpfs is not mounted on {inbox}"):
            check_present(inbox / "in", Mount.from_text(note, inbox / "in"))
        with memory_disk(inbox, 64):
            (inbox / "in").mkdir()
            check_present(inbox / "in", Mount(expected.point, "vfat", "/dev/sdb1"))

    def test_a_disk_that_is_mounted_where_a_folder_was_is_accepted(self, inbox: Path) -> None:
        before = check_present(inbox, None)
        try:
            with memory_disk(inbox, 64):
                assert check_present(inbox, before).point == str(inbox)
        except NoDisksError as fault:
            pytest.skip(str(fault))

    def test_an_automounter_that_mounted_nothing(self, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(presence, "mount_of_open", lambda _descriptor: Mount(str(inbox), "autofs", "systemd-1"))
        with pytest.raises(SourceGoneError, match="//server/films is not mounted"):
            check_present(inbox, Mount(str(inbox), "cifs", "//server/films"))
        check_present(inbox, None)


class TestShare:
    def test_a_share_is_looked_up_and_there(self, share: Share) -> None:
        found = check_present(share.mount_point, None)
        assert (found.point, found.kind, found.source) == (str(share.mount_point), "fuse.sshfs", "somebody@server:/films")
        assert found.is_remote

    def test_a_server_that_fails(self, share: Share) -> None:
        share.answer("EIO")
        with pytest.raises(SourceGoneError, match="Input/output error"):
            check_present(share.mount_point, None)

    def test_a_server_that_is_gone(self, share: Share) -> None:
        share.kill()
        with pytest.raises(SourceGoneError, match="not connected"):
            check_present(share.mount_point, None)

    def test_a_share_that_was_unmounted_and_comes_back(self, share: Share) -> None:
        expected = check_present(share.mount_point, None)
        share.unmount()
        assert list(share.mount_point.iterdir()) == []
        with pytest.raises(SourceGoneError, match="somebody@server:/films is not mounted on"):
            check_present(share.mount_point, expected)
        share.mount()
        assert check_present(share.mount_point, expected).kind == "fuse.sshfs"

    def test_a_server_that_never_answers_holds_nobody_up(self, share: Share) -> None:
        """
        1. The server hangs. The inbox is asked for, again and again.
        Result: each question ends soon, and all of them together cost one thread. When the server answers, the inbox is there.
        """
        share.answer("hang")
        threads = threading.active_count()
        for _ in range(3):
            with pytest.raises(SourceGoneError, match="does not answer"):
                check_present(share.mount_point, None, answer_s=0.2)
        assert threading.active_count() == threads + 1
        share.answer("well")
        check_present(share.mount_point, None)
        assert threading.active_count() == threads
