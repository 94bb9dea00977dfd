"""Files that were in hand when the program died: tried again alone, and set aside where they kill it again and again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from edge_agent.database.attempts import Attempt
from edge_agent.files.names import printable_path
from edge_agent.records import Arrival

CRASHES_TO_QUARANTINE = 2
"""So many times the process died of a signal while it had this file in hand: the next start does not try it a third time."""
DEATHS_TO_QUARANTINE = 5
"""The same where nothing tells what ended the process. ``kill -9`` and power cuts are not the file's fault, a lack of memory may be: so
often, and since the first of them alone in hand, is no accident."""

Treatment = Literal["as usual", "alone", "quarantine"]


class Quarantine:
    """What the database still held as in hand at the start, with how often that came.

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
        """Tell how a file must be handled; a file with another size or date is another file."""
        attempt = self._attempts.get(printable_path(arrival.path))
        if attempt is None or (attempt.size_bytes, attempt.mtime_ns) != (arrival.size_bytes, arrival.mtime_ns):
            return "as usual"
        if attempt.crashes >= CRASHES_TO_QUARANTINE or attempt.deaths >= DEATHS_TO_QUARANTINE:
            return "quarantine"
        return "alone"

    def clear(self, path: str) -> None:
        """Forget a file that was handled, and lived."""
        self._attempts.pop(printable_path(path), None)
