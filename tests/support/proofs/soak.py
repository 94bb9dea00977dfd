"""A long time with one fault after the other: the agent goes on by itself, and in the end nothing is lost and nothing is twice.

scripts/soak [--hours 8 | --minutes 35] [--seed 1] [--json FILE] [--report]
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from edge_agent.files.atomic import replacing
from support.clocks import FakeClock, NoFakeClockError
from support.disks import NoDisksError, check_disks, scratch
from support.proofs.chapter import END_THE_AGENT, ON_DISKS, TROUBLES, Chapter
from support.proofs.report import Result, add_to_report
from support.proofs.soak_figures import SoakFigures

CHAPTER_S = 600.0


def soak(
    length_s: float,
    *,
    seed: int,
    shipped: bool = True,
    on_disks: bool = True,
    calm_s: float = 5.0,
    hold_s: float = 6.0,
    report: Callable[[SoakFigures], None] = lambda _: None,
) -> SoakFigures:
    """Drop images all the time, and let one trouble come after the other.

    Parameters
    ----------
    length_s : float
        At least so long, and until each trouble has come; the first chapter with a fault is the last.
    seed : int
        Of everything that is random.
    shipped, on_disks, hold_s
        As for :class:`Chapter`.
    calm_s : float
        The longest time between two troubles.
    report : callable
        Given the figures after each chapter.

    Raises
    ------
    NoDisksError
        If nothing can be mounted.
    """
    figures, began_s, chance = SoakFigures(), time.monotonic(), random.Random(seed)
    possible = _possible(shipped=shipped, on_disks=on_disks)
    bag: list[str] = []

    def goes_on(until_s: float) -> bool:
        return bool(possible - figures.troubles.keys()) or time.monotonic() < until_s

    while goes_on(began_s + length_s) and not figures.faults:
        chapter_end_s = min(time.monotonic() + CHAPTER_S, began_s + length_s)
        number = seed * 100 + figures.chapters
        try:
            with scratch() as folder, Chapter(folder, figures, seed=number, shipped=shipped, on_disks=on_disks, hold_s=hold_s) as chapter:
                while goes_on(chapter_end_s):
                    if not bag:
                        bag = sorted(possible) + sorted(possible.difference(END_THE_AGENT))
                        chance.shuffle(bag)
                    time.sleep(chance.uniform(0, calm_s))
                    chapter.meet(bag.pop())
                chapter.reckon()
        except AssertionError as fault:
            figures.add_faults([f"chapter {number}: {fault}"])
        figures.hours = round((time.monotonic() - began_s) / 3600, 3)
        report(figures)
    return figures


def _possible(*, shipped: bool, on_disks: bool) -> set[str]:
    found = set(TROUBLES) - (set() if on_disks else set(ON_DISKS))
    try:
        with scratch() as folder:
            FakeClock(folder)
    except NoFakeClockError:
        shipped = False
    return found if shipped else found - {"clock jumps"}  # the quick agent is forked with the clock of its parent


def _disks_can_be_had() -> bool:
    try:
        check_disks()
    except NoDisksError as fault:
        print(f"without disks that fill up and fail, because none can be mounted here: {fault}", file=sys.stderr)
        return False
    return True


def main() -> int:
    """Run as ``scripts/soak``; gives 0 where nothing went wrong."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--hours", type=float, default=8.0, help="how long (8)")
    length.add_argument("--minutes", type=float, help="how long")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is random (1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, after each ten minutes and in the end")
    parser.add_argument("--report", action="store_true", help="enter the figures into docs/reports/faults.md")
    given = parser.parse_args()
    minutes: float = given.minutes if given.minutes is not None else 60 * given.hours
    # As Ctrl-C: what was mounted and started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))

    def tell(figures: SoakFigures) -> None:
        text = json.dumps(asdict(figures), indent=2)
        if given.json is not None:
            with replacing(given.json) as file:
                file.write(text.encode())
        print(text, flush=True)

    try:
        figures = soak(60 * minutes, seed=given.seed, on_disks=_disks_can_be_had(), report=tell)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    if given.report:
        add_to_report("soak", Result(f"scripts/soak --minutes {minutes:g} --seed {given.seed}", 3600 * figures.hours, asdict(figures)))
    return 1 if figures.faults else 0


if __name__ == "__main__":
    sys.exit(main())
