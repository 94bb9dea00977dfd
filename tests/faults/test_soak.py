"""One fault after the other: the short form of ``scripts/soak``."""

from __future__ import annotations

from support.proofs.chapter import ON_DISKS
from support.proofs.soak import soak


def test_one_fault_after_the_other(disks: None) -> None:
    """
    1. Many drop images all the time. The agent is killed, stopped, suspended, reloaded; its database is locked, its inbox goes away; its
       disk fills up, stands still, fails and loses its power, in any order.
    2. After each an image is dropped, and its record waited for. In the end all is reckoned up.
    Result: the agent always goes on by itself; nothing is lost, nothing is twice, no database is broken.
    """
    figures = soak(8, seed=1, shipped=False, calm_s=0.1, hold_s=0.6)
    assert figures.faults == []
    assert figures.troubles.keys() >= {"killed", "inbox away", *ON_DISKS}
    assert figures.records > 50
    assert figures.states.get("inbox_away", 0) > 0
