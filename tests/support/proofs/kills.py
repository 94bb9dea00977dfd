"""``kill -9`` at random moments, while many drop images at once."""

from __future__ import annotations

import random
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from support.agent_process import run_agent, start_agent
from support.forking import ForkedProcess
from support.real_agent import RealAgent, edge_agent
from support.reckoning import faults_of, read_rows
from support.writers import Writers

SETTLE_S = 0.12
RATE_HZ = 50.0


@dataclass
class KillFigures:
    """What came of it; ``faults`` names everything that was lost, twice, or not in agreement."""

    kills: int = 0
    kills_of_the_shipped_model: int = 0
    drops: int = 0
    excused: int = 0
    records: int = 0
    broken_databases: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)


def kill_at_random(folder: Path, *, seed: int, kills: int, drops: int, real_every: int = 0) -> KillFigures:
    """Drop images in all manners while the agent is killed and started again; then let it finish, and compare.

    Parameters
    ----------
    folder : Path
        Empty; the home folder is made in it.
    seed : int
        Of the moments, the bytes and the names.
    kills, drops : int
        At least so many.
    real_every : int
        Each so-many-th agent runs the model that ships, started as a user does; 0 is none.
    """
    home, chance, figures = folder / "home", random.Random(seed), KillFigures()
    inbox = home / "inbox"
    inbox.mkdir(parents=True)
    began_s = time.monotonic()
    with Writers(inbox, settle_s=SETTLE_S, rate_hz=RATE_HZ, seed=seed) as writers:
        while figures.kills < kills or writers.dropped < drops:
            is_real = real_every > 0 and figures.kills % real_every == real_every - 1
            if is_real:
                real = RealAgent(folder, home, settle_s=SETTLE_S)
                _wait_for_work(home, chance, longest_s=4.0)
                _kill(real)
                figures.kills_of_the_shipped_model += 1
            else:
                with start_agent(home, settle_time_s=SETTLE_S, classify_s=0.002) as process:
                    _wait_for_work(home, chance, longest_s=0.5)
                    _kill(process)
            figures.kills += 1
            if chance.random() < 0.2 and (home / "state" / "edge-agent.db").exists():
                figures.broken_databases += read_rows(home, "PRAGMA integrity_check") != [{"integrity_check": "ok"}]
    _finish(folder, home, figures, shipped=real_every > 0)
    figures.faults += faults_of(home, inbox, writers.book)
    figures.drops, figures.excused = writers.dropped, sum(drop.excused for drop in writers.book)
    figures.records = len(read_rows(home))
    figures.seconds = round(time.monotonic() - began_s, 1)
    return figures


def _wait_for_work(home: Path, chance: random.Random, longest_s: float) -> None:
    """Wait for a random moment, or (half of the times) for the first one after it at which the database is being written."""
    time.sleep(chance.uniform(0, longest_s))
    if chance.random() < 0.5:
        journal = home / "state" / "edge-agent.db-wal"
        seen, until_s = _stamp(journal), time.monotonic() + 0.5
        while _stamp(journal) == seen and time.monotonic() < until_s:
            time.sleep(0.0005)
        time.sleep(chance.uniform(0, 0.004))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _kill(process: ForkedProcess | subprocess.Popen[bytes]) -> None:
    process.kill()
    code = process.wait(timeout=120)
    assert code == -9, f"the agent ended by itself, with {code}"


def _finish(folder: Path, home: Path, figures: KillFigures, *, shipped: bool) -> None:
    """Let an agent do the rest, undisturbed."""
    if shipped:
        config = folder / "agent.toml"
        done = edge_agent("run", "--once", "--config", config, "--home", home, timeout_s=600)
        code, said = done.returncode, done.stderr
    else:
        code, said = run_agent(home, once=True, settle_time_s=SETTLE_S)
    if code:
        figures.faults.append(f"the last agent ended with {code}: {said[-500:]}")
