"""What a worker makes of one arrival."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from support.agents import MODEL, FakeClassifier, arrival_of, image_bytes, make_arrival, make_record

from edge_agent.agent import classify as worker_module
from edge_agent.agent.worker import Claims, Job, Outcome, Worker
from edge_agent.config import Config, ImagingConfig, IntakeConfig
from edge_agent.database.database import Database
from edge_agent.database.pending_commit import PendingCommit
from edge_agent.errors import InferenceError
from edge_agent.records import Record


class Bench:
    """A worker with a database and an inbox."""

    def __init__(self, root: Path, on_done: str = "move", max_file_bytes: int = 1024**2) -> None:
        self.inbox = root / "inbox"
        self.inbox.mkdir()
        self.database = Database(root / "edge-agent.db")
        self.claims = Claims()
        self.seen: list[float] = []
        self.classifier = FakeClassifier(self.seen)
        intake = IntakeConfig(on_done=on_done, max_file_bytes=max_file_bytes)
        config = Config(home=root, intake=intake, imaging=ImagingConfig(max_pixels=10_000))
        self.worker = Worker(config, self.inbox, root / "edge-agent.db", self.classifier, self.claims)

    def examine(self, name: str, content: bytes | None = None) -> Outcome:
        if content is not None:
            (self.inbox / name).write_bytes(content)
        return self.worker.examine(Job(arrival_of(self.inbox, name)))

    def record(self, name: str, content: bytes | None = None) -> Record:
        outcome = self.examine(name, content)
        assert outcome.kind == "record"
        assert outcome.record is not None
        self.claims.release(outcome.sha256)
        return outcome.record

    def close(self) -> None:
        self.worker.close()
        self.database.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


def test_an_image_becomes_a_result(bench: Bench) -> None:
    content = image_bytes(1)
    record = bench.record("a b.png", content)
    assert (record.status, record.path, record.source, record.reason) == ("done", "a b.png", "folder", None)
    assert record.sha256 == hashlib.sha256(content).hexdigest()
    assert record.model == MODEL
    assert record.scores.keys() == {"NORMAL", "PNEUMONIA"}
    timing = record.timing_ms
    assert (timing.preprocess, timing.invoke, timing.head, timing.commit, timing.total) == (0.1, 0.2, 0.3, None, None)
    assert timing.decode is not None
    assert timing.queue is not None


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty"),
        (b"just some text\n" * 20, "not_an_image"),
        (image_bytes(1)[:-30], "truncated"),
        (image_bytes(1, (200, 200)), "too_large"),
        (b"\x89PNG" + os.urandom(1024**2 + 1), "too_large"),
    ],
)
def test_what_cannot_be_read_becomes_a_rejection(bench: Bench, content: bytes, code: str) -> None:
    record = bench.record("a.png", content)
    assert record.status == "rejected"
    assert record.reason is not None
    assert record.reason.code == code
    assert (record.model, record.scores, record.decision, record.label) == (None, {}, None, None)
    assert bench.seen == []


def test_what_was_not_read_has_no_checksum(bench: Bench) -> None:
    (bench.inbox / "a.png").symlink_to("/etc/hostname")
    outcome = bench.examine("a.png")
    assert outcome.record is not None
    assert (outcome.record.sha256, outcome.has_claim) == ("", False)


def test_a_codec_that_breaks_on_a_file_rejects_that_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("in a codec")

    monkeypatch.setattr(worker_module, "decode_image", broken)
    record = bench.record("patient name.png", image_bytes(1))
    assert record.reason is not None
    assert record.reason.code == "unreadable"
    assert "Export it again" in record.reason.message
    [line] = caplog.messages
    assert "decoder_bug" in line
    assert "ZeroDivisionError" in line
    assert "patient" not in line
    assert "at=test_worker.py:" in line
    assert "Traceback" not in caplog.text
    assert "in a codec" not in caplog.text, "the text of an error may quote the file"


def test_a_fault_of_the_interpreter_is_ours(bench: Bench) -> None:
    def fail() -> None:
        raise InferenceError("invoke failed")

    bench.classifier.before = fail
    with pytest.raises(InferenceError):
        bench.examine("a.png", image_bytes(1))


def test_the_same_bytes_are_not_classified_twice(bench: Bench) -> None:
    first = bench.record("first.png", image_bytes(1))
    bench.database.insert(PendingCommit([(first, arrival_of(bench.inbox, "first.png"))]))
    again = bench.record("again.png", image_bytes(1))
    assert len(bench.seen) == 1
    assert (again.duplicate_of, again.status, again.path) == (1, "done", "again.png")
    assert (again.scores, again.label, again.decision, again.model) == (first.scores, first.label, first.decision, first.model)
    assert again.reason is not None
    assert again.reason.code == "duplicate"
    assert "record 1 (first.png)" in again.reason.message


def test_a_duplicate_says_why_the_first_needs_eyes(bench: Bench) -> None:
    content = image_bytes(1)
    first = make_record(path="first.png", sha256=hashlib.sha256(content).hexdigest())
    bench.database.insert(PendingCommit([(first, make_arrival())]))
    again = bench.record("again.png", content)
    assert again.decision == "review"
    assert again.reason is not None
    assert again.reason.message.endswith("It said: unlike the others; a person must read it")


def test_another_model_has_its_own_opinion(bench: Bench) -> None:
    content = image_bytes(1)
    other = make_record(sha256=hashlib.sha256(content).hexdigest(), model=msgspec.structs.replace(MODEL, digest="0" * 64))
    bench.database.insert(PendingCommit([(other, make_arrival())]))
    assert bench.record("a.png", content).duplicate_of is None


def test_a_rejected_file_is_tried_anew(bench: Bench) -> None:
    content = image_bytes(1)
    rejected = make_record(sha256=hashlib.sha256(content).hexdigest(), status="rejected", model=None)
    bench.database.insert(PendingCommit([(rejected, make_arrival())]))
    assert bench.record("a.png", content).status == "done"


def test_two_copies_at_once_are_classified_once(bench: Bench) -> None:
    first = bench.examine("a.png", image_bytes(1))
    second = bench.examine("b.png", image_bytes(1))
    assert (first.kind, second.kind, second.sha256) == ("record", "twin", first.sha256)
    assert bench.claims.holds(first.sha256)
    assert first.record is not None
    bench.database.insert(PendingCommit([(first.record, first.arrival)]))
    bench.claims.release(first.sha256)
    assert bench.record("b.png").duplicate_of == 1
    assert len(bench.seen) == 1


def test_changed_and_vanished_files(bench: Bench) -> None:
    (bench.inbox / "a.png").write_bytes(image_bytes(1))
    arrival = arrival_of(bench.inbox, "a.png")
    (bench.inbox / "a.png").write_bytes(image_bytes(2, (30, 30)))
    assert bench.worker.examine(Job(arrival)).kind == "changed"
    (bench.inbox / "a.png").unlink()
    assert bench.worker.examine(Job(arrival)).kind == "gone"


def test_a_touched_file_that_stays_is_no_new_image(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "keep")
    record = bench.record("a.png", image_bytes(1))
    bench.database.insert(PendingCommit([(record, arrival_of(bench.inbox, "a.png"))]))
    os.utime(bench.inbox / "a.png")
    outcome = bench.examine("a.png")
    assert outcome.kind == "unchanged"
    assert outcome.record is not None
    assert outcome.record.id == 1
    assert bench.record("b.png", image_bytes(1)).duplicate_of == 1
    assert bench.record("a.png", image_bytes(2)).duplicate_of is None
    bench.close()


def test_how_long_an_image_is_in_hand_may_be_asked_while_it_ends(bench: Bench) -> None:
    assert bench.worker.busy_s(10.0) == 0.0
    bench.worker.busy_since_s = 7.5
    assert bench.worker.busy_s(10.0) == 2.5

    class Ending(Worker):
        """One that is done as soon as somebody has looked."""

        looks = iter((7.5, None))
        busy_since_s = property(lambda self: next(self.looks), lambda self, _value: None)  # type: ignore[assignment]

    assert Ending.busy_s(Ending.__new__(Ending), 10.0) == 2.5
