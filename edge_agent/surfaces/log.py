"""The log: one event a line on standard error, ``event key=value``. Never a pixel, a file name or a full path of an image."""

from __future__ import annotations

import logging
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import PurePath

_log = logging.getLogger(__name__)

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""The priorities of sd-daemon(3)."""


class _EventFormatter(logging.Formatter):
    """Puts each event on one line. Before it stand time and level for a person, or the priority for the journal, which adds the time."""

    def __init__(self, *, for_journal: bool) -> None:
        super().__init__()
        self._for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record).replace("\n", "\\n")
        if self._for_journal:
            return f"<{_PRIORITIES.get(record.levelno, 6)}>{text}"
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return f"{time} {record.levelname.lower()} {text}"


def configure_logging(level: str) -> None:
    """Send the events of this package, and the warnings of the libraries, to standard error.

    Parameters
    ----------
    level : {"debug", "info", "warning", "error"}
        The least important event of this package that is written.
    """
    stream = logging.StreamHandler()
    stream.setFormatter(_EventFormatter(for_journal=_stderr_is_journal()))
    logging.basicConfig(level=logging.WARNING, handlers=[stream], force=True)
    logging.getLogger("edge_agent").setLevel(level.upper())


def trace_of(fault: BaseException) -> str:
    """Give what Python prints about an unexpected exception, without its text, which may quote the name of an image.

    Returns
    -------
    str
        The stack of each fault that led to it, and its class.
    """
    earlier = fault.__cause__ or (None if fault.__suppress_context__ else fault.__context__)
    before = f"{trace_of(earlier)}\nwhich led to\n" if earlier is not None else ""
    frames = "".join(traceback.format_tb(fault.__traceback__))
    return f"{before}Traceback (most recent call last):\n{frames}{type(fault).__name__}"


def place_of(fault: BaseException) -> str:
    """Name the place where a fault was raised, as ``module.py:line``."""
    frames = traceback.extract_tb(fault.__traceback__)
    return f"{PurePath(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "unknown"


@contextmanager
def thread_faults_logged() -> Iterator[None]:
    """Log an exception that ends a thread inside the block as an event, without its text: see :func:`trace_of`."""

    def note(ended: threading.ExceptHookArgs) -> None:
        if ended.exc_value is not None:
            name = ended.thread.name if ended.thread else "unknown"
            _log.error("thread_failed name=%s error=%s at=%s", name, ended.exc_type.__name__, place_of(ended.exc_value))

    before, threading.excepthook = threading.excepthook, note
    try:
        yield
    finally:
        threading.excepthook = before


def _stderr_is_journal() -> bool:
    """Tell whether standard error is the journal's stream, as systemd.exec(5) has it in ``JOURNAL_STREAM``."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM", "") == f"{found.st_dev}:{found.st_ino}"
