"""How much memory a process and its descendants take."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def resident_mib(root: int) -> float:
    """The resident memory (RSS), in MiB, of a process and all its descendants.

    Where others share its libraries, come and go, this does not change.
    """
    return _total_mib(root, "Rss:")


def proportional_mib(root: int) -> float:
    """The proportional set size (PSS), in MiB, of a process and all its descendants: a page that several processes share counts in parts.

    Others that share its libraries, come and go, change it: measure where there are none.
    """
    return _total_mib(root, "Pss:")


def _total_mib(root: int, kind: str) -> float:
    pids, total_kib = [root], 0
    for pid in pids:
        with suppress(OSError):  # it ended meanwhile
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                pids.extend(map(int, children.read_text().split()))
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(kind):
                    total_kib += int(line.split()[1])
    return total_kib / 1024
