"""Take the network from this process and all that it starts, in the kernel: whoever asks for an internet socket is killed on the spot."""

from __future__ import annotations

import ctypes
import platform
import struct

import pytest

_SOCKET_CALL = {"x86_64": 41, "aarch64": 198}
_NO_NEW_PRIVILEGES, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_INET, _INET6 = 2, 10


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def forbid_network() -> None:
    """Kill, from now on, this process or the one that it started that opens a socket of IPv4 or IPv6; Unix sockets stay.

    Raises
    ------
    OSError
        If the kernel does not filter system calls.
    """
    call = _SOCKET_CALL[platform.machine()]
    steps = [
        (_LOAD, 0, 0, 0),  # the number of the system call
        (_JUMP_IF_EQUAL, 0, 3, call),
        (_LOAD, 0, 0, 16),  # its first argument: the address family
        (_JUMP_IF_EQUAL, 2, 0, _INET),
        (_JUMP_IF_EQUAL, 1, 0, _INET6),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL_PROCESS),
    ]
    instructions = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.cast(instructions, ctypes.c_void_p).value)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _FILTER, ctypes.byref(program)):
        raise OSError(ctypes.get_errno(), "the kernel does not filter system calls")


def skip_unless_possible() -> None:
    """Skip a test on a machine whose system calls are not known here."""
    if platform.system() != "Linux" or platform.machine() not in _SOCKET_CALL:
        pytest.skip(f"no filter of system calls for {platform.system()} on {platform.machine()}")
