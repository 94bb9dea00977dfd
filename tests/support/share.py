"""A share whose server can be made to fail, to hang or to vanish: a file system in user space (FUSE) that shows a local folder.

It is mounted as "fuse.sshfs", which it behaves like: others write past it, and the kernel tells nobody. It needs root and /dev/fuse.
Whoever waits for a server that hangs cannot be killed before it answers or is killed itself.

The server is a process of its own, ``python share.py DESCRIPTOR FOLDER STATE``, so that who waits for it does not wait for themselves.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import stat
import struct
import subprocess
import sys
import time
from contextlib import suppress
from enum import IntEnum
from pathlib import Path

_IN_HEADER = struct.Struct("<IIQQIIIHH")
_OUT_HEADER = struct.Struct("<IiQ")
_READ_IN = struct.Struct("<QQIIQII")
_ATTRIBUTES = struct.Struct("<6Q10I")
_BUFFER_BYTES = 1024 * 1024
_UNMOUNT_NOW = 2  # MNT_DETACH


class _Ask(IntEnum):
    """What the kernel asks, as linux/fuse.h numbers it."""

    LOOKUP = 1
    FORGET = 2
    GETATTR = 3
    UNLINK = 10
    OPEN = 14
    READ = 15
    STATFS = 17
    RELEASE = 18
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    INTERRUPT = 36
    BATCH_FORGET = 42


class NoShareError(Exception):
    """This machine mounts nothing for us."""


class Share:
    """A mounted share. Use as a context manager: leaving it unmounts.

    Parameters
    ----------
    mount_point : Path
        Made where it does not exist.
    folder : Path
        What is shown. Write there as somebody else who uses the share.
    """

    def __init__(self, mount_point: Path, folder: Path) -> None:
        self.mount_point = mount_point
        self.folder = folder
        self._state = folder.with_name(f"{folder.name}.state")
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Share:
        self.mount()
        return self

    def __exit__(self, *_: object) -> None:
        self.unmount()

    def mount(self) -> None:
        """Mount it, with inode numbers of its own each time.

        Raises
        ------
        NoShareError
            If this machine does not let us.
        """
        self.mount_point.mkdir(exist_ok=True)
        self.answer("well")
        try:
            descriptor = os.open("/dev/fuse", os.O_RDWR)
        except OSError as fault:
            raise NoShareError(str(fault)) from fault
        try:
            options = f"fd={descriptor},rootmode=40000,user_id=0,group_id=0,allow_other"
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.mount(b"somebody@server:/films", os.fsencode(self.mount_point), b"fuse.sshfs", 0, options.encode()):
                raise NoShareError(os.strerror(ctypes.get_errno()))
            self._server = subprocess.Popen([sys.executable, __file__, str(descriptor), self.folder, self._state], pass_fds=[descriptor])
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        """Take it away, whoever uses it. Its mount point is an empty folder then."""
        ctypes.CDLL(None).umount2(os.fsencode(self.mount_point), _UNMOUNT_NOW)
        self.kill()

    def kill(self) -> None:
        """End the server, and leave its share mounted: whoever asks hears that it is not connected."""
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None

    def answer(self, how: str) -> None:
        """Have the server answer "well", with the name of an errno such as "EIO", so only to reading ("read EIO"), or never ("hang")."""
        part = self._state.with_name(f"{self._state.name}.part")
        part.write_text(how)
        part.replace(self._state)


class _Server:
    """Answers the kernel."""

    def __init__(self, descriptor: int, folder: Path, state: Path) -> None:
        self._descriptor = descriptor
        self._folder = folder
        self._state = state
        # The root is 1; other numbers are new with every mount.
        self._paths = {1: ""}
        self._next_node = random.randrange(2, 2**40)

    def serve(self) -> None:
        while True:
            try:
                request = os.read(self._descriptor, _BUFFER_BYTES + 4096)
            except OSError as fault:
                if fault.errno == errno.ENODEV:  # unmounted
                    return
                raise
            length, operation, unique, node, *_ = _IN_HEADER.unpack_from(request)
            if operation in (_Ask.FORGET, _Ask.BATCH_FORGET, _Ask.INTERRUPT):
                continue
            error, content = 0, b""
            try:
                content = self._answer(operation, node, request[_IN_HEADER.size : length])
            except OSError as fault:
                error = fault.errno or errno.EIO
            reply = _OUT_HEADER.pack(_OUT_HEADER.size + len(content), -error, unique) + content
            with suppress(FileNotFoundError):  # whoever asked was killed
                os.write(self._descriptor, reply)

    def _answer(self, operation: int, node: int, body: bytes) -> bytes:
        if operation == _Ask.INIT:
            return struct.pack("<IIIIHHIIHHI7I", 7, 31, 0, 0, 12, 9, 65536, 1, 0, 0, 0, *[0] * 7)
        self._behave(operation)
        path = self._folder / self._paths[node]
        match operation:
            case _Ask.GETATTR:
                return struct.pack("<QII", 0, 0, 0) + self._attributes(node, path)
            case _Ask.LOOKUP:
                return self._entry(path / os.fsdecode(body.rstrip(b"\0")))
            case _Ask.OPEN | _Ask.OPENDIR:
                return struct.pack("<QII", 0, 0, 0)
            case _Ask.READDIR:
                _, offset, size, *_ = _READ_IN.unpack_from(body)
                return self._names(path, offset, size)
            case _Ask.READ:
                _, offset, size, *_ = _READ_IN.unpack_from(body)
                with path.open("rb") as file:
                    file.seek(offset)
                    return file.read(size)
            case _Ask.UNLINK:
                (path / os.fsdecode(body.rstrip(b"\0"))).unlink()
                return b""
            case _Ask.STATFS:
                return struct.pack("<5Q4I6I", 1000, 500, 500, 1000, 500, 4096, 255, 4096, 0, *[0] * 6)
            case _Ask.RELEASE | _Ask.FLUSH | _Ask.RELEASEDIR:
                return b""
        raise OSError(errno.ENOSYS, "")

    def _behave(self, operation: int) -> None:
        while (how := self._state.read_text()) == "hang":
            time.sleep(0.02)
        which, _, name = how.rpartition(" ")
        if name != "well" and (which == "" or operation == _Ask.READ):
            raise OSError(getattr(errno, name), "")

    def _entry(self, path: Path) -> bytes:
        os.lstat(path)
        relative = path.relative_to(self._folder).as_posix()
        node = next((number for number, known in self._paths.items() if known == relative), 0)
        if not node:
            node, self._next_node = self._next_node, self._next_node + 1
            self._paths[node] = relative
        return struct.pack("<QQQQII", node, 0, 0, 0, 0, 0) + self._attributes(node, path)

    def _attributes(self, node: int, path: Path) -> bytes:
        found = os.lstat(path)
        seconds = [moment // 10**9 for moment in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)]
        rests = [moment % 10**9 for moment in (found.st_atime_ns, found.st_mtime_ns, found.st_ctime_ns)]
        owner = (found.st_mode, 1, found.st_uid, found.st_gid, 0, 4096, 0)
        return _ATTRIBUTES.pack(node, found.st_size, found.st_blocks, *seconds, *rests, *owner)

    def _names(self, folder: Path, offset: int, size: int) -> bytes:
        names = sorted(path.name for path in folder.iterdir())
        listed = b""
        for number, name in enumerate(names[offset:], start=offset + 1):
            raw = os.fsencode(name)
            kind = stat.S_IFMT(os.lstat(folder / name).st_mode) >> 12
            entry = struct.pack("<QQII", 1, number, len(raw), kind) + raw
            entry += bytes(-len(entry) % 8)
            if len(listed) + len(entry) > size:
                break
            listed += entry
        return listed


if __name__ == "__main__":
    _Server(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])).serve()
