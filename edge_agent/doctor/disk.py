"""The disks under home and inbox: what file system, how much room, how worn."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from edge_agent.bench.board import read_integer, read_text
from edge_agent.doctor.finding import Finding, ok, problem, warning
from edge_agent.files.mounts import Mount

Role = Literal["home", "inbox"]

_WITHOUT_OWNERS = ("vfat", "msdos", "exfat", "fuse.exfat", "fuse.exfat-fuse", "ntfs", "ntfs3", "fuse.ntfs", "fuse.ntfs-3g", "fuseblk")
_IN_MEMORY = ("tmpfs", "ramfs", "overlay-tmpfs")
_UNSAFE_OPTIONS = ("nobarrier", "barrier=0", "data=writeback")
_OVERLAY_WORDS = ("boot=overlay", "overlayroot=")
"""With these on the kernel's command line a Raspberry Pi's card is read-only, and all that is written stays in memory."""

_MIN_FILES = 1000
_ROOMY_BYTES = 10**9
_WORN_LIFE = 9
"""JEDEC's device life time estimation of eMMC: 9 is 80 to 90 % used, 11 is beyond what the maker promised."""


def file_system_findings(role: Role, mount: Mount, root: Path = Path("/")) -> Iterator[Finding]:
    """Look at the file system that a folder stands on.

    Parameters
    ----------
    role : {"home", "inbox"}
        Results must survive a power cut; an inbox may be anything that can be listed and emptied.
    mount : Mount
        From :func:`edge_agent.intake.presence.check_present`.
    root : Path
        Where ``proc`` stands.
    """
    check, options = f"{role}'s disk", mount.options.split(",")
    remote = (
        ", a network share: listed again and again, because the kernel does not report changes that others make"
        if mount.is_remote and role == "inbox"
        else ""
    )
    saw = f"{mount.kind or 'unknown'} on {mount.source or 'unknown'}{remote}"
    if "ro" in options:
        advice = "a disk that had a fault is often mounted read-only: see  sudo dmesg | tail, check the disk, mount it writable again"
        yield problem(check, f"{saw}, read-only", advice)
    elif _stays_in_memory(mount, root):
        report = problem if role == "home" else warning
        yield report(check, f"{saw}: it is kept in memory and gone at the next start", "use a folder on a real disk or card")
    elif role == "home" and mount.is_remote:
        advice = "use a folder on a disk of this box: a database on a network share is locked or damaged when the network fails"
        yield problem(check, f"{saw}, a network share", advice)
    elif role == "home" and mount.kind in _WITHOUT_OWNERS:
        advice = "use a folder on ext4: this kind has no owners and no journal, and loses whole files when the power fails"
        yield problem(check, saw, advice)
    elif unsafe := [option for option in options if option in _UNSAFE_OPTIONS]:
        advice = "remove that option from /etc/fstab: with it a power cut may lose results that were already shown"
        yield (problem if role == "home" else warning)(check, f"{saw}, mounted with {', '.join(unsafe)}", advice)
    else:
        yield ok(check, saw)


def _stays_in_memory(mount: Mount, root: Path) -> bool:
    if mount.kind == "overlay":
        line = read_text(root / "proc/cmdline") or ""
        return any(word in line for word in _OVERLAY_WORDS) and "overlayroot=disabled" not in line
    return mount.kind in _IN_MEMORY


def space_finding(role: Role, space: os.statvfs_result, min_free_bytes: int) -> Finding:
    """Look at the room on a file system.

    Parameters
    ----------
    role : {"home", "inbox"}
        Whose it is.
    space : os.statvfs_result
        What the system says of it.
    min_free_bytes : int
        With less free space the agent takes no image.
    """
    check = f"{role}'s room"
    free, total = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
    saw = f"{free / 1e9:.1f} GB free of {total / 1e9:.1f}"
    advice = "free some space: old images in done/ and rejected/, or set [retention] so that the agent removes them"
    if free < max(min_free_bytes, 1):
        return problem(check, f"{saw}; below {min_free_bytes / 1e9:.1f} GB no image is taken", advice)
    if space.f_files and space.f_favail < _MIN_FILES:
        return problem(check, f"{saw}, but room for only {space.f_favail} more files", f"{advice}; many small files use it up")
    if free < max(_ROOMY_BYTES, 2 * min_free_bytes):
        return warning(check, saw, advice)
    return ok(check, saw)


def wear_findings(mount: Mount, root: Path = Path("/")) -> Iterator[Finding]:
    """Look at the card or disk below a file system, as far as the kernel knows it; SD cards do not report their wear.

    Parameters
    ----------
    mount : Mount
        Of the home.
    root : Path
        Where ``sys`` stands.
    """
    block = (root / "sys/dev/block" / mount.device).resolve()
    if mount.device.startswith("0:") or not mount.device or not block.is_dir():
        return
    disk = block.parent if (block / "partition").exists() else block
    about = disk / "device"
    kind = {"SD": "SD card", "MMC": "eMMC"}.get(read_text(about / "type") or "", "disk")
    named = " ".join(filter(None, (kind, read_text(about / "name") or read_text(about / "model") or disk.name)))
    made = read_text(about / "date")
    counters = root / "sys/fs/ext4" / block.name
    written_kb, errors = read_integer(counters / "lifetime_write_kbytes"), read_integer(counters / "errors_count")
    written = None if written_kb is None else f"{written_kb * 1024 / 1e9:.0f} GB written so far"
    life = max((int(word, 16) for word in (read_text(about / "life_time") or "").split()), default=0)
    saw = ", ".join(filter(None, (named, made and f"made {made}", written, f"{min(life * 10, 100)} % of its life used" if life else None)))
    if errors:
        advice = "save results/ and done/ now, check the file system (it is done at the start with  fsck.mode=force), and replace the disk"
        yield problem("wear", f"{saw}; its file system has noted {errors} errors", advice)
    elif life >= _WORN_LIFE:
        yield warning("wear", saw, "replace it before it fails; save results/ and done/ until then")
    else:
        yield ok("wear", saw)
