"""Files that were in hand when the program died: each is tried again alone, and set aside if it kills the program repeatedly."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from edge_agent.database.attempts import Attempt
from edge_agent.files.names import printable_path
from edge_agent.records import Arrival

CRASHES_TO_QUARANTINE = 2
"""After this many crashes (deaths by a signal of its own) with a file in hand, the file is not tried again."""
DEATHS_TO_QUARANTINE = 5
"""The same for ends of unknown cause. A power cut or ``kill -9`` is not the file's fault, running out of memory may be. After the first
such end the file is tried alone, so that this many are no accident."""

Treatment = Literal["as usual", "alone", "quarantine"]


class Quarantine:
    """The files that the database held as in hand at the start, with the number of crashes and deaths of each.

    Parameters
    ----------
    attempts : iterable of Attempt
        From :meth:`edge_agent.agent.ledger.Ledger.blame`.
    """

    def __init__(self, attempts: Iterable[Attempt]) -> None:
        self._attempts = {attempt.path: attempt for attempt in attempts if attempt.crashes or attempt.deaths}

    def __len__(self) -> int:
        return len(self._attempts)

    def treatment(self, arrival: Arrival) -> Treatment:
        """Tell how to try a file; a file with another size or date is another file."""
        attempt = self._attempts.get(printable_path(arrival.path))
        if attempt is None or (attempt.size_bytes, attempt.mtime_ns) != (arrival.size_bytes, arrival.mtime_ns):
            return "as usual"
        if attempt.crashes >= CRASHES_TO_QUARANTINE or attempt.deaths >= DEATHS_TO_QUARANTINE:
            return "quarantine"
        return "alone"

    def clear(self, path: str) -> None:
        """Forget a file that was tried without killing the program."""
        self._attempts.pop(printable_path(path), None)
