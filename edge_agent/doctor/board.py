"""The board: what it is, and whether its temperature, power supply and memory are good enough."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from edge_agent.bench.board import Board, read_meminfo, read_text
from edge_agent.bench.condition import BoardState, throttled_words
from edge_agent.doctor.finding import Finding, ok, problem, warning

ARCHITECTURES = ("aarch64", "x86_64")
"""For which LiteRT wheels are made."""

_USUAL_PAGE_BYTES = 4096
_SOFT_LIMIT_C = 80.0
_HARD_LIMIT_C = 85.0
"""A Raspberry Pi slows down from the first limit on, and as far as it can from the second."""
_AGENT_BYTES = 100 * 10**6
"""With less free memory the agent does not run."""
_ROOMY_BYTES = 250 * 10**6
"""With less free memory it runs, but other programs may end it."""
_BYTES_PER_PIXEL = 9
"""At most, while a large colour PNG is opened (measured: 0.9 GB for 100 megapixels)."""
_MEMORY_SHARE = 0.75
"""Of all memory, which the service may take: MemoryMax= of the unit."""


def board_findings(board: Board, state: BoardState, max_pixels: int, root: Path = Path("/")) -> Iterator[Finding]:
    """Look at the board.

    Parameters
    ----------
    board, state
        From :func:`edge_agent.bench.board.read_board` and :func:`edge_agent.bench.condition.read_state`.
    max_pixels : int
        Of the largest image that the configuration accepts.
    root : Path
        Where ``proc``, ``sys`` and ``etc`` stand.
    """
    cores = "1 core" if board.cores == 1 else f"{board.cores} cores"
    yield ok("board", ", ".join(filter(None, (board.model, board.cpu, cores))))
    yield _system(board)
    yield _page_size(board)
    yield from _memory(board, max_pixels, root)
    yield _temperature(state)
    yield _power(board, state)


def _system(board: Board) -> Finding:
    saw = f"{board.os or 'unknown'}, Linux {board.kernel}, {board.architecture}"
    if sys.maxsize < 2**32 or board.architecture not in ARCHITECTURES:
        return problem(
            "operating system",
            f"{saw}, {'32' if sys.maxsize < 2**32 else '64'}-bit Python",
            "no model runtime is made for this system: install the 64-bit edition of Raspberry Pi OS or Debian",
        )
    return ok("operating system", saw)


def _page_size(board: Board) -> Finding:
    saw = f"{board.page_size_bytes // 1024} KiB"
    if board.page_size_bytes > _USUAL_PAGE_BYTES:
        # Some programs that bring their own memory allocator were built for 4 KiB pages only (raspberrypi/linux#4375).
        saw += "; if a program crashes at its start, kernel=kernel8.img in /boot/firmware/config.txt gives pages of 4 KiB"
    return ok("memory pages", saw)


def _memory(board: Board, max_pixels: int, root: Path) -> Iterator[Finding]:
    sizes = read_meminfo(root)
    total, available = sizes.get("MemTotal"), sizes.get("MemAvailable")
    if total is None or available is None:
        yield warning("memory", "unknown: the system does not report it", "check that /proc is mounted")
        return
    swaps = (read_text(root / "proc/swaps") or "").splitlines()[1:]
    on_card = any(line.split()[0].startswith(("/dev/mmcblk", "/var/swap")) for line in swaps if line)
    swap = f"{sizes.get('SwapTotal', 0) / 1e9:.1f} GB swap" if swaps else "no swap"
    saw = f"{total / 1e9:.1f} GB, {available / 1e9:.1f} GB free, {swap}{' on the card' if on_card else ''}"
    if available < _ROOMY_BYTES:
        report = problem if available < _AGENT_BYTES else warning
        yield report("memory", saw, "end other programs, such as a desktop or a browser: the agent wants 0.1 GB for itself")
    else:
        yield ok("memory", saw)
    room = int(total * _MEMORY_SHARE)
    if max_pixels * _BYTES_PER_PIXEL > room:
        fits = room // _BYTES_PER_PIXEL // 1_000_000 * 1_000_000
        yield warning(
            "largest image",
            f"{max_pixels / 1e6:.0f} megapixels are accepted; in colour that takes {max_pixels * _BYTES_PER_PIXEL / 1e9:.1f} GB",
            f"set  max_pixels = {fits}  under [imaging]: a larger image may use up the memory and end the agent",
        )
    if (root / "etc/systemd/system/edge-agent.service").exists() and "memory" not in _controllers(root):
        yield warning(
            "memory limit",
            "this kernel does not count a service's memory, so the limit in the unit does nothing",
            "add  cgroup_enable=memory  to the line in /boot/firmware/cmdline.txt and start the box again",
        )


def _controllers(root: Path) -> list[str]:
    """What the kernel counts and limits for each service: cgroup v2, else v1."""
    unified = read_text(root / "sys/fs/cgroup/cgroup.controllers")
    return unified.split() if unified else [path.name for path in (root / "sys/fs/cgroup").glob("*") if path.is_dir()]


def _temperature(state: BoardState) -> Finding:
    if state.temperature_c is None:
        return ok("temperature", "not reported by this board")
    saw = f"{state.temperature_c:.0f} °C"
    if state.temperature_c >= _SOFT_LIMIT_C:
        report = problem if state.temperature_c >= _HARD_LIMIT_C else warning
        return report("temperature", saw, "the board slows itself down: give it a cooler, or take it out of the sun or a closed box")
    return ok("temperature", saw)


def _power(board: Board, state: BoardState) -> Finding:
    supply = board.power_supply or ""
    if not state.throttled:
        good = "never too low since the start" if state.throttled == 0 else "not reported by this board"
        return ok("power supply", "; ".join(filter(None, (supply, good))))
    words = throttled_words(state.throttled)
    saw = "; ".join(filter(None, (supply, ", ".join(words))))
    advice = (
        "use the maker's own supply and a short, thick cable: a weak one slows the board down and ruins what is being written to the card"
    )
    if not any("voltage" in word for word in words):
        advice = "the board was too hot: give it a cooler"
    now = any("has occurred" not in word for word in words)
    return problem("power supply", saw, advice) if now and "under-voltage" in words else warning("power supply", saw, advice)
