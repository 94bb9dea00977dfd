"""A clock that a test sets, for one process and its children: libfaketime (Debian: ``apt-get install faketime``)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

_LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1")


class NoFakeClockError(Exception):
    """This machine has no libfaketime."""


class FakeClock:
    """The wall clock of processes that are started with :attr:`environment`; monotonic clocks and the dates of files stay what they are.

    Parameters
    ----------
    folder : Path
        Where the file that sets it is put.
    time_zone : str
        For ``TZ``.

    Raises
    ------
    NoFakeClockError
        If libfaketime is not installed.
    """

    def __init__(self, folder: Path, time_zone: str = "UTC") -> None:
        found = [path for pattern in _LIBRARIES for path in Path("/").glob(pattern.lstrip("/"))]
        if not found:
            raise NoFakeClockError("libfaketime is not installed (apt-get install faketime)")
        self._file = folder / "clock"
        self.ahead = timedelta()
        self.set_ahead(timedelta())
        self.environment = {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
            "TZ": time_zone,
        }

    def set_ahead(self, ahead: timedelta) -> None:
        """Set it so much ahead of the real one; negative is behind. Takes effect at once."""
        self.ahead = ahead
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead.total_seconds():+.3f}\n", "ascii")
        new.replace(self._file)

    def set_to(self, moment: datetime) -> None:
        """Set it to a moment, from where it goes on."""
        self.set_ahead(moment - datetime.now(UTC))

    def now(self) -> datetime:
        """What it shows, in UTC."""
        return datetime.now(UTC) + self.ahead
