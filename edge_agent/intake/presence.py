"""Whether the inbox is there: the very file system on which it stood, mounted and answering.

A share that is not mounted leaves its mount point behind, an empty folder like any other. Taken for an empty inbox it would be a silent
stop, and an image that waits to be moved would seem to have been taken away. So the agent remembers what the inbox stood on.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from edge_agent.errors import SourceGoneError
from edge_agent.patience import NoAnswerError, ask_within

AWAY_ERRNOS = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.ENOMEDIUM, errno.EREMOTEIO, errno.ETIMEDOUT),
        *(errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ECONNRESET, errno.ESHUTDOWN),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH),
    }
)
"""What the kernel says when a disk was pulled or a server does not answer; a healthy file system says none of it."""
ANSWER_S = 10.0
"""An inbox that has not answered after so long does not answer. Well below the time after which systemd's watchdog ends the agent."""

# Where others write past this kernel, it sees no change. FUSE kinds are "fuse." and a name, and mostly reach over a network.
_REMOTE_KINDS = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "9p", "afs", "ceph", "coda", "lustre", "beegfs", "gpfs", "orangefs", "pvfs2"),
        *("gfs2", "ocfs2", "vboxsf", "vmhgfs", "virtiofs", "prl_fs", "drvfs", "autofs", "fuse"),
    }
)
_LOCAL_FUSE_KINDS = frozenset(f"fuse.{name}" for name in ("ntfs", "ntfs-3g", "exfat", "exfat-fuse", "ext2", "ext4", "fuse-ext2", "apfs"))
_TABLE = Path("/proc/self/mountinfo")
_BLOCK_DEVICES = Path("/sys/dev/block")


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
        if self.device.partition(":")[0] in ("", "0") or not _BLOCK_DEVICES.is_dir():
            return False
        return not (_BLOCK_DEVICES / self.device).exists()

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
    return {mount.point[len(prefix) :]: mount for _, mount in _read_table() if mount.point.startswith(prefix) and mount.point != "/"}


def check_present(inbox: Path, expected: Mount | None, *, answer_s: float | None = None) -> Mount:
    """See that the inbox is there, can be listed, and stands on what it stood on before.

    It is asked with patience, see :func:`edge_agent.patience.ask_within`: a server that died may never answer.

    Parameters
    ----------
    inbox : Path
        Absolute, without symbolic links.
    expected : Mount or None
        What it stood on when it was last in use; None where that is not known.
    answer_s : float, optional
        How long to wait for its answer; :data:`ANSWER_S` where not given.

    Returns
    -------
    Mount
        What it stands on now.

    Raises
    ------
    SourceGoneError
        If the folder is missing, is no folder, can not be listed or does not answer, if its disk was pulled, or if the mount on which it
        stood is not there any more.
    """
    try:
        found = ask_within(ANSWER_S if answer_s is None else answer_s, ("look", inbox), lambda: _look_at(inbox))
    except NoAnswerError:
        raise source_gone(inbox, "its disk or server does not answer") from None
    except OSError as fault:
        raise source_gone(inbox, _reason(fault)) from fault
    if found.is_pulled:
        raise source_gone(inbox, "its disk was pulled out")
    if expected is not None:
        is_shorter = len(found.point) < len(expected.point) and Path(expected.point).is_relative_to(found.point)
        if is_shorter or (found.kind == "autofs" and expected.kind != "autofs"):
            raise source_gone(inbox, f"{expected.source or expected.kind} is not mounted on {expected.point}")
    return found


def source_gone(inbox: Path, reason: str) -> SourceGoneError:
    """Say that the inbox is away, why, and what to do."""
    return SourceGoneError(
        f"the inbox {inbox} is away ({reason}): plug in or mount its disk or share, or create the folder; "
        "no image is lost, and work goes on when it is back"
    )


def _look_at(inbox: Path) -> Mount:
    descriptor = os.open(inbox, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with os.scandir(descriptor) as entries:
            next(entries, None)
        # A listing may come from the kernel's memory for half a minute after the server died; this question goes to the server.
        os.statvfs(descriptor)
        return _mount_of_open(descriptor)
    finally:
        os.close(descriptor)


def _mount_of_open(descriptor: int) -> Mount:
    about = Path(f"/proc/self/fdinfo/{descriptor}").read_text("ascii")
    number = re.search(r"^mnt_id:\s*(\d+)$", about, re.MULTILINE)
    for mount_id, mount in _read_table():
        if number is not None and mount_id == number[1]:
            return mount
    found = os.fstat(descriptor)
    return Mount("/", "", "", f"{os.major(found.st_dev)}:{os.minor(found.st_dev)}")


def _read_table() -> Iterator[tuple[str, Mount]]:
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


def _reason(fault: OSError) -> str:
    match fault.errno:
        case errno.ENOENT:
            return "there is no such folder"
        case errno.ENOTDIR | errno.ELOOP:
            return "it is not a folder"
        case errno.EACCES | errno.EPERM:
            return "the agent is not allowed to list it"
        case _:
            return fault.strerror or str(fault)
