"""Real file systems to be filled up, taken away and cut off. They need root; a test skips where they cannot be had."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COPY_CHUNK_BYTES = 4 * 1024 * 1024
_REPAIRED = 1
_PROBE_MIB = 16


class NoDisksError(Exception):
    """This machine mounts nothing for us."""


def _run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoDisksError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


@contextmanager
def memory_disk(folder: Path, size_kib: int) -> Iterator[Path]:
    """Mount a small file system that lies in memory, for the block.

    Raises
    ------
    NoDisksError
        If it cannot be mounted.
    """
    folder.mkdir(exist_ok=True)
    _run("mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", folder)
    try:
        yield folder
    finally:
        _run("umount", "--lazy", folder)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder in memory for images of disks: fast, and no other program's writing is waited for. On disk where there is no /dev/shm."""
    shared_memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None, prefix="edge-agent-") as name:
        yield Path(name)


class LoopDisk:
    """An ext4 file system in a file, mounted as a disk is.

    Parameters
    ----------
    image : Path
        The file; made by :meth:`make` or :meth:`cut`.
    mount_point : Path
        Made where it does not exist.
    """

    def __init__(self, image: Path, mount_point: Path) -> None:
        self.image = image
        self.mount_point = mount_point

    @classmethod
    def make(cls, image: Path, mount_point: Path, size_mib: int) -> LoopDisk:
        """Make an empty file system.

        Raises
        ------
        NoDisksError
            If mkfs.ext4 is missing or fails.
        """
        with image.open("wb") as file:
            file.truncate(size_mib * 1024 * 1024)
        try:
            # No lazy initialisation: its thread would write into the image for minutes.
            _run("mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
        except FileNotFoundError:
            raise NoDisksError("mkfs.ext4 is missing") from None
        return cls(image, mount_point)

    def mount(self, options: str = "") -> None:
        """Mount it; ``options`` are added to ``loop``. The journal is replayed where it must be.

        Raises
        ------
        NoDisksError
            If it cannot be mounted.
        """
        self.mount_point.mkdir(exist_ok=True)
        _run("mount", "-o", ",".join(filter(None, ("loop", "noatime", options))), self.image, self.mount_point)

    def unmount(self, *, lazy: bool = False) -> None:
        """Unmount it, as soon as nobody has a file open there; ``lazy`` takes it away under whoever has."""
        deadline_s = time.monotonic() + 60
        while True:
            try:
                _run("umount", *(["--lazy"] if lazy else []), self.mount_point)
            except NoDisksError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.05)
            else:
                return

    @contextmanager
    def mounted(self, options: str = "") -> Iterator[Path]:
        """Mount it for the block; whatever happens, it is unmounted."""
        self.mount(options)
        try:
            yield self.mount_point
        finally:
            if os.path.ismount(self.mount_point):
                self.unmount(lazy=True)

    def cut(self, image: Path, mount_point: Path) -> LoopDisk:
        """Copy the disk as it would be if the power failed now.

        The file holds what the file system has given to its disk: journal commits, what was fsynced, what was written back. What only
        stands in the page cache of the mounted file system is not in it. Everybody who writes must stand still; the kernel's own write-back
        may go on, so it is copied until two copies in a row are equal.
        """
        before = b""
        while True:
            digest = _copy(self.image, image)
            if digest == before:
                return LoopDisk(image, mount_point)
            before = digest


def check_disks() -> None:
    """See that disks can be made and mounted here: that takes root, mkfs.ext4, and a kernel that lets us.

    Raises
    ------
    NoDisksError
        If not.
    """
    with scratch() as folder, LoopDisk.make(folder / "probe.img", folder / "probe", _PROBE_MIB).mounted():
        pass


def remount(folder: Path, options: str) -> None:
    """Change how a file system is mounted: "ro", "rw", or "abort", which stops an ext4 as a fault of its disk does.

    Raises
    ------
    NoDisksError
        If it cannot be changed.
    """
    _run("mount", "-o", f"remount,{options}", folder)


def check_disk(image: Path) -> None:
    """Check and repair an ext4 file system that is not mounted, as a machine does when it starts.

    Raises
    ------
    NoDisksError
        If it cannot be repaired.
    """
    done = subprocess.run(["e2fsck", "-p", image], capture_output=True, text=True, check=False)
    if done.returncode not in (0, _REPAIRED):
        raise NoDisksError(f"e2fsck -p: {done.stdout.strip()}")


def _copy(image: Path, target: Path) -> bytes:
    """Copy the written parts of a file, leaving its holes; gives a digest of what was copied."""
    digest, size = hashlib.blake2b(), image.stat().st_size
    with image.open("rb", buffering=0) as source, target.open("wb", buffering=0) as copy:
        copy.truncate(size)
        end = 0
        while True:
            try:
                start = os.lseek(source.fileno(), end, os.SEEK_DATA)
            except OSError as fault:
                if fault.errno != errno.ENXIO:
                    raise
                return digest.digest()  # only a hole is left
            end = os.lseek(source.fileno(), start, os.SEEK_HOLE)
            digest.update(f"{start} {end} ".encode())
            source.seek(start)
            copy.seek(start)
            while (left := end - source.tell()) > 0:
                chunk = source.read(min(left, COPY_CHUNK_BYTES))
                digest.update(chunk)
                copy.write(chunk)


def fill(folder: Path, *, leave_kib: int = 0) -> Path:
    """Use up a disk but for so much; gives the file that does."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (1024 * 1024, 4096):
            try:
                while True:
                    file.write(bytes(size))
            except OSError as fault:
                if fault.errno != errno.ENOSPC:
                    raise
        file.truncate(max(0, file.tell() - leave_kib * 1024))
        os.fsync(file.fileno())
    return filler


def free_kib(folder: Path) -> int:
    """How much space a disk has."""
    return shutil.disk_usage(folder).free // 1024
