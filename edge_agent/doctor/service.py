"""The agent as it runs, or not: its state, its database, what its last crash said, and what systemd says."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.agent.home_lock import lock_holder
from edge_agent.database.database import DATABASE_NAME, Reader
from edge_agent.doctor.finding import Finding, ok, problem, warning
from edge_agent.errors import StorageError
from edge_agent.surfaces.crash_log import KEPT_NAME
from edge_agent.surfaces.state import read_state

UNIT = "edge-agent.service"
_PROPERTIES = ("LoadState", "ActiveState", "UnitFileState", "NRestarts", "Result", "ExecMainStatus")
_MANY_RESTARTS = 3
_LARGE_BYTES = 200 * 10**6
"""A larger database is not checked: a card reads 40 MB a second."""
_ANSWER_S = 3.0


def running_agent(state: Path) -> int | None:
    """Give the process that runs an agent on a home: 0 where its number cannot be read, None where none runs or this user may not look."""
    try:
        return lock_holder(state)
    except StorageError:
        return None


def agent_finding(state: Path) -> Finding:
    """Say whether an agent runs on this home, and what it says about itself."""
    pid = running_agent(state)
    if pid is None:
        return ok("agent", "none runs on this home now")
    said = read_state(state)
    saw = f"runs, process {pid or 'unknown'}"
    if said is None or said.pid != pid:
        return ok("agent", saw)
    if said.doing == "waiting":
        return problem("agent", f"{saw}, waits since {said.since:%Y-%m-%d %H:%M} UTC ({said.code})", said.message)
    return ok("agent", f"{saw}, {said.doing} since {said.since:%Y-%m-%d %H:%M} UTC")


def agent_umask(pid: int | None, root: Path = Path("/")) -> int | None:
    """Read the umask of a process; None where it does not run or the kernel does not report it."""
    with suppress(OSError):
        found = re.search(r"^Umask:\s*([0-7]+)$", (root / "proc" / str(pid) / "status").read_text("ascii"), re.MULTILINE)
        return int(found[1], 8) if found else None
    return None


def crash_finding(state: Path) -> Finding | None:
    """Say what the last crash left; None where there was none."""
    path = state / KEPT_NAME
    try:
        text, at = path.read_text("utf-8", "replace").strip(), datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except OSError:
        return None
    first_line = text.partition("\n")[0][:100]
    return warning("last crash", f"{at:%Y-%m-%d %H:%M} UTC: {first_line}", f"send the file {path} to whoever looks after the program")


def database_findings(home: Path) -> tuple[list[Finding], datetime | None]:
    """Open the database read-only and check its structure.

    Returns
    -------
    list of Finding
    datetime or None
        When the newest record was finished, in UTC.
    """
    path = home / "state" / DATABASE_NAME
    if not path.is_file():
        return [ok("database", "none yet: no agent has run on this home")], None
    size_bytes = path.stat().st_size
    try:
        with Reader(path) as reader:
            damage = reader.quick_check() if size_bytes < _LARGE_BYTES else ""
            totals, last = reader.totals(), reader.last()
    except StorageError as fault:
        return [problem("database", "cannot be read", str(fault))], None
    newest = last.finished_at if last is not None else None
    saw = f"{sum(totals.by_status.values())} records, {size_bytes / 1e6:.1f} MB"
    if damage:
        advice = "restart the agent: it sets the database aside and builds a new one from results/ and the folders. Check the disk"
        return [problem("database", f"{saw}, damaged: {damage}", advice)], newest
    if totals.undisposed:
        advice = "the agent moves them as soon as it may write to their folders: see the inbox above"
        return [warning("database", f"{saw}; {totals.undisposed} recorded images are still in the inbox", advice)], newest
    return [ok("database", f"{saw}, {'sound' if size_bytes < _LARGE_BYTES else 'too large to be checked here'}")], newest


def unit_finding(runtime: Path = Path("/run/systemd/system")) -> Finding:
    """Ask systemd for the service; ``runtime`` is there where systemd runs the system."""
    program = shutil.which("systemctl")
    if program is None or not runtime.is_dir():
        return ok("service", "this system is not run by systemd")
    command = [program, "show", UNIT, *(f"--property={name}" for name in _PROPERTIES)]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_ANSWER_S, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return warning("service", "systemd does not answer", "look at it with  systemctl status edge-agent")
    said = dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)
    return unit_verdict(said)


def unit_verdict(said: dict[str, str]) -> Finding:
    """Judge what ``systemctl show`` says about the service."""
    if said.get("LoadState") in (None, "not-found"):
        return ok("service", "not installed as a service")
    active, enabled = said.get("ActiveState", "unknown"), said.get("UnitFileState", "unknown")
    restarts = int(text) if (text := said.get("NRestarts", "0")).isdigit() else 0
    saw = f"{active}, {enabled}, restarted {restarts} times since it was started"
    if said.get("LoadState") != "loaded":
        return problem("service", f"{saw}: {said['LoadState']}", "install it again:  sudo scripts/install")
    if active not in ("active", "reloading"):
        why = f"; last exit code {said.get('ExecMainStatus', '?')} ({said.get('Result', '?')})"
        return problem("service", saw + why, "sudo systemctl start edge-agent, and see  journalctl -u edge-agent -n 50")
    if enabled not in ("enabled", "static"):
        return warning("service", saw, "it is not started with the box:  sudo systemctl enable edge-agent")
    if restarts >= _MANY_RESTARTS:
        return warning("service", saw, "see why:  journalctl -u edge-agent -n 200")
    return ok("service", saw)
