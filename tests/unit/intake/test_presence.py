"""Whether the inbox is there: looked up in real mounts, asked of a real share that hangs, fails and goes away."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.disks import NoDisksError, memory_disk
from support.share import NoShareError, Share

from edge_agent.errors import SourceGoneError
from edge_agent.files import deadline as deadline
from edge_agent.files import mounts
from edge_agent.files.deadline import real_path
from edge_agent.files.mounts import Mount, mounts_below
from edge_agent.intake import presence
from edge_agent.intake.presence import check_present


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    return inbox


@pytest.fixture
def disk(inbox: Path) -> Iterator[Path]:
    try:
        with memory_disk(inbox, 1024):
            yield inbox
    except NoDisksError as fault:
        pytest.skip(str(fault))


@pytest.fixture
def share(inbox: Path, tmp_path: Path) -> Iterator[Share]:
    (tmp_path / "films").mkdir()
    try:
        with Share(inbox, tmp_path / "films") as share:
            yield share
    except NoShareError as fault:
        pytest.skip(str(fault))


class TestMount:
    def test_a_folder_of_the_root_disk(self, inbox: Path) -> None:
        found = check_present(inbox, None)
        assert os.path.ismount(found.point)
        assert inbox.is_relative_to(found.point)

    def test_a_disk_of_its_own(self, disk: Path) -> None:
        (disk / "sub").mkdir()
        found = check_present(disk / "sub", None)
        assert (found.point, found.kind, found.source, found.is_remote) == (str(disk), "tmpfs", "tmpfs", False)

    def test_a_folder_with_a_name_that_the_table_escapes(self, tmp_path: Path) -> None:
        inbox = tmp_path / "x rays\\1\n\N{LUNGS}"
        try:
            with memory_disk(inbox, 64):
                assert check_present(inbox, None).point == str(inbox)
        except NoDisksError as fault:
            pytest.skip(str(fault))

    def test_a_folder_that_was_bound_onto_itself_counts_with_its_disk(self, disk: Path) -> None:
        """As systemd does with every folder of ReadWritePaths=: it is a mount point then, also when its disk is not mounted."""
        (disk / "in").mkdir()
        subprocess.run(["mount", "--bind", disk / "in", disk / "in"], check=True)
        try:
            assert check_present(disk / "in", None).point == str(disk)
        finally:
            subprocess.run(["umount", disk / "in"], check=True)

    def test_what_is_mounted_inside(self, inbox: Path) -> None:
        (inbox / "a").mkdir()
        assert mounts_below(inbox) == {}
        try:
            with memory_disk(inbox / "a" / "b c", 64):
                assert {path: mount.kind for path, mount in mounts_below(inbox).items()} == {"a/b c": "tmpfs"}
                assert "a/b c" not in mounts_below(inbox / "a" / "b c")
                assert str(inbox / "a" / "b c").lstrip("/") in mounts_below(Path("/"))
        except NoDisksError as fault:
            pytest.skip(str(fault))
        assert mounts_below(inbox) == {}

    def test_it_survives_as_a_note_of_the_same_inbox(self) -> None:
        inbox = Path(os.fsdecode(b"/mnt/\xff share/in"))
        mount = Mount(os.fsdecode(b"/mnt/\xff share"), "cifs", "//server/films")
        assert Mount.from_text(mount.to_text(inbox), inbox) == mount
        assert Mount.from_text(mount.to_text(inbox), Path("/other")) is None

    @pytest.mark.parametrize(
        "kind",
        [
            *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "vboxsf", "virtiofs", "prl_fs", "vmhgfs", "lustre", "gfs2"),
            *("fuse.sshfs", "fuse.rclone", "fuse.gvfsd-fuse", "fuse.glusterfs", "fuse.shfs", "fuse", "autofs"),
        ],
    )
    def test_where_others_write_past_the_kernel(self, kind: str) -> None:
        assert Mount("/", kind, "").is_remote

    @pytest.mark.parametrize(
        "kind", ["ext4", "xfs", "btrfs", "vfat", "exfat", "overlay", "tmpfs", "fuseblk", "fuse.ntfs-3g", "fuse.exfat", ""]
    )
    def test_where_the_kernel_sees_everything(self, kind: str) -> None:
        assert not Mount("/", kind, "").is_remote

    def test_a_pulled_disk_is_known_by_its_missing_device(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mounts, "_BLOCK_DEVICES", tmp_path)
        (tmp_path / "8:1").mkdir()
        assert not Mount("/", "vfat", "/dev/sda1", "8:1").is_pulled
        assert Mount("/", "vfat", "/dev/sdb1", "8:17").is_pulled
        assert not Mount("/", "nfs", "server:/", "0:40").is_pulled, "it has no device"
        assert not Mount("/", "ext4", "/dev/sda1").is_pulled, "an earlier run's note does not name it"
        monkeypatch.setattr(mounts, "_BLOCK_DEVICES", tmp_path / "absent")
        assert not Mount("/", "vfat", "/dev/sdb1", "8:17").is_pulled, "in a container nobody can tell"


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
    def test_a_folder_that_can_not_be_listed(self, inbox: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str) -> None:
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
        monkeypatch.setattr(presence, "_look_at", lambda _inbox: Mount(str(inbox), "autofs", "systemd-1"))
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
        started_s = time.monotonic()
        for _ in range(3):
            with pytest.raises(SourceGoneError, match="does not answer"):
                check_present(share.mount_point, None, answer_s=0.2)
        assert time.monotonic() - started_s < 2
        assert threading.active_count() == threads + 1
        share.answer("well")
        check_present(share.mount_point, None)
        assert threading.active_count() == threads

    def test_links_to_it_are_not_resolved_for_ever(self, share: Share, monkeypatch: pytest.MonkeyPatch) -> None:
        link = share.mount_point.with_name("link")
        link.symlink_to(share.mount_point)
        assert real_path(link / "sub") == share.mount_point / "sub"
        monkeypatch.setattr(deadline, "_RESOLVE_S", 0.2)
        share.answer("hang")
        assert real_path(link / "sub") == link / "sub"
        share.answer("well")
