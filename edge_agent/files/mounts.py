"""Mounted file systems, as the kernel lists them: what a folder stands on, and whether others can change it unseen."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

_REMOTE_KINDS = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "9p", "afs", "ceph", "coda", "lustre", "beegfs", "gpfs", "orangefs", "pvfs2"),
        *("gfs2", "ocfs2", "vboxsf", "vmhgfs", "virtiofs", "prl_fs", "drvfs", "autofs", "fuse"),
    }
)
"""File systems that others can write to without this kernel seeing a change. FUSE kinds are "fuse." and a name; most use a network."""
_LOCAL_FUSE_KINDS = frozenset(f"fuse.{name}" for name in ("ntfs", "ntfs-3g", "exfat", "exfat-fuse", "ext2", "ext4", "fuse-ext2", "apfs"))
_TABLE = Path("/proc/self/mountinfo")
BLOCK_DEVICES = Path("/sys/dev/block")


@dataclass(frozen=True)
class Mount:
    """What a folder stands on, as proc_pid_mountinfo(5) has it.

    ``point`` is where it is mounted; a folder that was merely bound onto itself, as systemd does with ``ReadWritePaths=``, counts with the
    mount that it belongs to. ``kind`` is the file system ("ext4", "cifs", "fuse.sshfs"), ``source`` the device or server, ``device`` its
    number ("8:17"), ``options`` how it was mounted ("ro,noatime,...").
    """

    point: str
    kind: str
    source: str
    device: str = ""
    options: str = field(default="", compare=False)

    @property
    def is_remote(self) -> bool:
        """Whether others can change files without this kernel noticing, so that the folder must be listed again and again."""
        return self.kind in _REMOTE_KINDS or (self.kind.startswith("fuse.") and self.kind not in _LOCAL_FUSE_KINDS)

    @property
    def is_pulled(self) -> bool:
        """Whether its disk was pulled out while it was mounted. The kernel goes on listing the folders that it remembers."""
        if self.device.partition(":")[0] in ("", "0") or not BLOCK_DEVICES.is_dir():
            return False
        return not (BLOCK_DEVICES / self.device).exists()

    def has_device(self, device: int) -> bool:
        """Tell whether a file's ``st_dev`` is that of this mount."""
        return self.device == f"{os.major(device)}:{os.minor(device)}"

    def to_text(self, inbox: Path) -> str:
        """Give the mount of an inbox as text for a database note."""
        return json.dumps({"inbox": str(inbox), "point": self.point, "kind": self.kind, "source": self.source})

    @classmethod
    def from_text(cls, text: str, inbox: Path) -> Self | None:
        """Read such a note; None where it is about another inbox."""
        note = json.loads(text)
        return cls(note["point"], note["kind"], note["source"]) if note["inbox"] == str(inbox) else None


def mounts_below(folder: Path) -> dict[str, Mount]:
    """Look up what is mounted inside a folder, by path relative to it. No file system is asked."""
    prefix = f"{folder}/".replace("//", "/")
    return {mount.point[len(prefix) :]: mount for _, mount in _read_mount_table() if mount.point.startswith(prefix) and mount.point != "/"}


def mount_of_open(descriptor: int) -> Mount:
    """Look up what an open folder stands on. Where the table does not have it, only the device is known."""
    about = Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii")
    number = re.search(r"^mnt_id:\s*(\d+)$", about, re.MULTILINE)
    for mount_id, mount in _read_mount_table():
        if number is not None and mount_id == number[1]:
            return mount
    found = os.fstat(descriptor)
    return Mount("/", "", "", f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}")


def _read_mount_table() -> Iterator[tuple[str, Mount]]:
    """Give each mount that this process sees, with its number."""
    for line in _TABLE.read_text("utf-8", "surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        mount_id, _, device, root, point, options, *_ = map(_plain, before.split(" "))
        kind, source, super_options, *_ = map(_plain, after.split(" "))
        if root != "/" and point.endswith(root):
            point = point.removesuffix(root) or "/"
        yield mount_id, Mount(point, kind, source, device, f"{options},{super_options}")


def _plain(field: str) -> str:
    r"""Undo the octal escapes of spaces and line ends, which stand for bytes."""
    if "\\" not in field:
        return field
    raw = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), os.fsencode(field))
    return os.fsdecode(raw)
