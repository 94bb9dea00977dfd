"""An agent in a process of its own, which can be made to die or wait at a chosen point.

    python tests/support/agent_process.py SETTINGS

SETTINGS is one JSON object: ``home``; ``inbox``, ``on_done`` and ``settle_time_s`` where not the default; ``once``; ``kill_at``, a name of
``KILL_POINTS``, and ``nth``, the how-many-th time (from 1) that point is reached; ``classify_s``, how long the fake model takes.

The points are put around the agent's own functions from here, so that the agent has no code for being tested.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_agent import cli
from edge_agent.agent import Agent
from edge_agent.intake import disposal, placing
from edge_agent.store import database, ledger, results
from edge_agent.store.results import ResultFiles
from edge_agent.worker import Worker

# Name -> where the function is, whether to die before or after it.
KILL_POINTS: dict[str, tuple[Any, str, str]] = {
    "before a worker reads": (Worker, "examine", "before"),
    "after a worker is done": (Worker, "examine", "after"),
    "inside a transaction": (database, "row_from_record", "before"),
    "before the commit": (ledger.Ledger, "enter", "before"),
    "after the commit": (database.Database, "insert", "after"),
    "before the disposal": (disposal.Disposal, "dispose", "before"),
    "after the disposal": (disposal.Disposal, "dispose", "after"),
    "after the note of a rejection": (disposal.Disposal, "_move", "before"),
    "between copy and removal": (disposal, "_unlink", "before"),
    "between the inbox and deletion": (disposal.Disposal, "_check_moved", "before"),
    "half-way through a line": (results, "_append", "half"),
    "before the sidecars": (ResultFiles, "_write_sidecar", "before"),
    "with a sidecar half written": (placing.Path, "replace", "before"),
    "after results": (ResultFiles, "append", "after"),
    "before results are noted as synced": (ledger.Ledger, "synced", "before"),
}


def main() -> int:
    """Run an agent as the settings say; gives its exit code."""
    from support.agents import SETTLE_S, FakeClassifier

    settings = json.loads(sys.argv[1])
    if kill_at := settings.get("kill_at"):
        put_kill_point(*KILL_POINTS[kill_at], settings.get("nth", 1))

    def load(_config: Any, count: int) -> list[FakeClassifier]:
        return [FakeClassifier([], before=lambda: time.sleep(settings.get("classify_s", 0))) for _ in range(count)]

    class TestedAgent(Agent):
        def __init__(self, config: Any, *, once: bool = False) -> None:
            super().__init__(config, once=once, load=load)

    import edge_agent.agent

    edge_agent.agent.HEARTBEAT_S = 1.0
    edge_agent.agent.Agent = TestedAgent  # type: ignore[misc]
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(
            f"[intake]\nsettle_time_s = {settings.get('settle_time_s', SETTLE_S)}\n"
            f"on_done = {json.dumps(settings.get('on_done', 'move'))}\n[model]\nthreads = 2\n"
        )
        config.flush()
        arguments = ["run", "--config", config.name, "--home", settings["home"]]
        arguments += ["--inbox", settings["inbox"]] if "inbox" in settings else []
        return cli.main([*arguments, *(["--once"] if settings.get("once") else [])])


def put_kill_point(owner: Any, name: str, when: str, nth: int) -> None:
    """Let the process kill itself as ``kill -9`` would, the ``nth`` time that a function is called."""
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def deadly(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        # A transaction or an append without a record does not count.
        calls += 1 if name != "insert" or arguments[1] else 0
        is_time = calls == nth and (name != "insert" or arguments[1])
        if is_time and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if is_time and when == "half":
            real(arguments[0], arguments[1][: len(arguments[1]) // 2], *arguments[2:], **options)
            os.kill(os.getpid(), signal.SIGKILL)
        outcome = real(*arguments, **options)
        if is_time and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    setattr(owner, name, deadly)


def run_agent(home: Path, **settings: Any) -> tuple[int, str]:
    """Run such a process to its end; gives its exit code and what it said on standard error."""
    with start_agent(home, **settings) as process:
        _, said = process.communicate(timeout=60)
        return process.returncode, said


def start_agent(home: Path, **settings: Any) -> subprocess.Popen[str]:
    """Start such a process; its standard error can be read."""
    text = json.dumps({"home": str(home), **{name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}})
    return subprocess.Popen([sys.executable, __file__, text], stderr=subprocess.PIPE, text=True)


if __name__ == "__main__":
    sys.exit(main())
