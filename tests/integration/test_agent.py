"""The agent on real folders, real files and a real database; only the model is a fake."""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from support.agents import LIMIT_S, AgentHome, FakeClassifier, drop, image_bytes, wait_until
from support.notify import listening

from edge_agent.agent.messages import Message, MessageQueue
from edge_agent.agent.timings import Timings
from edge_agent.errors import InferenceError
from edge_agent.outbox import disposal as disposal_module
from edge_agent.surfaces import systemd


@pytest.fixture
def home(tmp_path: Path) -> AgentHome:
    return AgentHome(tmp_path)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def disposed(home: AgentHome) -> bool:
    return home.inbox.exists() and not any(home.inbox.iterdir())


class TestOnePass:
    def test_everything_in_the_inbox_gets_one_record_and_leaves(self, home: AgentHome) -> None:
        names = ["a.png", "x.png/in.png", "deep/er/b.png", "line\nbreak \N{LUNGS}.png", "no extension", "n" * 251 + ".png"]
        for seed, name in enumerate(names):
            drop(home.inbox, name, image_bytes(seed))
        drop(home.inbox, "text.jpg", b"no image\n" * 9)
        drop(home.inbox, "zero.png", b"")
        agent = home.run_once()

        rows = home.rows()
        assert sorted(row["path"] for row in rows) == sorted([*names, "text.jpg", "zero.png"])
        assert all(row["disposed"] == 1 for row in rows)
        assert all(row["total_ms"] >= row["commit_ms"] > 0 for row in rows)
        assert home.files("done") == sorted(names)
        assert home.files("rejected") == ["text.jpg", "text.jpg.reason.txt", "zero.png", "zero.png.reason.txt"]
        assert [path for path in home.inbox.rglob("*") if not path.is_dir()] == []
        assert agent.counts == {"done": 6, "rejected": 2, "positive": agent.counts["positive"], "negative": agent.counts["negative"]}

    def test_results_say_what_the_database_says(self, home: AgentHome) -> None:
        for seed in range(5):
            drop(home.inbox, f"{seed}.png", image_bytes(seed))
        home.run_once()
        lines = {line["id"]: line for line in home.lines()}
        assert list(lines) == [1, 2, 3, 4, 5]
        for row in home.rows():
            line = lines[row["id"]]
            assert (line["path"], line["sha256"], line["decision"]) == (row["path"], row["sha256"], row["decision"])
            assert line["timing_ms"]["total"] == row["total_ms"]
            assert json.loads((home.home / "results" / f"{row['path']}.json").read_text()) == line
        [table] = (home.home / "results").glob("predictions-*.csv")
        with table.open(newline="") as file:
            assert [int(row["id"]) for row in csv.DictReader(file)] == [1, 2, 3, 4, 5]

    def test_a_name_that_is_not_utf_8(self, home: AgentHome) -> None:
        drop(home.inbox, b"\xff\xfe.png", image_bytes(1))
        home.run_once()
        assert [row["path"] for row in home.rows()] == ["\\xff\\xfe.png"]
        assert [os.fsencode(path.name) for path in (home.home / "done").iterdir()] == [b"\xff\xfe.png"]
        assert home.files("results")[0] == "\\xff\\xfe.png.json"

    def test_an_empty_inbox_ends_at_once(self, home: AgentHome) -> None:
        assert home.run_once().counts == {}

    def test_the_same_name_again_overwrites_nothing(self, home: AgentHome) -> None:
        contents = [image_bytes(seed) for seed in range(3)]
        for content in contents:
            drop(home.inbox, "scan.png", content)
            home.run_once()
        assert {name: (home.home / "done" / name).read_bytes() for name in home.files("done")} == {
            "scan.png": contents[0],
            "scan-2.png": contents[1],
            "scan-3.png": contents[2],
        }
        assert {"scan.png.json", "scan-2.png.json", "scan-3.png.json"} <= set(home.files("results"))

    def test_nothing_is_started_again_that_was_finished(self, home: AgentHome, caplog: pytest.LogCaptureFixture) -> None:
        drop(home.inbox, "a.png", image_bytes(1))
        home.run_once()
        caplog.set_level(logging.INFO, "edge_agent")
        home.run_once()
        assert "recovered" not in caplog.text
        assert len(home.lines()) == len(home.rows()) == 1


class TestDuplicates:
    def test_the_same_bytes_at_the_same_time_are_classified_once(self, home: AgentHome) -> None:
        for number in range(12):
            drop(home.inbox, f"{number}.png", image_bytes(1))
        drop(home.inbox, "other.png", image_bytes(2))
        home.run_once()
        assert len(home.classified) == 2
        rows = [row for row in home.rows() if row["path"] != "other.png"]
        assert rows[0]["duplicate_of"] is None
        assert {row["duplicate_of"] for row in rows[1:]} == {rows[0]["id"]}
        assert {row["scores"] for row in rows} == {rows[0]["scores"]}
        assert len(home.files("done")) == 13

    def test_the_same_bytes_later_refer_to_the_first(self, home: AgentHome) -> None:
        drop(home.inbox, "a.png", image_bytes(1))
        home.run_once()
        drop(home.inbox, "a.png", image_bytes(1))
        home.run_once()
        first, second = home.rows()
        assert (second["duplicate_of"], second["reason_code"]) == (first["id"], "duplicate")
        assert "record 1 (a.png)" in second["reason_message"]
        assert len(home.classified) == 1

    def test_copies_of_an_unreadable_file_are_each_rejected_for_what_they_are(self, home: AgentHome) -> None:
        for number in range(4):
            drop(home.inbox, f"{number}.png", b"")
        home.run_once()
        assert [(row["status"], row["reason_code"], row["duplicate_of"]) for row in home.rows()] == [("rejected", "empty", None)] * 4


class TestWhatBecomesOfTheImage:
    def test_delete(self, tmp_path: Path) -> None:
        home = AgentHome(tmp_path, on_done="delete")
        drop(home.inbox, "a.png", image_bytes(1))
        drop(home.inbox, "bad.png", b"")
        home.run_once()
        assert (home.files("inbox"), home.files("done")) == ([], [])
        assert home.files("rejected") == ["bad.png", "bad.png.reason.txt"]

    def test_keep_records_once_and_again_only_for_new_content(self, tmp_path: Path) -> None:
        home = AgentHome(tmp_path, on_done="keep")
        drop(home.inbox, "a.png", image_bytes(1))
        drop(home.inbox, "bad.png", b"")
        home.run_once()
        home.run_once()
        assert len(home.rows()) == 2
        os.utime(home.inbox / "a.png")
        home.run_once()
        (home.inbox / "a.png").chmod(0o600)
        home.run_once()
        assert len(home.rows()) == 2, "a touch or chmod makes no new image"
        assert len(home.classified) == 1
        drop(home.inbox, "a.png", image_bytes(2))
        home.run_once()
        assert [row["path"] for row in home.rows()].count("a.png") == 2
        assert home.files("inbox") == ["a.png", "bad.png"]
        assert home.files("rejected") == ["bad.png.reason.txt"]

    def test_keep_while_running(self, tmp_path: Path) -> None:
        home = AgentHome(tmp_path, on_done="keep")
        with home.running():
            drop(home.inbox, "a.png", image_bytes(1))
            home.wait_for(1)
            os.utime(home.inbox / "a.png")
            drop(home.inbox, "b.png", image_bytes(2))
            home.wait_for(2)
            drop(home.inbox, "a.png", image_bytes(3))
            home.wait_for(3)
        assert sorted(row["path"] for row in home.rows()) == ["a.png", "a.png", "b.png"]

    def test_an_inbox_on_another_file_system(self, tmp_path: Path, other_file_system: Path) -> None:
        home = AgentHome(tmp_path, inbox=other_file_system)
        drop(home.inbox, "sub/a.png", image_bytes(1))
        drop(home.inbox, "bad.png", b"")
        home.run_once()
        assert (home.home / "done" / "sub" / "a.png").read_bytes() == image_bytes(1)
        assert home.files("rejected") == ["bad.png", "bad.png.reason.txt"]
        assert [path for path in home.inbox.rglob("*") if path.is_file()] == []

    def test_a_folder_that_lets_nothing_go_does_not_make_a_second_record(self, home: AgentHome, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        1. The images of a sub-folder can be read, but not moved: it belongs to somebody else.
        2. The agent runs again and again; then the permissions are put right.
        Result: one record, and in the end the image leaves.
        """
        drop(home.inbox, "theirs/a.png", image_bytes(1))
        with monkeypatch.context() as patched:
            rename = os.rename

            def refuse(source: object, target: object, **options: int) -> None:
                if "src_dir_fd" in options:
                    raise PermissionError(13, "Permission denied")
                rename(source, target, **options)

            patched.setattr(disposal_module.os, "rename", refuse)
            home.run_once()
            home.run_once()
        assert [row["disposed"] for row in home.rows()] == [0]
        (home.inbox / "theirs" / "a.png").chmod(0o644)  # which changes its ctime, and makes no new image of it
        home.run_once()
        assert [row["disposed"] for row in home.rows()] == [1]
        assert home.files("done") == ["theirs/a.png"]


class TestRunning:
    def test_images_are_taken_as_they_come(self, home: AgentHome) -> None:
        with home.running():
            drop(home.inbox, "a.png", image_bytes(1))
            home.wait_for(1)
            drop(home.inbox, "new folder/b.png", image_bytes(2))
            (home.inbox / "c.png").write_bytes(image_bytes(3))
            home.wait_for(3)
            wait_until(lambda: home.files("inbox") == [])
        assert sorted(row["path"] for row in home.rows()) == ["a.png", "c.png", "new folder/b.png"]

    def test_a_slow_writer_is_waited_for(self, tmp_path: Path) -> None:
        """
        1. A program writes an image piece by piece, each pause shorter than the settle time, all together longer.
        2. Where this machine holds the program up for longer than that, the agent may take what is there; then it is tried again.
        Result: one record, of the whole image.
        """
        content = image_bytes(1, (100, 100))
        for number in range(20):
            home = AgentHome(tmp_path / str(number), settle_time_s=0.4)
            with home.running():
                times_s = [time.monotonic()]
                with (home.inbox / "slow.png").open("wb", buffering=0) as file:
                    for start in range(0, len(content), len(content) // 12):
                        file.write(content[start : start + len(content) // 12])
                        times_s.append(time.monotonic())
                        time.sleep(0.06)
                    rows = home.rows()
                times_s.append(time.monotonic())
                # From before one write until after the next, or longer, the file may have stood still.
                if any(later - earlier > 0.3 for earlier, later in zip(times_s, times_s[2:], strict=False)):
                    continue
                assert rows == []
                [row] = home.wait_for(1)
                assert (row["status"], row["sha256"]) == ("done", sha256(content))
                return
        pytest.fail("this machine holds a writer up for a third of a second, each of twenty times")

    def test_a_name_used_again_and_again_gives_a_record_each(self, home: AgentHome) -> None:
        """
        1. A device exports each image under one and the same name, as soon as the last one has left the inbox.
        Result: each image that stood still for the settle time has its record; nothing is recorded that never was there.
        """
        contents = [image_bytes(seed) for seed in range(6)]
        with home.running():
            for number, content in enumerate(contents, start=1):
                drop(home.inbox, "current.png", content)
                home.wait_for(number)
                wait_until(lambda: disposed(home))
        assert [row["sha256"] for row in home.rows()] == [sha256(content) for content in contents]
        wanted = sorted(sha256(content) for content in contents)
        assert sorted(sha256((home.home / "done" / name).read_bytes()) for name in home.files("done")) == wanted

    def test_an_image_exchanged_while_it_is_classified_is_not_lost(self, home: AgentHome) -> None:
        """
        1. While an image is being classified, another one takes its name.
        Result: each has its own record, and each its own file in done/.
        """
        exchanged = threading.Event()

        def exchange() -> None:
            if not exchanged.is_set():
                exchanged.set()
                drop(home.inbox, "a.png", image_bytes(2))

        with home.running(load=lambda _config, _count: [FakeClassifier(home.classified, before=exchange)]):
            drop(home.inbox, "a.png", image_bytes(1))
            home.wait_for(2)
            wait_until(lambda: len(home.files("done")) == 1 and disposed(home))
        assert [row["sha256"] for row in home.rows()] == [sha256(image_bytes(1)), sha256(image_bytes(2))]
        assert (home.home / "done" / "a.png").read_bytes() == image_bytes(2)

    def test_a_camera_frame_says_where_it_is_from(self, home: AgentHome) -> None:
        drop(home.inbox, "camera-20260701T120000.000Z-000.png", image_bytes(1))
        home.run_once()
        assert [row["source"] for row in home.rows()] == ["camera"]

    def test_lost_events_are_made_up_for_by_a_scan(self, home: AgentHome, monkeypatch: pytest.MonkeyPatch) -> None:
        with home.running() as agent:
            wait_until(lambda: hasattr(agent.session, "_intake") and agent.session._intake.is_quiet)
            monkeypatch.setattr(agent.session._intake, "touch", lambda _path: None)
            drop(home.inbox, "a.png", image_bytes(1))
            agent.session._intake._pending.add(None)  # as after an overflow of the kernel's queue
            home.wait_for(1)

    def test_events_that_nobody_missed_are_made_up_for_in_time(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        home = AgentHome(tmp_path, rescan_interval_s=0.2)
        with home.running() as agent:
            wait_until(lambda: hasattr(agent.session, "_intake") and agent.session._intake.is_quiet)
            monkeypatch.setattr(agent.session._intake, "touch", lambda _path: None)
            drop(home.inbox, "a.png", image_bytes(1))
            home.wait_for(1)

    def test_an_idle_agent_sleeps(self, home: AgentHome, monkeypatch: pytest.MonkeyPatch) -> None:
        turned_at_s = [time.monotonic()]
        take = MessageQueue.take

        def note_turn(queue: MessageQueue, timeout_s: float) -> Iterator[Message]:
            turned_at_s.append(time.monotonic())
            return take(queue, timeout_s)

        monkeypatch.setattr(MessageQueue, "take", note_turn)
        with home.running():
            drop(home.inbox, "a.png", image_bytes(1))
            home.wait_for(1)
            wait_until(lambda: [row["disposed"] for row in home.rows()] == [1])  # by the tidying of an idle agent
            wait_until(lambda: time.monotonic() - turned_at_s[-1] > 2.0)

    def test_more_images_than_fit_in_hand(self, home: AgentHome) -> None:
        with home.running():
            for seed in range(150):
                drop(home.inbox, f"{seed}.png", image_bytes(seed, (8, 8)))
            home.wait_for(150)
            wait_until(lambda: len(home.files("done")) == 150)
        assert sorted(row["path"] for row in home.rows()) == sorted(f"{seed}.png" for seed in range(150))
        assert len(home.lines()) == 150

    def test_the_database_is_whole_and_results_are_marked_as_synced(self, home: AgentHome) -> None:
        with home.running() as agent:
            drop(home.inbox, "a.png", image_bytes(1))
            home.wait_for(1)
            wait_until(lambda: [row["disposed"] for row in home.rows()] == [1])  # by the tidying of an idle agent
            assert agent.counts["done"] == 1
        [note] = home.rows("SELECT value FROM note WHERE name = 'results_synced'")
        assert json.loads(note["value"]) == {"record_id": 1, "jsonl_bytes": (home.home / "results" / "predictions.jsonl").stat().st_size}
        with closing(sqlite3.connect(home.database)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


class TestRecovery:
    def test_a_move_that_a_power_cut_undid_is_made_again(self, home: AgentHome) -> None:
        """
        1. An image is recorded and moved; the power goes before the disk has the move, though it has the record.
        2. After the restart the image is in the inbox again, the same in size, dates and inode.
        Result: it is moved again. There is no second record.
        """
        drop(home.inbox, "a.png", image_bytes(1))
        home.run_once()
        (home.home / "done" / "a.png").rename(home.inbox / "a.png")
        ctime_ns = (home.inbox / "a.png").stat().st_ctime_ns
        with closing(sqlite3.connect(home.database)) as connection, connection:
            connection.execute("UPDATE record SET ctime_ns = ?", (ctime_ns,))  # our rename changed it; an undone one would not
        home.run_once()
        assert len(home.rows()) == 1
        assert (home.files("inbox"), home.files("done")) == ([], ["a.png"])

    def test_an_image_that_somebody_brought_back_is_a_new_arrival(self, home: AgentHome) -> None:
        drop(home.inbox, "a.png", image_bytes(1))
        home.run_once()
        (home.home / "done" / "a.png").rename(home.inbox / "a.png")
        home.run_once()
        assert [row["duplicate_of"] for row in home.rows()] == [None, 1]

    def test_a_fault_of_our_own_leaves_the_image_for_the_next_start(self, home: AgentHome) -> None:
        def fail() -> None:
            raise InferenceError("invoke failed")

        drop(home.inbox, "a.png", image_bytes(1))
        with pytest.raises(InferenceError):
            home.agent(load=lambda _config, _count: [FakeClassifier([], before=fail)]).run()
        assert home.files("inbox") == ["a.png"]
        home.run_once()
        assert [row["status"] for row in home.rows()] == ["done"]


class TestService:
    """What the agent tells systemd."""

    @pytest.fixture
    def told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        with listening(tmp_path / "notify") as messages:
            yield messages

    def test_a_systemd_that_does_not_read_holds_up_no_image(self, home: AgentHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(systemd, "SEND_TIMEOUT_S", 0.05)
        monkeypatch.setattr(systemd, "READY_TIMEOUT_S", 0.05)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            deaf.bind(str(tmp_path / "notify"))
            sender.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    sender.sendto(b"STATUS=full", str(tmp_path / "notify"))
            with home.running():
                drop(home.inbox, "a.png", image_bytes(1))
                home.wait_for(1)

    def test_ready_alive_and_stopping(self, home: AgentHome, told: list[str]) -> None:
        with home.running():
            drop(home.inbox, "a.png", image_bytes(1))
            home.wait_for(1)
            wait_until(lambda: "STATUS=1 done, 0 rejected, 0 waiting; model fake 1" in told)
            wait_until(lambda: told.count("WATCHDOG=1") >= 3)
        wait_until(lambda: "STOPPING=1" in told)
        assert next(message for message in told if not message.startswith(("EXTEND", "STATUS=starting"))) == "READY=1"

    def test_a_stuck_worker_is_not_called_alive(self, home: AgentHome, told: list[str], caplog: pytest.LogCaptureFixture) -> None:
        home.timings = Timings(stuck_s=0.3)
        go_on = threading.Event()
        with home.running(load=lambda _config, _count: [FakeClassifier([], before=lambda: go_on.wait(LIMIT_S) and None)]):
            drop(home.inbox, "a.png", image_bytes(1))
            wait_until(lambda: "workers_stuck" in caplog.text)
            # One that was sent just before may still be on its way; who is alive sends one each tenth of a second.
            for _ in range(30):
                pings = told.count("WATCHDOG=1")
                time.sleep(0.5)
                if told.count("WATCHDOG=1") == pings:
                    break
            assert told.count("WATCHDOG=1") == pings
            go_on.set()
            wait_until(lambda: told.count("WATCHDOG=1") > pings)
