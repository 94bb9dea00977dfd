"""A file that kills the process is set aside at the third start; files that were merely in hand with it are not."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from support.agent_process import start_agent
from support.agents import AgentHome, drop, image_bytes

POISON = image_bytes(666, (31, 17))


def run_to_its_death(home: AgentHome, number: int) -> tuple[int | None, str]:
    with start_agent(home.home, once=True, poison=[31, number]) as process:
        _, said = process.communicate(timeout=120)
        return process.returncode, said


def check_innocents(home: AgentHome, innocents: dict[str, bytes]) -> None:
    assert {name: (home.home / "done" / name).read_bytes() for name in home.files("done")} == innocents
    assert {row["path"]: row["status"] for row in home.rows()} == dict.fromkeys(innocents, "done") | {"poison.png": "rejected"}
    assert home.rows("SELECT * FROM attempt") == []


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_file_that_crashes_a_codec_twice_is_set_aside_at_the_third_start(tmp_path: Path, number: signal.Signals) -> None:
    """
    1. Among forty images is one whose decoding kills the process by a signal.
    2. The agent is started again and again, as systemd does.
    Result: it dies twice; the third start sets that file aside with a reason and finishes all others.
    """
    home = AgentHome(tmp_path)
    innocents = {f"{seed}.png": image_bytes(seed) for seed in range(40)}
    for name, content in [*innocents.items(), ("poison.png", POISON)]:
        drop(home.inbox, name, content)
    *deaths, end = (run_to_its_death(home, number)[0] for _ in range(3))
    # Python writes down where all threads stand while they go on, and may itself stumble over that.
    assert {*deaths} <= {-number, -signal.SIGSEGV}
    assert end == 0
    check_innocents(home, innocents)
    [row] = home.rows("SELECT * FROM record WHERE status = 'rejected'")
    assert row["reason_code"] == "quarantined"
    assert (home.home / "rejected" / "poison.png").read_bytes() == POISON
    assert "break down" in (home.home / "rejected" / "poison.png.reason.txt").read_text()
    assert {event["code"] for event in home.rows("SELECT code FROM event")} == {"crashed", "quarantined"}
    assert "edge_agent" in (home.home / "state" / "crash-last.txt").read_text()

    drop(home.inbox, "again.png", POISON)
    assert run_to_its_death(home, number)[0] == 0, "the same bytes under another name are not tried again"
    assert home.rows("SELECT reason_code FROM record WHERE path = 'again.png'") == [{"reason_code": "quarantined"}]


def test_deaths_without_a_trace_are_counted_further(tmp_path: Path) -> None:
    """
    1. A file takes so much memory that the kernel kills the process: nothing tells why it ended.
    Result: it is set aside too, but only after five deaths, since a power cut looks the same.
    """
    home = AgentHome(tmp_path)
    drop(home.inbox, "a.png", image_bytes(1))
    drop(home.inbox, "poison.png", POISON)
    assert [run_to_its_death(home, signal.SIGKILL)[0] for _ in range(6)] == [-signal.SIGKILL] * 5 + [0]
    check_innocents(home, {"a.png": image_bytes(1)})


def test_a_file_that_was_replaced_is_another_file(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    drop(home.inbox, "poison.png", POISON)
    assert [run_to_its_death(home, signal.SIGSEGV)[0] for _ in range(2)] == [-signal.SIGSEGV] * 2
    drop(home.inbox, "poison.png", image_bytes(5))
    os.utime(home.inbox / "poison.png", ns=(1, 1))
    assert run_to_its_death(home, signal.SIGSEGV)[0] == 0
    assert [row["status"] for row in home.rows()] == ["done"]


def test_a_clean_stop_blames_nobody(tmp_path: Path) -> None:
    """
    1. An image takes an hour; the agent is stopped meanwhile, in good order, six times.
    Result: the image is as new as before.
    """
    home = AgentHome(tmp_path)
    drop(home.inbox, "slow.png", image_bytes(1))
    for _ in range(6):
        with start_agent(home.home, classify_s=3600) as process:
            assert process.stderr is not None
            while "started" not in process.stderr.readline():
                pass
            process.terminate()
            process.communicate(timeout=120)
            assert process.returncode == 0
    assert home.rows("SELECT * FROM attempt") == []
    home.run_once()
    assert [row["status"] for row in home.rows()] == ["done"]
