"""The log: one event a line on standard error, ``event key=value``. Never a pixel, a file name or a full path of an image."""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime

# sd-daemon(3)
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _EventFormatter(logging.Formatter):
    """Keeps an event on one line; before it the time and level for a person, or the priority for the journal, which adds its own time."""

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
        The least important event of ours that is written.
    """
    stream = logging.StreamHandler()
    stream.setFormatter(_EventFormatter(for_journal=_stderr_is_journal()))
    logging.basicConfig(level=logging.WARNING, handlers=[stream], force=True)
    logging.getLogger("edge_agent").setLevel(level.upper())


def _stderr_is_journal() -> bool:
    """Tell whether standard error is the journal's stream, as systemd.exec(5) has it in ``JOURNAL_STREAM``."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM", "") == f"{found.st_dev}:{found.st_ino}"
