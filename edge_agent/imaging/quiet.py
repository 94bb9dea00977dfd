"""Warnings of the decoding libraries, kept away from the screen of an agent that reads other people's files."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_lock = threading.Lock()
_muted = ExitStack()
_depth = 0


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Ignore every ``UserWarning`` inside the block, in all threads that are inside one.

    Pillow and pydicom warn about each oddity of a file, and their texts may quote it: a patient's identifier would reach the log.
    What matters of it is an :class:`~edge_agent.errors.InputFault` of our own. ``warnings.catch_warnings`` alone is not safe here: it
    swaps a list that all threads share, and two overlapping blocks can leave it swapped. So the first thread in saves the list and the
    last one out puts it back.
    """
    global _depth
    with _lock:
        if _depth == 0:
            _muted.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore", UserWarning)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _muted.close()
