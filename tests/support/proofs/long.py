"""The long proofs, one after the other, and their figures in docs/reports/faults.md.

scripts/faults [--only kills|power|space|load] [--seed 2]
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from support.disks import NoDisksError
from support.proofs.kills import kill_at_random
from support.proofs.load import bear_load
from support.proofs.power import cut_power
from support.proofs.report import Result, add_to_report
from support.proofs.space import SpaceFigures, fill_while_working


def _kills(folder: Path, seed: int) -> Any:
    return kill_at_random(folder, seed=seed, kills=240, drops=2500, real_every=12)


def _power(_folder: Path, seed: int) -> Any:
    return cut_power(seed=seed, cuts=60, real_every=5)


def _space(_folder: Path, seed: int) -> Any:
    """Fill both kinds of disk, with the inbox on them and elsewhere; gives the sums."""
    total = SpaceFigures()
    for kind, own_inbox in product(("tmpfs", "ext4"), (True, False)):
        found = fill_while_working(seed=seed, fillings=6, kind="tmpfs" if kind == "tmpfs" else "ext4", own_inbox=own_inbox, shipped=True)
        longest_s = max(total.longest_recovery_s, found.longest_recovery_s)
        sums = {name: value + getattr(found, name) for name, value in vars(total).items()}
        total = SpaceFigures(**{**sums, "longest_recovery_s": longest_s})
    return total


def _load(folder: Path, _seed: int) -> Any:
    return bear_load(folder, stream_hz=50, stream_s=600, burst=20_000, shipped=True)


PROOFS: dict[str, Callable[[Path, int], Any]] = {"kills": _kills, "power": _power, "space": _space, "load": _load}


def main() -> int:
    """Run as ``scripts/faults``; gives 0 where nothing went wrong."""
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PROOFS, help="this one; the lines of the others stay in the report")
    parser.add_argument("--seed", type=int, default=2, help="of everything that is random (2)")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    went_wrong = 0
    for name in [given.only] if given.only else PROOFS:
        began_s = time.monotonic()
        try:
            with tempfile.TemporaryDirectory(prefix="edge-agent-") as folder:
                figures = asdict(PROOFS[name](Path(folder), given.seed))
        except NoDisksError as fault:
            print(f"{name}: left out, because nothing can be mounted here: {fault}", file=sys.stderr)
            continue
        except KeyboardInterrupt:
            return 128 + signal.SIGINT
        print(f"{name}: {figures}", flush=True)
        went_wrong += len(figures["faults"])
        add_to_report(name, Result(f"scripts/faults --only {name} --seed {given.seed}", time.monotonic() - began_s, figures))
    return 1 if went_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
