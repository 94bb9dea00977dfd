"""Calls of the operating system and of SQLite that fail: each ends in the state of the taxonomy, which is left when the cause ends."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.agent_process import run_agent, start_agent
from support.agents import AgentHome, drop, image_bytes, wait_until
from support.disks import LoopDisk, remount

from edge_agent.agent.home_lock import lock_holder
from edge_agent.commands.status import read_status
from edge_agent.surfaces.state import read_state

DONE = "/done/"
NAMED = re.compile("DOE|JOHN|[.]png")
STATES: dict[str, tuple[dict[str, Any], str]] = {
    "a commit that finds no space": ({"call": "sqlite.execute", "where": "COMMIT", "error": "SQLITE_FULL"}, "disk_full"),
    "a commit that the disk fails": ({"call": "sqlite.execute", "where": "COMMIT", "error": "SQLITE_IOERR_FSYNC"}, "storage_error"),
    "a database that another program holds": ({"call": "sqlite.execute", "where": "BEGIN", "error": "SQLITE_BUSY"}, "database_locked"),
    "a database that may not be written any more": (
        {"call": "sqlite.execute", "where": "BEGIN", "error": "SQLITE_READONLY"},
        "storage_error",
    ),
    "a query that the disk fails": ({"call": "sqlite.execute", "where": "SELECT", "error": "SQLITE_IOERR_READ"}, "storage_error"),
    "results that find no space": ({"call": "file.write", "where": "predictions.jsonl", "error": "ENOSPC"}, "disk_full"),
    "results on a disk that the system has made read-only": (
        {"call": "file.write", "where": "predictions.jsonl", "error": "EROFS"},
        "read_only",
    ),
    "an image that finds a read-only disk": ({"call": "pathlib.Path.mkdir", "where": "/done", "error": "EROFS"}, "read_only"),
    "results that the disk fails": ({"call": "file.write", "where": "predictions-", "error": "EIO"}, "storage_error"),
    "a sidecar that finds no space": ({"call": "file.write", "where": ".png.json.tmp", "error": "ENOSPC"}, "disk_full"),
    "a sidecar that cannot be put in its place": ({"call": "pathlib.Path.replace", "where": ".png.json", "error": "EIO"}, "storage_error"),
    "a disk that does not take what was written": (
        {"call": "edge_agent.outbox.results.sync_file_system", "error": "EIO"},
        "storage_error",
    ),
    "an inbox that is there and cannot be looked at": ({"call": "pathlib.Path.stat", "where": "/inbox", "error": "EIO"}, "inbox_away"),
    "a call for whose fault no other words are found": (
        {"call": "edge_agent.intake.folder.mounts_below", "error": "EIO"},
        "storage_error",
    ),
    "an image that cannot be moved: no space": ({"call": "os.rename", "where": DONE, "error": "ENOSPC"}, "disk_full"),
    "a folder of done/ that cannot be made": ({"call": "pathlib.Path.mkdir", "where": "done/DOE", "error": "EIO"}, "storage_error"),
    "an image that cannot be moved: no quota": ({"call": "os.rename", "where": DONE, "error": "EDQUOT"}, "disk_full"),
}


@pytest.mark.parametrize("name", STATES)
def test_the_agent_waits_says_why_and_goes_on(tmp_path: Path, name: str) -> None:
    """
    1. An agent works. From some moment on a call fails, whenever it is made.
    2. Images come. The agent shows what it waits for, and does not end.
    3. The cause ends.
    Result: the agent goes on by itself; one record, one file and one line for each image. Neither log nor message names an image.
    """
    fault, code = STATES[name]
    home, cause = AgentHome(tmp_path), tmp_path / "cause"
    images = {f"DOE/JOHN {seed}.png": image_bytes(seed) for seed in range(8)}
    with start_agent(home.home, faults=[{**fault, "times": 0, "while": str(cause)}]) as process:
        first, *others = images
        drop(home.inbox, first, images[first])
        home.wait_for(1)
        cause.touch()
        for each in others:
            drop(home.inbox, each, images[each])

        def waits() -> bool:
            said = read_state(home.home / "state")
            return said is not None and said.doing == "waiting"

        wait_until(waits)
        said = read_state(home.home / "state")
        assert said is not None
        assert said.code == code, said.message
        assert "goes on" in said.message
        assert process.poll() is None
        cause.unlink()
        wait_until(lambda: sorted(home.files("done")) == sorted(images) and home.files("inbox") == [])
        process.terminate()
        _, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    assert "Traceback" not in log
    assert not NAMED.search(log + said.message + str(home.rows("SELECT * FROM event")))
    check_each_once(home, images)


def check_each_once(home: AgentHome, images: dict[str, bytes]) -> None:
    home.run_once()
    assert sorted(row["path"] for row in home.rows()) == sorted(images)
    assert [row["disposed"] for row in home.rows()] == [1] * len(images)
    assert sorted(line["path"] for line in home.lines()) == sorted(images)
    assert {name: (home.home / "done" / name).read_bytes() for name in home.files("done")} == images
    assert set(home.files("results")) >= {f"{name}.json" for name in images}
    assert not list(home.home.rglob("*.tmp"))
    assert home.rows("SELECT * FROM attempt") == []


@pytest.mark.parametrize("code", ["EIO", "EACCES"])
def test_an_image_that_does_not_leave_the_inbox_is_recorded_once(tmp_path: Path, code: str) -> None:
    """
    1. The inbox does not let an image go: the rename fails, again and again.
    Result: one record; the image stays, and leaves when it can.
    """
    home = AgentHome(tmp_path)
    drop(home.inbox, "a.png", image_bytes(1))
    for _ in range(2):
        returned, said = run_agent(home.home, once=True, faults=[{"call": "os.rename", "where": DONE, "error": code, "times": 0}])
        assert returned == 0, said
    assert [row["disposed"] for row in home.rows()] == [0]
    assert home.files("inbox") == ["a.png"]
    check_each_once(home, {"a.png": image_bytes(1)})


@pytest.mark.parametrize("error", ["EIO", "EUCLEAN", "EINVAL"])
def test_an_image_that_cannot_be_read_is_the_images_fault(tmp_path: Path, error: str) -> None:
    """
    1. The disk fails for one file of the inbox, for good; others can be read.
    Result: that one is rejected with a reason, the others are classified.
    """
    home = AgentHome(tmp_path)
    drop(home.inbox, "bad.png", image_bytes(1))
    drop(home.inbox, "good.png", image_bytes(2))
    code, said = run_agent(home.home, once=True, faults=[{"call": "os.read", "where": "/bad.png", "error": error, "times": 0}])
    assert code == 0, said
    assert {row["path"]: (row["status"], row["reason_code"]) for row in home.rows()} == {
        "bad.png": ("rejected", "read_error"),
        "good.png": ("done", None),
    }
    assert (home.home / "rejected" / "bad.png").read_bytes() == image_bytes(1)


def test_a_file_that_another_program_keeps_locked_holds_up_no_other(tmp_path: Path) -> None:
    """
    1. A program on another machine keeps a file of a share locked; images come. Then it lets go.
    Result: the agent goes on working meanwhile, and takes the file when it can be read.
    """
    home, cause = AgentHome(tmp_path), tmp_path / "cause"
    config = tmp_path / "edge-agent.toml"
    config.write_text('[intake]\nsettle_time_s = 0.05\nwatch = "polling"\npoll_interval_s = 0.1\n')
    cause.touch()
    images = {"locked.png": image_bytes(1), "a.png": image_bytes(2), "b.png": image_bytes(3)}
    locked = {"call": "os.read", "where": "/locked.png", "error": "EBUSY", "times": 0, "while": str(cause)}
    with start_agent(home.home, config=config, faults=[locked]) as process:
        for name, content in images.items():
            drop(home.inbox, name, content)
        wait_until(lambda: home.files("done") == ["a.png", "b.png"])
        said = read_state(home.home / "state")
        assert said is not None
        assert said.doing == "working"
        cause.unlink()
        wait_until(lambda: sorted(home.files("done")) == sorted(images))
        process.terminate()
        _, log = process.communicate(timeout=120)
    assert process.returncode == 0, log
    assert "waiting" not in log
    check_each_once(home, images)


def test_a_home_on_a_disk_that_is_read_only_at_the_start(disks: None, quick_folder: Path) -> None:
    """
    1. An agent has worked on a disk. The disk is mounted read-only, and the agent is started.
    2. It is asked for its status; another agent is started on the same home.
    3. The disk is made writable.
    Result: the agent waits and says so, keeps the other one off, and goes on by itself as if it had been started then; no image is lost.
    """
    disk = LoopDisk.make(quick_folder / "disk.img", quick_folder / "disk", 16)
    home = AgentHome(disk.mount_point)
    state = home.home / "state"
    with disk.mounted(), ExitStack() as at_exit:
        home.inbox.mkdir(parents=True)
        drop(home.inbox, "a.png", image_bytes(1))
        home.run_once()
        drop(home.inbox, "b.png", image_bytes(2))
        (state / "agent.lock").write_text("999999999\n", encoding="ascii")  # as after a power cut
        remount(disk.mount_point, "ro")
        process = at_exit.enter_context(start_agent(home.home))
        wait_until(lambda: lock_holder(state) is not None)
        status = read_status(home.home)
        assert (status.running, status.pid, status.doing, status.read_only) == (True, 0, None, True)
        code, said = run_agent(home.home)
        assert code == 40
        assert "another agent (process unknown)" in said
        assert process.poll() is None
        remount(disk.mount_point, "rw")
        wait_until(lambda: home.files("done") == ["a.png", "b.png"])
        status = read_status(home.home)
        assert (status.running, status.pid, status.doing, status.read_only) == (True, process.pid, "working", False)
        assert (state / "crash.txt").exists()
        process.terminate()
        _, log = process.communicate(timeout=120)
        assert process.returncode == 0, log
        assert "waiting code=read_only" in log
        assert "mount it writable again" in log
        check_each_once(home, {"a.png": image_bytes(1), "b.png": image_bytes(2)})


def test_with_once_no_fault_is_waited_out(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    drop(home.inbox, "a.png", image_bytes(1))
    code, said = run_agent(
        home.home, once=True, faults=[{"call": "sqlite.execute", "where": "COMMIT", "error": "SQLITE_IOERR_FSYNC", "times": 0}]
    )
    assert code == 40
    assert "error: " in said
    assert home.files("inbox") == ["a.png"]
    check_each_once(home, {"a.png": image_bytes(1)})
