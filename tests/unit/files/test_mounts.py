"""Mounted file systems, looked up in the real table of this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.disks import NoDisksError, memory_disk

from edge_agent.files import mounts
from edge_agent.files.mounts import Mount, mount_of_open, mounts_below


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


def mount_of(folder: Path) -> Mount:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return mount_of_open(descriptor)
    finally:
        os.close(descriptor)


class TestMount:
    def test_a_folder_of_the_root_disk(self, inbox: Path) -> None:
        found = mount_of(inbox)
        assert os.path.ismount(found.point)
        assert inbox.is_relative_to(found.point)

    def test_a_disk_of_its_own(self, disk: Path) -> None:
        (disk / "sub").mkdir()
        found = mount_of(disk / "sub")
        assert (found.point, found.kind, found.source, found.is_remote) == (str(disk), "tmpfs", "tmpfs", False)

    def test_a_folder_with_a_name_that_the_table_escapes(self, tmp_path: Path) -> None:
        inbox = tmp_path / "x rays\\1\n\N{LUNGS}"
        try:
            with memory_disk(inbox, 64):
                assert mount_of(inbox).point == str(inbox)
        except NoDisksError as fault:
            pytest.skip(str(fault))

    def test_a_folder_that_was_bound_onto_itself_counts_with_its_disk(self, disk: Path) -> None:
        """As systemd does with every folder of ReadWritePaths=: it is a mount point then, also when its disk is not mounted."""
        (disk / "in").mkdir()
        subprocess.run(["mount", "--bind", disk / "in", disk / "in"], check=True)
        try:
            assert mount_of(disk / "in").point == str(disk)
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
        monkeypatch.setattr(mounts, "BLOCK_DEVICES", tmp_path)
        (tmp_path / "8:1").mkdir()
        assert not Mount("/", "vfat", "/dev/sda1", "8:1").is_pulled
        assert Mount("/", "vfat", "/dev/sdb1", "8:17").is_pulled
        assert not Mount("/", "nfs", "server:/", "0:40").is_pulled, "it has no device"
        assert not Mount("/", "ext4", "/dev/sda1").is_pulled, "an earlier run's note does not name it"
        monkeypatch.setattr(mounts, "BLOCK_DEVICES", tmp_path / "absent")
        assert not Mount("/", "vfat", "/dev/sdb1", "8:17").is_pulled, "in a container nobody can tell"
