"""The program: Python, the packages that it needs, the configuration, and the model as it really runs here."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from edge_agent.bench.board import Board
from edge_agent.doctor.finding import Finding, ok, problem, warning
from edge_agent.doctor.probe import ProbeResult
from edge_agent.version import describe_build

DISTRIBUTION = "edge-agent"
EXTRAS = ("camera", "dicom", "tflite")
"""Those of the agent; the others are for building models and for tests."""
_OLDEST_GLIBC = (2, 27)
"""What LiteRT's wheels need (manylinux_2_27)."""
_USUAL_PAGE_BYTES = 4096

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)""")
_REINSTALL = "install the program again:  sudo scripts/install"


def build_finding() -> Finding:
    """Name this build."""
    return ok("edge-agent", describe_build())


def python_findings(board: Board) -> Iterator[Finding]:
    """Look at Python and the C library below it."""
    yield ok("Python", f"{board.python}, {sys.executable}")
    if board.glibc is None:
        yield problem("C library", "not glibc", "no model runtime is made for this system: use Raspberry Pi OS, Debian or Ubuntu")
    elif _numbers(board.glibc) < _OLDEST_GLIBC:
        advice = "too old for the model runtime: use Raspberry Pi OS or Debian from version 12 on"
        yield problem("C library", f"glibc {board.glibc}", advice)
    else:
        yield ok("C library", f"glibc {board.glibc}")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def package_findings() -> Iterator[Finding]:
    """Look for the packages that the program asks for, as its core metadata has them (Requires-Dist)."""
    try:
        requires = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        yield warning("packages", "the program runs from its source and was never installed", "install it:  sudo scripts/install")
        return
    found: dict[str, str] = {}
    missing: dict[str, list[str]] = {}
    wanted: set[str] = set()
    for line in requires:
        name = match.group() if (match := _NAME.match(line)) else line
        extra = match.group(1) if (match := _EXTRA.search(line)) else ""
        if extra and extra not in EXTRAS:
            continue
        wanted.add(extra)
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            missing.setdefault(extra, []).append(name)
    saw = ", ".join(f"{name} {number}" for name, number in sorted(found.items()))
    if "" in missing:
        yield problem("packages", f"missing: {', '.join(missing[''])}; there: {saw}", _REINSTALL)
    else:
        yield ok("packages", saw)
    extras = [name for name in EXTRAS if name in wanted]
    without = [name for name in extras if name in missing]
    having = [name for name in extras if name not in missing]
    yield ok("extras", f"{', '.join(having) or 'none'}; not installed: {', '.join(without) or 'none'}")


def config_finding(path: Path | None, fault: str) -> Finding:
    """Say which configuration counts, and what is wrong with it; ``fault`` is empty where nothing is."""
    if fault:
        return problem(
            "configuration",
            fault,
            "correct the file, then  sudo systemctl reload edge-agent; everything else was checked with the defaults",
        )
    return ok("configuration", str(path) if path else "the defaults; no file is named")


def model_findings(board: Board, result: ProbeResult) -> Iterator[Finding]:
    """Say how the model ran.

    Parameters
    ----------
    board : Board
        Where it ran.
    result : ProbeResult
        Of the probe "model".
    """
    if result.failure:
        yield problem("model", f"{result.step}: {result.failure}", _model_advice(board, result))
        return
    facts = result.facts
    yield ok("model", f"{facts['model']}; {facts['origin']}; {facts['folder']}")
    yield ok("model runtime", f"{facts['runtime']}: {facts['invoke']}")


def _model_advice(board: Board, result: ProbeResult) -> str:
    if result.signal == "SIGILL":
        return "this processor lacks an instruction that the package uses: use a newer board, or the extra tflite"
    if result.signal and board.page_size_bytes > _USUAL_PAGE_BYTES:
        return "write  kernel=kernel8.img  into /boot/firmware/config.txt and start the box again: its memory pages are larger than usual"
    if result.signal == "SIGKILL":
        return "the system may be out of memory: end other programs, or lower MemoryMax=, and look again"
    if result.step.startswith("loading") or result.signal:
        return _REINSTALL
    return "the message says what to do; the model that came with the program is used after  edge-agent model rollback"
