"""``model-build`` in a test: in this process, which loads TensorFlow once, or in one of its own where it is to be killed."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from model_build import cli

LIMIT_S = 900.0
"""The longest wait for a step of a build; a machine with much else to do takes some times what an idle one does."""


def model_build(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command here; gives its exit code and what it said."""
    command, said, complained = ["model-build", *map(str, arguments)], io.StringIO(), io.StringIO()
    with mock.patch.object(sys, "argv", command), redirect_stdout(said), redirect_stderr(complained):
        try:
            code = cli.main()
        except SystemExit as end:
            assert isinstance(end.code, int)
            code = end.code
    return subprocess.CompletedProcess(command, code, said.getvalue(), complained.getvalue())


@contextmanager
def building(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start the command in a process of its own, whose standard error can be read; it is killed at the end of the block."""
    with subprocess.Popen([sys.executable, "-m", "model_build", *map(str, arguments)], stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    """Read what a build says up to a line with this text."""
    assert process.stderr is not None
    assert any(text in line for line in process.stderr), f"the build ended without saying {text!r}"


def wait_for_file(process: subprocess.Popen[str], path: Path) -> None:
    """Wait until a build has written a file."""
    deadline_s = time.monotonic() + LIMIT_S
    while not path.exists():
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline_s, f"no {path.name}"
        time.sleep(0.05)
