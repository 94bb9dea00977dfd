"""How many days have really passed, on a box whose clock nobody sets.

Nothing may be deleted for its age because a clock was set a year ahead, or because a box without a battery took the time for 1970. So a
record's age is not the difference of two dates. The agent counts the days that pass while it runs, and remembers which record was the
newest when each day began.
"""

from __future__ import annotations

import msgspec

DAY_S = 86_400.0
BELIEVED_S = 31 * DAY_S
"""The clock may go ahead by this much between two looks: the box was switched off. A larger jump counts as a wrong clock and adds no time.
So a clock that is set wrong by less deletes an image too early by this much at most."""
_SETTLED_S = 7 * DAY_S
"""A clock that jumped counts as right after this time: later jumps are measured from it."""


class Calendar(msgspec.Struct, frozen=True):
    """What is known of the time that passed.

    Attributes
    ----------
    passed_s : float
        Seconds that have passed, on a scale of its own; never goes back.
    wall_s : float
        The clock (Unix time) at the last look.
    base_s : float
        What the clock shows beyond ``passed_s`` while it is right.
    astray_since_s : float or None
        ``passed_s`` since which the clock has shown something else.
    """

    passed_s: float
    wall_s: float
    base_s: float = 0.0
    astray_since_s: float | None = None

    @classmethod
    def begin(cls, wall_s: float) -> Calendar:
        """Begin to count."""
        return cls(passed_s=wall_s, wall_s=wall_s)

    @property
    def day(self) -> int:
        """The number of the day."""
        return int(self.passed_s // DAY_S)

    def ahead_s(self, wall_s: float) -> float:
        """How far a clock is ahead of what has passed; negative where it is behind."""
        return wall_s - self.base_s - self.passed_s

    def look(self, wall_s: float) -> Calendar:
        """Look at the clock.

        Parameters
        ----------
        wall_s : float
            What it shows: Unix time.

        Returns
        -------
        Calendar
            With the time counted that has passed since the last look, as far as the clock can be believed.
        """
        if 0 <= self.ahead_s(wall_s) <= BELIEVED_S:
            return Calendar(passed_s=wall_s - self.base_s, wall_s=wall_s, base_s=self.base_s)
        elapsed_s = wall_s - self.wall_s
        passed_s = self.passed_s + (elapsed_s if 0 <= elapsed_s <= BELIEVED_S else 0.0)
        since_s = passed_s if self.astray_since_s is None else self.astray_since_s
        if passed_s - since_s > _SETTLED_S:
            return Calendar(passed_s=passed_s, wall_s=wall_s, base_s=wall_s - passed_s)
        return Calendar(passed_s=passed_s, wall_s=wall_s, base_s=self.base_s, astray_since_s=since_s)
