"""One agent, several sessions: another configuration, another model, an inbox that goes away, a disk that gets full."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.agents import LIMIT_S, AgentHome, FakeClassifier, activate_model, doing, drop, image_bytes, wait_until

from edge_agent.agent import agent as agent_module
from edge_agent.agent import folders
from edge_agent.agent.active_config import ActiveConfig
from edge_agent.agent.agent import Agent
from edge_agent.agent.ledger import Ledger
from edge_agent.agent.session import Session
from edge_agent.agent.timings import Timings
from edge_agent.config import CameraConfig, Config, StorageConfig
from edge_agent.deployment.model_store import InstalledModel, ModelStore
from edge_agent.errors import CameraGoneError, ConfigError, DiskFullError, InferenceError, ModelError, StorageAwayError
from edge_agent.records import ModelIdentity
from edge_agent.surfaces.state import AgentState, read_state

QUICK = Timings(first_wait_s=0.05, heartbeat_s=0.05, space_look_s=0.05)


@pytest.fixture
def home(tmp_path: Path) -> AgentHome:
    return AgentHome(tmp_path)


@contextmanager
def running(home: AgentHome, agent: Agent) -> Iterator[Agent]:
    """Run an agent in a thread until the block ends; its fault is raised here."""
    faults: list[BaseException] = []

    def run() -> None:
        try:
            agent.run()
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: faults or (agent.session is not None and doing(home.home)[0] in ("working", "waiting")))
        yield agent
    finally:
        agent.stop()
        thread.join(LIMIT_S)
        assert not thread.is_alive()
    if faults:
        raise faults[0]


def state_of(home: AgentHome) -> AgentState:
    said = read_state(home.home / "state")
    assert said is not None
    return said


def events(home: AgentHome) -> list[str]:
    return [row["code"] for row in home.rows("SELECT code FROM event ORDER BY id")]


class TestReload:
    def test_another_configuration_takes_over_between_two_images(self, home: AgentHome) -> None:
        """
        1. Images come all the time. The configuration changes from "move" to "delete", and the agent is told so.
        Result: each image is recorded once; those before lie in done/, those after are gone.
        """
        other = msgspec.structs.replace(home.config, intake=msgspec.structs.replace(home.config.intake, on_done="delete"))
        with running(home, Agent(home.config, load=home.load, reread=lambda: other, timings=QUICK)) as agent:
            for seed in range(30):
                drop(home.inbox, f"{seed}.png", image_bytes(seed))
            home.wait_for(3)
            first = agent.session
            agent.reload()
            wait_until(lambda: agent.session is not None and agent.session is not first)
            home.wait_for(30)
            drop(home.inbox, "last.png", image_bytes(99))
            home.wait_for(31)
            wait_until(lambda: home.files("inbox") == [])
        assert sorted(row["path"] for row in home.rows()) == sorted([*(f"{seed}.png" for seed in range(30)), "last.png"])
        assert 3 <= len(home.files("done")) < 31
        assert "last.png" not in home.files("done")

    def test_a_wrong_configuration_is_refused_and_the_old_one_kept(self, home: AgentHome, caplog: pytest.LogCaptureFixture) -> None:
        def reread() -> Config:
            raise ConfigError("edge-agent.toml has 1 error: intake.settle_time_s")

        with running(home, Agent(home.config, load=home.load, reread=reread, timings=QUICK)) as agent:
            agent.reload()
            wait_until(lambda: "reload_refused" in events(home))
            drop(home.inbox, "a.png", image_bytes(1))
            home.wait_for(1)
        assert "reload_refused reason=edge-agent.toml has 1 error" in caplog.text
        [message] = [row["message"] for row in home.rows("SELECT message FROM event WHERE code = 'reload_refused'")]
        assert "goes on with the one before" in message

    def test_a_home_that_moves_is_refused(self, home: AgentHome, tmp_path: Path) -> None:
        other = msgspec.structs.replace(home.config, home=tmp_path / "elsewhere")
        with running(home, Agent(home.config, load=home.load, reread=lambda: other, timings=QUICK)) as agent:
            agent.reload()
            wait_until(lambda: "reload_refused" in events(home))
        assert not (tmp_path / "elsewhere").exists()

    def test_a_configuration_that_cannot_be_started_with_is_left_again(self, home: AgentHome, tmp_path: Path) -> None:
        """
        1. The new configuration reads well, but names an inbox that is not there.
        Result: the agent goes back to the old one and says so.
        """
        other = msgspec.structs.replace(home.config, intake=msgspec.structs.replace(home.config.intake, inbox=tmp_path / "absent"))
        with running(home, Agent(home.config, load=home.load, reread=lambda: other, timings=QUICK)) as agent:
            agent.reload()
            wait_until(lambda: "reload_refused" in events(home))
            drop(home.inbox, "a.png", image_bytes(1))
            home.wait_for(1)

    def test_a_configuration_that_comes_while_the_agent_waits_is_kept(self, home: AgentHome) -> None:
        """
        1. The inbox is away; the agent waits. Somebody changes something else in the configuration and tells the agent.
        2. The inbox comes back.
        Result: the new configuration counts. It was not to blame for the inbox.
        """
        other = msgspec.structs.replace(home.config, intake=msgspec.structs.replace(home.config.intake, on_done="delete"))
        home.run_once()
        away = home.inbox.with_name("away")
        home.inbox.rename(away)
        agent = Agent(home.config, load=home.load, reread=lambda: other, timings=QUICK)
        thread = threading.Thread(target=agent.run)
        thread.start()
        try:
            wait_until(lambda: state_of(home).code == "inbox_away")
            agent.reload()
            time.sleep(0.3)
            drop(away, "a.png", image_bytes(1))
            away.rename(home.inbox)
            home.wait_for(1)
            wait_until(lambda: home.files("inbox") == [])
        finally:
            agent.stop()
            thread.join(LIMIT_S)
        assert home.files("done") == []
        assert "reload_refused" not in events(home)

    def test_one_that_is_told_of_between_two_sessions_counts(self, home: AgentHome, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        1. A reload ends a session; somebody asks for the next one before the next session listens.
        Result: the configuration of the second counts.
        """
        first, second = (
            msgspec.structs.replace(home.config, intake=msgspec.structs.replace(home.config.intake, settle_time_s=seconds, on_done=on_done))
            for seconds, on_done in ((0.04, "move"), (0.03, "delete"))
        )
        configs = [first, second]

        class Ending(Session):
            def work(self) -> str:
                ending = super().work()
                if len(configs) == 1:
                    agent.reload()
                return ending

        monkeypatch.setattr(agent_module, "Session", Ending)
        with running(home, Agent(home.config, load=home.load, reread=lambda: configs.pop(0), timings=QUICK)) as agent:
            agent.reload()
            wait_until(lambda: not configs)
            drop(home.inbox, "a.png", image_bytes(1))
            home.wait_for(1)
            wait_until(lambda: home.files("inbox") == [])
        assert home.files("done") == []

    def test_a_signal_may_come_at_any_moment_of_a_wait(self, home: AgentHome) -> None:
        """Python runs the handler in the thread that waits, between any two lines: a lock that it held would never be free again."""
        signals = iter(range(500))

        def at_each_line(*_: object) -> object:
            if next(signals, None) is not None:
                agent.reload()
            return at_each_line

        def load(config: Config, count: int) -> Sequence[FakeClassifier]:
            if next(signals, None) is None:
                return home.load(config, count)
            sys.settrace(at_each_line)  # type: ignore[arg-type]
            raise StorageAwayError("a disk")

        drop(home.inbox, "a.png", image_bytes(1))
        agent = Agent(home.config, load=load, timings=QUICK)
        thread = threading.Thread(target=agent.run, daemon=True)
        thread.start()
        home.wait_for(1)
        agent.stop()
        thread.join(LIMIT_S)
        assert not thread.is_alive()


NEW = ModelIdentity("fake", "2", "e" * 64)


_CRASH = """
import sys, threading
from pathlib import Path
from edge_agent.surfaces.crash_log import CrashLog
there = threading.Event()
def in_module(name, source):
    exec(compile(source, "/opt/edge_agent/" + name, "exec"), {"there": there})
with CrashLog(Path(sys.argv[1])):
    for name in ("inference/interpreter.py", "imaging/decode.py"):
        if name != sys.argv[2]:
            threading.Thread(target=in_module, args=(name, "import time; there.set(); time.sleep(600)"), daemon=True).start()
    there.wait()
    in_module(sys.argv[2], "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
"""


def crash(home: AgentHome, where: str) -> None:
    """Let a process die of a signal with one thread in a module, and another one in another module."""
    (home.home / "state").mkdir(exist_ok=True)
    died = subprocess.run([sys.executable, "-c", _CRASH, home.home / "state", where], check=False)
    assert died.returncode == -signal.SIGSEGV


class TestModelSwap:
    def load(self, home: AgentHome, fail: ModelIdentity | None = None) -> object:
        """Load what the pointer says; the model ``fail`` fails at each image."""

        def refuse() -> None:
            raise InferenceError("invoke failed")

        def load(config: Config, count: int) -> Sequence[FakeClassifier]:
            identity = NEW if ModelStore(config.home).active() else FakeClassifier.identity
            before = refuse if identity == fail else lambda: None
            return [FakeClassifier(home.classified, identity=identity, before=before) for _ in range(count)]

        return load

    def test_a_model_that_is_activated_takes_over_without_dropping_an_image(self, home: AgentHome) -> None:
        with running(home, Agent(home.config, load=self.load(home), timings=QUICK)):  # type: ignore[arg-type]
            for seed in range(30):
                drop(home.inbox, f"{seed}.png", image_bytes(seed))
            home.wait_for(3)
            activate_model(home.home, NEW)
            seed, deadline_s = 30, time.monotonic() + LIMIT_S
            while seed < 60 or home.rows("SELECT model_version FROM record ORDER BY id DESC LIMIT 1") != [{"model_version": "2"}]:
                assert time.monotonic() < deadline_s, "the new model does not take over"
                drop(home.inbox, f"{seed}.png", image_bytes(seed))
                seed += 1
                time.sleep(0.01)
            home.wait_for(seed)
            wait_until(lambda: home.files("inbox") == [])
            wait_until(lambda: (active := ModelStore(home.home).active()) is not None and active.proven)
        rows = home.rows()
        versions = [row["model_version"] for row in rows]
        assert sorted(row["path"] for row in rows) == sorted(f"{number}.png" for number in range(seed))
        assert versions == sorted(versions)
        assert set(versions) == {"1", "2"}

    def test_a_model_that_fails_its_first_images_is_left_again(self, home: AgentHome) -> None:
        """
        1. A new model is activated; the interpreter fails at its first image.
        Result: the agent goes back to the model before by itself and says so; no image is lost, and none is rejected.
        """
        with running(home, Agent(home.config, load=self.load(home, fail=NEW), timings=QUICK)):  # type: ignore[arg-type]
            drop(home.inbox, "a.png", image_bytes(1))
            home.wait_for(1)
            activate_model(home.home, NEW)
            count, deadline_s = 1, time.monotonic() + LIMIT_S
            while "model_rolled_back" not in events(home):  # the model before takes images until the agent sees the new one
                assert time.monotonic() < deadline_s, "the agent does not go back"
                count += 1
                drop(home.inbox, f"{count}.png", image_bytes(count))
                time.sleep(0.01)
            home.wait_for(count)
        assert {(row["status"], row["model_version"]) for row in home.rows()} == {("done", "1")}
        assert ModelStore(home.home).active() is None
        [event] = home.rows("SELECT message FROM event WHERE code = 'model_rolled_back'")
        assert "fake 2 failed on this box" in event["message"]
        assert home.rows("SELECT * FROM attempt") == []
        home.run_once()
        assert "crashed" not in events(home), "the process went on: nothing broke down"

    def test_going_back_waits_for_a_disk_that_can_note_it(self, home: AgentHome, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        1. A new model fails at its first image while the disk is full, so that the way back cannot be written down.
        Result: the agent waits for space, then goes back.
        """
        full, rollback = [True], ModelStore.rollback

        def note(store: ModelStore, why: str) -> InstalledModel | None:
            if full[0]:
                raise DiskFullError("no space is left to write models/active.json")
            return rollback(store, why)

        monkeypatch.setattr(ModelStore, "rollback", note)
        activate_model(home.home, NEW)
        with running(home, Agent(home.config, load=self.load(home, fail=NEW), timings=QUICK)):  # type: ignore[arg-type]
            drop(home.inbox, "a.png", image_bytes(1))
            wait_until(lambda: state_of(home).code == "disk_full")
            full[0] = False
            home.wait_for(1)
        assert [row["model_version"] for row in home.rows()] == ["1"]

    @pytest.mark.parametrize("dies_in", ["inference/interpreter.py", "imaging/decode.py"])
    def test_a_model_that_crashes_the_process_is_left_at_the_next_start(self, home: AgentHome, dies_in: str) -> None:
        """
        1. A new model is active. The process dies of a signal while one thread is in the interpreter and another in a codec.
        Result: where the interpreter was to blame the next start goes back to the model before; where the codec was, it does not.
        """
        activate_model(home.home, NEW)
        crash(home, dies_in)
        drop(home.inbox, "a.png", image_bytes(1))
        Agent(home.config, load=self.load(home), once=True, timings=QUICK).run()  # type: ignore[arg-type]
        is_left = dies_in == "inference/interpreter.py"
        assert [row["model_version"] for row in home.rows()] == ["1" if is_left else "2"]
        assert events(home) == (["crashed", "model_rolled_back"] if is_left else ["crashed"])

    def test_a_model_that_does_not_load_is_left_again(self, home: AgentHome) -> None:
        def load(config: Config, count: int) -> Sequence[FakeClassifier]:
            if ModelStore(config.home).active():
                raise ModelError("golden vectors differ")
            return home.load(config, count)

        with running(home, Agent(home.config, load=load, timings=QUICK)):
            activate_model(home.home, NEW)
            wait_until(lambda: "model_rolled_back" in events(home))
            drop(home.inbox, "a.png", image_bytes(1))
            home.wait_for(1)

    def test_a_proven_model_that_fails_ends_the_agent(self, home: AgentHome) -> None:
        """A model that has worked is not gone back from: then something else is broken."""
        activate_model(home.home, NEW)
        ModelStore(home.home).prove(NEW.digest)
        with pytest.raises(InferenceError), running(home, Agent(home.config, load=self.load(home, fail=NEW), timings=QUICK)) as agent:  # type: ignore[arg-type]
            drop(home.inbox, "a.png", image_bytes(1))
            wait_until(lambda: agent.session is None)
        assert home.files("inbox") == ["a.png"]


class TestInboxAway:
    def test_an_inbox_that_vanishes_is_waited_for(self, home: AgentHome, caplog: pytest.LogCaptureFixture) -> None:
        """
        1. The folder goes away while the agent runs, and comes back with new images.
        Result: the agent says so, makes no folder in its place, and goes on.
        """
        away = home.inbox.with_name("away")
        with running(home, Agent(home.config, load=home.load, timings=QUICK)):
            drop(home.inbox, "a.png", image_bytes(1))
            home.wait_for(1)
            home.inbox.rename(away)
            wait_until(lambda: state_of(home).doing == "waiting")
            assert state_of(home).code == "inbox_away"
            wait_until(lambda: events(home) == ["inbox_away"])
            time.sleep(0.3)
            assert not home.inbox.exists()
            drop(away, "b.png", image_bytes(2))
            away.rename(home.inbox)
            home.wait_for(2)
            wait_until(lambda: state_of(home).doing == "working")
            wait_until(lambda: events(home) == ["inbox_away", "inbox_back"])
        assert caplog.text.count("waiting code=inbox_away") == 1
        assert sorted(home.files("done")) == ["a.png", "b.png"]

    def test_an_inbox_that_is_away_at_the_start_is_waited_for_if_it_was_there_before(self, home: AgentHome) -> None:
        drop(home.inbox, "before.png", image_bytes(9))
        home.run_once()
        home.inbox.rmdir()
        agent = Agent(home.config, load=home.load, timings=QUICK)
        thread = threading.Thread(target=agent.run)
        thread.start()
        try:
            wait_until(lambda: state_of(home).code == "inbox_away")
            wait_until(lambda: events(home) == ["inbox_away"])
            home.inbox.mkdir()
            drop(home.inbox, "a.png", image_bytes(1))
            home.wait_for(2)
        finally:
            agent.stop()
            thread.join(LIMIT_S)
        assert not thread.is_alive()
        assert [line["path"] for line in home.lines()] == ["before.png", "a.png"]

    def test_images_in_hand_are_kept(self, home: AgentHome) -> None:
        """
        1. The inbox vanishes while images that were read already are being classified.
        Result: they are recorded; when the inbox is back they leave it, and there is no second record.
        """
        patient = replace(QUICK, drain_s=LIMIT_S)  # the machine of the tests may be busy
        begun, go_on = threading.Event(), threading.Event()

        def wait() -> None:
            begun.set()
            go_on.wait(LIMIT_S)

        def load(_config: Config, count: int) -> Sequence[FakeClassifier]:
            return [FakeClassifier(home.classified, before=wait) for _ in range(count)]

        away = home.inbox.with_name("away")
        with running(home, Agent(home.config, load=load, timings=patient)):
            drop(home.inbox, "a.png", image_bytes(1))
            assert begun.wait(LIMIT_S)
            home.inbox.rename(away)
            time.sleep(0.2)
            go_on.set()
            home.wait_for(1)
            wait_until(lambda: state_of(home).code == "inbox_away")
            away.rename(home.inbox)
            wait_until(lambda: home.files("done") == ["a.png"])
        assert [row["disposed"] for row in home.rows()] == [1]
        assert len(home.classified) == 1


class HungCamera:
    """A camera whose calls never return any more, by the time that anybody looks."""

    failure = CameraGoneError("the camera 0 hung 8 times")

    def __init__(self, *_: object) -> None: ...

    def start(self) -> None: ...

    def stop(self, _timeout_s: float) -> None: ...


def test_a_camera_that_hangs_for_good_ends_the_process(home: AgentHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new session would leave more threads behind that hold the device; systemd starts a process that has none."""
    monkeypatch.setattr("edge_agent.intake.camera.CameraSource", HungCamera)
    config = msgspec.structs.replace(home.config, camera=CameraConfig(source="0"))
    agent = Agent(config, load=home.load, timings=QUICK)
    give_up = threading.Timer(LIMIT_S, agent.stop)
    give_up.start()
    with pytest.raises(CameraGoneError) as caught:
        agent.run()
    give_up.cancel()
    assert caught.value.exit_code == 30


def test_each_try_waits_longer_until_one_records_an_image(home: AgentHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    1. The disk fails three times before anything is recorded, then with the second image, then with nothing any more.
    Result: each wait is twice the last one, but after a session that recorded an image the first again. Both images are recorded once.
    """
    begin, waits, fails = Ledger.begin, list[float](), iter((True, True, True, False, True, False))

    def begin_or_fail(ledger: Ledger, *given: Any, **named: Any) -> None:
        if next(fails):
            raise StorageAwayError("the disk fails; the agent goes on by itself")
        begin(ledger, *given, **named)

    def wait(_config: ActiveConfig, timeout_s: float) -> bool:
        waits.append(timeout_s)
        if len(waits) == 4:
            assert len(home.rows()) == 1
        return True

    monkeypatch.setattr(Ledger, "begin", begin_or_fail)
    monkeypatch.setattr(ActiveConfig, "wait_for_request", wait)
    drop(home.inbox, "a.png", image_bytes(1))
    with running(home, Agent(home.config, load=home.load, timings=Timings(first_wait_s=100.0, longest_wait_s=3000.0, heartbeat_s=3600.0))):
        home.wait_for(1)
        drop(home.inbox, "b.png", image_bytes(2))
        home.wait_for(2)
    assert waits == [pytest.approx(wait_s, abs=60) for wait_s in (100, 200, 400, 100)]
    assert [row["path"] for row in home.rows()] == ["a.png", "b.png"]


def test_sessions_that_fail_leave_nothing_in_memory(home: AgentHome, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    1. The disk fails at each image, for long: one session follows the other, each with a model of its own.
    Result: when the next one loads its model, those before are gone, and so are their threads and files.
    """

    def fail(*_: object, **__: object) -> None:
        raise StorageAwayError("the disk fails; the agent goes on by itself")

    monkeypatch.setattr(Ledger, "begin", fail)
    before: list[weakref.ref[FakeClassifier]] = []
    alive: list[int] = []
    held: list[tuple[int, int]] = []

    def load(config: Config, count: int) -> Sequence[FakeClassifier]:
        alive.append(sum(each() is not None for each in before))
        held.append((threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))))
        classifiers = home.load(config, count)
        before.extend(map(weakref.ref, classifiers))
        return classifiers

    drop(home.inbox, "a.png", image_bytes(1))
    with running(home, Agent(home.config, load=load, timings=replace(QUICK, longest_wait_s=0.02))):
        wait_until(lambda: len(alive) > 13, timeout_s=240)
    assert set(alive[1:]) == {0}
    # The last workers may just be ending, but not at each of the last five times.
    assert min(threads for threads, _ in held[-5:]) <= held[1][0] + 2
    assert min(files for _, files in held[-5:]) <= held[1][1] + 6


class TestSpace:
    def test_below_the_watermark_no_image_is_taken(self, home: AgentHome, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        1. The free space falls below [storage] min_free_bytes; images come.
        2. Somebody frees space.
        Result: no image is taken meanwhile, the state says why, and the agent goes on by itself.
        """
        free = [10**9]
        monkeypatch.setattr(folders, "free_space", lambda _home: free[0])
        config = msgspec.structs.replace(home.config, storage=StorageConfig(min_free_bytes=2 * 10**8))
        with running(home, Agent(config, load=home.load, timings=QUICK)):
            drop(home.inbox, "a.png", image_bytes(1))
            home.wait_for(1)
            free[0] = 10**8
            time.sleep(0.1)  # longer than a reading stays valid
            for seed in range(2, 8):
                drop(home.inbox, f"{seed}.png", image_bytes(seed))
            wait_until(lambda: state_of(home).code == "low_space")
            assert "less than 200 MB are free" in state_of(home).message
            since = state_of(home).since
            free[0] = 10**8 - 10**6
            time.sleep(0.3)
            assert len(home.rows()) == 1
            assert state_of(home).since == since
            free[0] = 10**9
            home.wait_for(7)
            wait_until(lambda: state_of(home).doing == "working")

    def test_free_space_is_really_looked_at(self, home: AgentHome) -> None:
        storage = msgspec.structs.replace(home.config.storage, min_free_bytes=shutil.disk_usage(home.home).free + 10**9)
        drop(home.inbox, "a.png", image_bytes(1))
        with running(home, Agent(msgspec.structs.replace(home.config, storage=storage), load=home.load, timings=QUICK)):
            wait_until(lambda: state_of(home).code == "low_space")
        assert home.files("inbox") == ["a.png"]


def test_sighup_does_not_end_a_process_without_a_configuration_file(home: AgentHome, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edge_agent")
    with running(home, Agent(home.config, load=home.load, timings=QUICK)) as agent:
        first = agent.session
        agent.reload()
        drop(home.inbox, "a.png", image_bytes(1))
        home.wait_for(1)
        assert agent.session is first
