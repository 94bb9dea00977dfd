"""A child process, with real children that end in every way."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.child_process import ChildExit, PythonChild

WAIT_S = 60.0
"""Longer than a Python takes to start on a busy machine."""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that does what its argument says."""
    (tmp_path / "a_child.py").write_text(
        "import os, signal, subprocess, sys, time\nexec(sys.argv[1])\n",
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "a_child"


def ended(module: str, program: str) -> ChildExit:
    with PythonChild(module, program) as child:
        return child.wait(WAIT_S)


@pytest.mark.parametrize(
    ("program", "exit_code", "words"),
    [
        ("sys.exit(0)", 0, "ended with exit code 0: it wrote nothing"),
        ("sys.exit(3)", 3, "ended with exit code 3: it wrote nothing"),
        ("sys.exit('error: no room\\n\\n')", 1, "ended with exit code 1: error: no room"),
        ("1 / 0", 1, "ended with exit code 1: ZeroDivisionError: division by zero"),
        ("sys.stderr.buffer.write(b'not UTF-8: \\xff')", 0, "ended with exit code 0: not UTF-8: \N{REPLACEMENT CHARACTER}"),
        ("print('x' * 10**7, file=sys.stderr); print('the end', file=sys.stderr); sys.exit(4)", 4, "ended with exit code 4: the end"),
        ("print('x' * 10**7); sys.exit(5)", 5, "ended with exit code 5: it wrote nothing"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", -signal.SIGSEGV, "was killed by SIGSEGV"),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL, "was killed by SIGKILL"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 3)", -signal.SIGRTMIN - 3, f"was killed by signal {signal.SIGRTMIN + 3}"),
    ],
)
def test_how_a_child_ended_is_said_in_words(module: str, program: str, exit_code: int, words: str) -> None:
    how = ended(module, program)
    assert how.exit_code == exit_code
    assert str(how) == words
    assert how.signal_name == (words.removeprefix("was killed by ") if exit_code < 0 else "")


def test_a_child_that_hangs_is_killed_with_its_own_children(module: str, tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    program = f"""
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open({str(noted)!r} + ".part", "w") as file:
    file.write(str(grandchild.pid))
os.rename({str(noted)!r} + ".part", {str(noted)!r})
print("waiting", file=sys.stderr)
time.sleep(600)
"""
    with PythonChild(module, program) as child:
        wait_until(noted.exists)
        wait_until(lambda: child.last_line == "waiting")
        how = child.wait(0.1)
        assert (how.exit_code, str(how), how.last_line) == (None, "did not end within 0.1 s", "waiting")
    wait_until(lambda: not runs(int(noted.read_text())))


def test_a_child_is_killed_where_its_context_ends(module: str) -> None:
    with pytest.raises(KeyboardInterrupt), PythonChild(module, "time.sleep(600)") as child:
        raise KeyboardInterrupt
    assert not runs(child.pid)


def test_a_child_is_asked_to_end_first(module: str) -> None:
    program = "signal.signal(signal.SIGTERM, lambda *_: sys.exit('ended in order')); print('ready', file=sys.stderr); time.sleep(600)"
    with PythonChild(module, program) as child:
        wait_until(lambda: child.last_line == "ready")
        assert child.poll() is None
        assert str(child.terminate(WAIT_S)) == "ended with exit code 1: ended in order"
        assert child.poll() == ChildExit(1, "ended in order")


def test_a_child_reads_what_it_is_given_and_answers(module: str) -> None:
    program = "os.write(int(sys.argv[2]), b'answer to ' + sys.stdin.buffer.read())"
    with PythonChild(module, program, given=b"a question", answers=True) as child:
        assert child.wait(WAIT_S).exit_code == 0
        assert child.answer == b"answer to a question"


def test_a_module_of_the_current_folder_is_not_run(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONPATH")
    monkeypatch.chdir(tmp_path)
    assert "No module named" in ended(module, "").last_line


def test_a_python_that_cannot_be_started_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", str(tmp_path / "no-python"))
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        PythonChild("a_child")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
