"""A build in a process of its own: its threads, its faults, its end with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import runs

from model_build.experiments.build_process import Failure, Order, build_apart
from model_build.progress import BarProgress, EpochProgress, NoProgress, make_progress


def order(folder: Path, threads: int | None = None) -> Order:
    return Order(folder, runs.CONFIG, folder, threads)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system cannot keep a process on some cores")
def test_threads_limit_the_cores_and_tensorflow(tmp_path: Path) -> None:
    assert build_apart(order(tmp_path / "one", 1), runs.note_cores) is None
    assert (tmp_path / "one" / "cores").read_text() == "1 1"
    assert build_apart(order(tmp_path / "all"), runs.note_cores) is None
    assert (tmp_path / "all" / "cores").read_text().split()[0] == str(len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("work", "message", "exit_code"),
    [
        (runs.fill_disk, "no space left", 41),
        (runs.divide_by_zero, "an unexpected error (ZeroDivisionError: by zero)", 1),
        (runs.need_a_library, "keras is not installed: get what it belongs to with  pip install -e '.[build]'", 10),
        (runs.vanish, "was killed by SIGKILL; the system does this when memory runs out", 1),
    ],
)
def test_faults_come_back_as_words(tmp_path: Path, work: Callable[[Order], None], message: str, exit_code: int) -> None:
    failure = build_apart(order(tmp_path), work)
    assert isinstance(failure, Failure)
    assert message in failure.message
    assert failure.exit_code == exit_code


def test_a_build_ends_when_its_parent_is_killed(tmp_path: Path, repository: Path) -> None:
    """
    1. A command starts a build, which does not end.
    2. The command is killed by SIGKILL.

    Result: the build's process ends too, so that the next command is alone in the folder.
    """
    program = (
        "import pathlib, sys; from support import runs; from model_build.experiments.build_process import Order, build_apart;"
        "build_apart(Order(pathlib.Path(sys.argv[1]), '', pathlib.Path('.')), runs.last_for_ever)"
    )
    environment = os.environ | {"PYTHONPATH": f"{repository}:{repository / 'tests'}"}
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], env=environment)
    noted = tmp_path / "pid"
    deadline = time.monotonic() + 120
    while not (noted.exists() and noted.read_text()):
        assert time.monotonic() < deadline
        assert parent.poll() is None
        time.sleep(0.02)
    child = int(noted.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while _runs(child):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_verbose_decides_what_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    epochs = tmp_path / "epochs.jsonl"
    epochs.write_text('{"phase":"measure","epoch":1,"loss":0.7}\n')
    with make_progress(0, epochs) as shown:
        assert isinstance(shown, NoProgress)
        shown.stage("training", 2)
        shown.advance(1, "")
    assert capsys.readouterr().err == ""
    with make_progress(1, epochs) as shown:
        assert isinstance(shown, BarProgress)
    capsys.readouterr()
    with make_progress(2, epochs) as shown:
        assert isinstance(shown, EpochProgress)
        shown.stage("training", 2)
        with epochs.open("a") as stream:
            stream.write('{"phase":"measure","epoch":2,"loss":0.5,"elapsed_s":12.0}\n{"phase":"half')
        shown.advance(1, "")
        shown.advance(2, "")
    # Not the epoch from before the kill, not the line that is being written.
    assert capsys.readouterr().err == "training\nmeasure, epoch 2: loss 0.5, elapsed_s 12\n"
