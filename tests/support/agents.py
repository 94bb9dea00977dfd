"""A tiny classifier, small images, and the folders of an agent under test."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from edge_agent.agent.agent import Agent
from edge_agent.agent.home_lock import lock_holder
from edge_agent.agent.timings import Timings
from edge_agent.config import Config, IntakeConfig, ModelConfig, StorageConfig
from edge_agent.deployment.model_store import InstalledModel, ModelStore
from edge_agent.imaging.preprocess import InputContract
from edge_agent.records import Arrival, Frame, ModelIdentity, Reason, Record, Timing, Verdict
from edge_agent.surfaces.state import read_state

SETTLE_S = 0.05
LIMIT_S = 120.0
"""The longest wait for anything: a machine with much else to do takes many times what an idle one does."""
MODEL = ModelIdentity("fake", "1", "d" * 64)


class FakeClassifier:
    """Calls bright images positive. ``seen`` counts what was classified, by all classifiers of one agent together."""

    identity = MODEL
    input = InputContract(rows=16, columns=16)

    def __init__(self, seen: list[float], *, identity: ModelIdentity = MODEL, before: Callable[[], None] = lambda: None) -> None:
        self.seen = seen
        self.identity = identity
        self.before = before

    def classify(self, frame: Frame) -> Verdict:
        self.before()
        score = round(float(frame.pixels.mean()) / 255, 4)
        self.seen.append(score)
        positive = score >= 0.5
        return Verdict(
            scores={"NORMAL": 1 - score, "PNEUMONIA": score},
            label="PNEUMONIA" if positive else "NORMAL",
            findings=[],
            decision="positive" if positive else "negative",
            reason=None,
            novelty=0.25,
            quality=[],
            preprocess_ms=0.1,
            invoke_ms=0.2,
            head_ms=0.3,
        )


def image_bytes(seed: int, size: tuple[int, int] = (24, 20)) -> bytes:
    """A small PNG, different for each seed."""
    import io

    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def drop(inbox: Path, name: str | bytes, content: bytes) -> Path:
    """Put a file into an inbox as a careful program does: under another name first."""
    target = inbox / os.fsdecode(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{abs(hash(name))}.part")
    part.write_bytes(content)
    part.rename(target)
    return target


class AgentHome:
    """The folders of an agent under test, and what can be seen in them from outside."""

    def __init__(self, root: Path, **intake: Any) -> None:
        self.home = root / "home"
        self.inbox = intake.pop("inbox", None) or self.home / "inbox"
        self.inbox.mkdir(parents=True, exist_ok=True)
        given = None if self.inbox == self.home / "inbox" else self.inbox
        self.config = Config(
            home=self.home,
            intake=IntakeConfig(inbox=given, settle_time_s=intake.pop("settle_time_s", SETTLE_S), **intake),
            model=ModelConfig(threads=2),
            storage=StorageConfig(min_free_bytes=0),
        )
        self.timings = Timings()
        self.classified: list[float] = []

    @property
    def database(self) -> Path:
        return self.home / "state" / "edge-agent.db"

    def load(self, _config: Config, count: int) -> Sequence[FakeClassifier]:
        return [FakeClassifier(self.classified) for _ in range(count)]

    def agent(self, *, once: bool = True, load: Any = None) -> Agent:
        return Agent(self.config, once=once, load=load or self.load, timings=self.timings)

    def run_once(self) -> Agent:
        agent = self.agent()
        agent.run()
        return agent

    def rows(self, sql: str = "SELECT * FROM record ORDER BY id") -> list[dict[str, Any]]:
        if not self.database.exists():
            return []
        with closing(sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            try:
                return [dict(row) for row in connection.execute(sql)]
            except sqlite3.OperationalError:
                return []  # the agent is just making the table

    def lines(self) -> list[dict[str, Any]]:
        path = self.home / "results" / "predictions.jsonl"
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []

    def files(self, folder: str) -> list[str]:
        root = self.home / folder
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() or path.is_file())

    @contextmanager
    def running(self, **options: Any) -> Iterator[Agent]:
        """Run an agent in a thread until the block ends; its fault is raised here."""
        agent = self.agent(once=False, **options)
        faults: list[BaseException] = []

        def run() -> None:
            try:
                agent.run()
            except BaseException as fault:
                faults.append(fault)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            wait_until(lambda: faults or lock_holder(self.home / "state"))
            yield agent
        finally:
            agent.stop()
            thread.join(LIMIT_S)
            assert not thread.is_alive()
        if faults:
            raise faults[0]

    def wait_for(self, count: int, timeout_s: float = LIMIT_S) -> list[dict[str, Any]]:
        """Wait until so many records are durable and their files disposed of."""
        wait_until(lambda: len(self.rows()) >= count, timeout_s)
        return self.rows()


def activate_model(home: Path, identity: ModelIdentity) -> None:
    """Make a model the active one, as ``edge-agent model install`` does; its files do not matter here."""
    store = ModelStore(home)
    model = InstalledModel(
        name=identity.name,
        version=identity.version,
        serial=2,
        digest=identity.digest,
        directory=store.folder / "fake-2",
        installed_at=datetime(2026, 7, 1, tzinfo=UTC),
    )
    with store.changing() as pointer:
        store.write(msgspec.structs.replace(pointer, models=(model, *pointer.models)).with_active(identity.digest))


def doing(home: Path) -> tuple[str, str]:
    """What the agent of a home folder says that it does, and the code of what it waits for; empty where it has said nothing yet."""
    said = read_state(home / "state")
    return (said.doing, said.code) if said else ("", "")


def wait_until(condition: Callable[[], Any], timeout_s: float = LIMIT_S) -> None:
    """Wait until a condition holds."""
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline_s, "waited too long"
        time.sleep(0.005)


NOON = datetime(2026, 7, 1, 12, 0, 0, 123456, tzinfo=UTC)


def make_record(**changes: Any) -> Record:
    """A record with every field set."""
    values: dict[str, Any] = {
        "source": "folder",
        "path": "a/scan.png",
        "sha256": "ab" * 32,
        "received_at": NOON,
        "finished_at": NOON,
        "status": "done",
        "reason": Reason("novel", "unlike the others; a person must read it"),
        "model": MODEL,
        "scores": {"NORMAL": 0.25, "PNEUMONIA": 0.75},
        "label": "PNEUMONIA",
        "findings": ["opacity"],
        "decision": "review",
        "novelty": 1.5,
        "quality": ["low_contrast"],
        "timing_ms": Timing(queue=1.0, decode=2.0, preprocess=3.0, invoke=4.0, head=5.0),
    }
    return Record(**(values | changes))


def make_arrival(path: str = "a/scan.png", **changes: Any) -> Arrival:
    """An arrival that no file belongs to."""
    values: dict[str, Any] = {
        "source": "folder",
        "path": path,
        "size_bytes": 10,
        "mtime_ns": 20,
        "ctime_ns": 30,
        "inode": 40,
        "received_at": NOON,
        "settled_ns": 0,
    }
    return Arrival(**(values | changes))


def arrival_of(inbox: Path, path: str) -> Arrival:
    """The arrival of a file that is there."""
    found = os.lstat(inbox / path)
    return make_arrival(path, size_bytes=found.st_size, mtime_ns=found.st_mtime_ns, ctime_ns=found.st_ctime_ns, inode=found.st_ino)
