"""An agent in a process of its own, which can be made to die, wait or fail at a chosen point.

    python tests/support/agent_process.py SETTINGS

SETTINGS is one JSON object:

``home``                                where it works
``inbox``, ``on_done``, ``settle_time_s``, ``min_free_bytes``    where not the default of tests
``config``                              a TOML file of the caller's own instead; ``extra`` is TOML text to be added to ours
``once``                                end when the inbox is empty
``kill_at``, ``nth``                    a name of ``KILL_POINTS``, and the how-many-th time (from 1) that this point is reached
``faults``                              calls that fail: see ``support.faulty_calls``
``stubs``, ``sql_instead``              functions that do nothing, and statements that are others: how a control breaks the agent on purpose
``classify_s``, ``heartbeat_s``         how long the fake model takes; how often the agent looks after things
``drain_s``                             how long a stop waits for the images in hand
``poison``                              columns of an image, and the signal that decoding it kills the process with
``shipped``                             classify with the model that ships
``most_waiting``                        the intake's limit of files
``queue_note``                          a file that in the end gets the highest number of images that memory held at once
``command``                             other arguments than ``run ...`` for ``edge-agent``: with kill points and faults, too

The points are put around the agent's own functions from here, so that the agent has no code for being tested.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import PIL.PngImagePlugin  # noqa: F401 - loaded once, before the forks
import watchdog.observers  # noqa: F401

import edge_agent.agent.agent
import edge_agent.agent.classify
import edge_agent.commands.export
import edge_agent.commands.run
import edge_agent.commands.status
import edge_agent.imaging.decode
import edge_agent.intake.folder
import edge_agent.intake.watch
from edge_agent import cli
from edge_agent.agent import ledger
from edge_agent.agent.agent import Agent, load_classifiers
from edge_agent.agent.session import Session
from edge_agent.agent.timings import Timings
from edge_agent.agent.worker import Worker
from edge_agent.database import database, schema
from edge_agent.intake.folder import FolderIntake
from edge_agent.outbox import disposal, results
from edge_agent.outbox.results import ResultFiles
from edge_agent.upkeep import retention
from support.agents import LIMIT_S, SETTLE_S, FakeClassifier
from support.faulty_calls import inject, replace_sql, stub
from support.forking import ForkedProcess, ForkServer, serve

# Name -> where the function is, whether to die before, after or half-way through it ("inside": at its nth statement of SQL).
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
    "with a sidecar half written": (Path, "replace", "before"),
    "after results": (ResultFiles, "append", "after"),
    "before results are noted as synced": (ledger.Ledger, "synced", "before"),
    "before a migration": (schema, "migrate", "before"),
    "inside a migration": (schema, "migrate", "inside"),
    "after a migration": (schema, "migrate", "after"),
    "before an old image is deleted": (retention, "remove_image", "before"),
    "after an old image is deleted": (retention, "remove_image", "after"),
    "after an old sidecar is deleted": (retention, "remove_sidecar", "after"),
    "before the progress of deletion is noted": (retention.Retention, "_note", "before"),
    "before old rows are deleted": (retention, "delete_records", "before"),
    "after old rows are deleted": (retention, "delete_records", "after"),
    "half-way through the lines": (results, "jsonl_line", "before"),
    "before the daily tables": (ResultFiles, "_rewrite_days", "before"),
    "after the daily tables": (ResultFiles, "_rewrite_days", "after"),
}


def main(settings: dict[str, Any]) -> int:
    """Run an agent as the settings say; gives its exit code."""
    if kill_at := settings.get("kill_at"):
        put_kill_point(*KILL_POINTS[kill_at], settings.get("nth", 1))

    classify_s = settings.get("classify_s", 0)

    def take_time() -> None:
        if classify_s:
            time.sleep(classify_s)

    def load(_config: Any, count: int) -> list[FakeClassifier]:
        return [FakeClassifier([], before=take_time) for _ in range(count)]

    class TestedAgent(Agent):
        def __init__(self, config: Any, **options: Any) -> None:
            timings = Timings(
                heartbeat_s=settings.get("heartbeat_s", 1.0), first_wait_s=0.1, drain_s=settings.get("drain_s", Timings().drain_s)
            )
            super().__init__(config, **options, load=load_classifiers if settings.get("shipped") else load, timings=timings)

    setattr(edge_agent.agent.agent, "Agent", TestedAgent)  # noqa: B010 - mypy lets nobody assign to a class
    arguments = settings.get("command") or _run_command(settings)
    inject(settings.get("faults", []))
    replace_sql(settings.get("sql_instead", {}))
    for dotted in settings.get("stubs", []):
        stub(dotted)
    if poison := settings.get("poison"):
        put_poison(*poison)
    if most_waiting := settings.get("most_waiting"):
        edge_agent.intake.folder.LIMITS = edge_agent.intake.folder.Limits(waiting_files=most_waiting, pending_paths=2 * most_waiting)
    if queue_note := settings.get("queue_note"):
        note_queue(Path(queue_note))
    return cli.main(arguments)


def _run_command(settings: dict[str, Any]) -> list[str]:
    config = settings.get("config")
    if config is None:
        # In memory, so that it neither needs the disk that is to be full nor is left behind by a kill.
        memory = os.memfd_create("edge-agent.toml")
        os.write(memory, config_text(settings).encode())
        config = f"/proc/self/fd/{memory}"
    arguments = ["run", "--config", config, "--home", settings["home"]]
    arguments += ["--inbox", settings["inbox"]] if "inbox" in settings else []
    return [*arguments, *(["--once"] if settings.get("once") else [])]


def config_text(settings: dict[str, Any]) -> str:
    """The configuration, in TOML, of an agent under test."""
    return (
        f"[intake]\nsettle_time_s = {settings.get('settle_time_s', SETTLE_S)}\n"
        f"on_done = {json.dumps(settings.get('on_done', 'move'))}\n[model]\nthreads = 2\n"
        f"[storage]\nmin_free_bytes = {settings.get('min_free_bytes', 0)}\n{settings.get('extra', '')}"
    )


def note_queue(note: Path) -> None:
    """Have the highest number of images that a session held in memory at once written down when it ends."""
    scan_some, work = FolderIntake.scan_some, Session.work
    highest = 0

    def count(intake: Any) -> int:
        return len(intake._table) + (intake._listing.kept if intake._listing else 0) + len(intake._in_flight)

    def scan_some_and_count(intake: Any) -> None:
        nonlocal highest
        scan_some(intake)
        highest = max(highest, count(intake))

    def work_and_note(session: Any) -> Any:
        ending = work(session)
        note.write_text(str(highest), "ascii")
        return ending

    setattr(FolderIntake, "scan_some", scan_some_and_count)  # noqa: B010 - mypy lets nobody assign to a method
    setattr(Session, "work", work_and_note)  # noqa: B010


def put_poison(columns: int, number: int) -> None:
    """Let the decoding of an image of so many columns kill the process by a signal, as a fault in a codec would."""
    real = edge_agent.imaging.decode.decode_image

    def decode(*arguments: Any, **options: Any) -> Any:
        frame = real(*arguments, **options)
        if frame.columns == columns:
            os.kill(os.getpid(), number)
            time.sleep(60)  # the signal may reach another thread first
        return frame

    setattr(edge_agent.agent.classify, "decode_image", decode)  # noqa: B010 - to mypy the module does not export it


def put_kill_point(owner: Any, name: str, when: str, nth: int) -> None:
    """Let the process kill itself as ``kill -9`` would, the ``nth`` time that a function is called."""
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def die_at_statement(_sql: str) -> None:
        nonlocal calls
        calls += 1
        if calls == nth:
            os.kill(os.getpid(), signal.SIGKILL)

    def deadly(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        # A transaction or an append without a record does not count.
        counts = name != "insert" or bool(arguments[1].entries)
        calls += counts
        is_time = calls == nth and counts
        if when == "inside":
            connection: sqlite3.Connection = arguments[0]
            connection.set_trace_callback(die_at_statement)
        elif is_time and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if is_time and when == "half":
            real(arguments[0], arguments[1][: len(arguments[1]) // 2], *arguments[2:], **options)
            os.kill(os.getpid(), signal.SIGKILL)
        outcome = real(*arguments, **options)
        if is_time and when == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    setattr(owner, name, deadly)


_server = ForkServer(Path(__file__))


def run_agent(home: Path, **settings: Any) -> tuple[int, str]:
    """Run such a process to its end; gives its exit code and what it said on standard error."""
    with start_agent(home, **settings) as process:
        _, said = process.communicate(timeout=LIMIT_S)
        assert process.returncode is not None
        return process.returncode, said


def start_agent(home: Path, **settings: Any) -> ForkedProcess:
    """Start such a process, in a few milliseconds; its standard error can be read."""
    texts = {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}
    return _server.start({"home": str(home), **texts})


def exec_agent(home: Path, environment: dict[str, str], **settings: Any) -> subprocess.Popen[str]:
    """Start such a process anew, with more environment: what must be there when a program is loaded."""
    command = [sys.executable, __file__, json.dumps({"home": str(home), **settings})]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(int(sys.argv[2]), main)
    else:
        sys.exit(main(json.loads(sys.argv[1])))
