"""What comes of a soak, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

A_RUN_S = 60.0
"""Of agents that lived for so long it is asked whether their memory grew."""


@dataclass
class SoakFigures:
    """What came of it; ``faults`` names everything that was lost, twice, or not in agreement."""

    hours: float = 0.0
    chapters: int = 0
    """Homes that were filled, finished and reckoned up, one after the other."""
    drops: int = 0
    records: int = 0
    troubles: dict[str, int] = field(default_factory=dict)
    """What was done to the agent, and how often."""
    states: dict[str, int] = field(default_factory=dict)
    """What the agent said that it waited for meanwhile, and how often."""
    recovery_s: dict[str, float] = field(default_factory=dict)
    """The longest time from the end of each trouble to the durable record of an image that came then, settle time and all."""
    longest_recovery_s: float = 0.0
    agents: int = 0
    longest_run_s: float = 0.0
    memory_mib: float = 0.0
    memory_growth_percent: float = 0.0
    """The highest resident memory of all, and its worst growth in an agent that lived for a minute or longer, from its tenth second on."""
    lost: int = 0
    twice: int = 0
    broken_databases: int = 0
    faults: list[str] = field(default_factory=list)

    def add_faults(self, found: list[str]) -> None:
        """Add what a reckoning found, and count it."""
        self.faults += found
        self.lost += sum("has no record" in fault or " misses " in fault or "is lost" in fault for fault in found)
        self.twice += sum((" records" in fault and "misses" not in fault) or "too many" in fault for fault in found)
        self.broken_databases += any("_check: " in fault for fault in found)
