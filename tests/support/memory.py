"""How much memory a process and its descendants take."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def resident_mib(root: int) -> float:
    """The resident memory (RSS), in MiB, of a process and all its descendants.

    Of one process that is alone on its box this is the proportional set size (PSS), too. Here others share its libraries, come and go, and
    change its PSS, but not this.
    """
    pids, total_kib = [root], 0
    for pid in pids:
        with suppress(OSError):  # it ended meanwhile
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                pids.extend(map(int, children.read_text().split()))
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Rss:"):
                    total_kib += int(line.split()[1])
    return total_kib / 1024
