"""Memory that a session has left behind, given back to the system before the next one takes its own."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress


def give_back_memory() -> None:
    """Free what nothing needs any more, and let the C library return it to the system.

    An agent that waits out a full disk for days begins thousands of sessions. Each loads the model, and glibc keeps what was freed in the
    arena of each thread: measured, 150 MB became 210 MB in 350 sessions, of which 70 MB were in use.

    References
    ----------
    malloc_trim(3). C libraries other than glibc have no such call and no need of it.
    """
    gc.collect()
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
