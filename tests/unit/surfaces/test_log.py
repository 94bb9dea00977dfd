"""The log: one event a line, for a person or for the journal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge_agent.surfaces.log import thread_faults_logged

LOG_SOME = """
import logging
from edge_agent.surfaces.log import configure_logging
configure_logging("info")
log = logging.getLogger("edge_agent.somewhere")
log.debug("quiet")
log.info("started pid=%d", 7)
log.warning("odd name=%s", "a\\nb")
logging.getLogger("other.library").info("quiet")
logging.getLogger("other.library").error("loud")
"""


def run(stderr: Path, journal_stream: str | None) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if name != "JOURNAL_STREAM"}
    if journal_stream is not None:
        environment["JOURNAL_STREAM"] = journal_stream
    with stderr.open("wb") as file:
        subprocess.run([sys.executable, "-c", LOG_SOME], stderr=file, env=environment, check=True)
    return stderr.read_text().splitlines()


def test_one_event_a_line_with_time_and_level(tmp_path: Path) -> None:
    lines = run(tmp_path / "log", None)
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", line) for line in lines)
    assert [line.split(" ", 1)[1] for line in lines] == ["info started pid=7", r"warning odd name=a\nb", "error loud"]


def test_the_journal_gets_priorities_and_adds_its_own_time(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    found = (tmp_path / "log").stat()
    assert run(tmp_path / "log", f"{found.st_dev}:{found.st_ino}") == ["<6>started pid=7", r"<4>odd name=a\nb", "<3>loud"]


def test_another_journal_stream_is_not_ours(tmp_path: Path) -> None:
    assert not run(tmp_path / "log", "1:2")[0].startswith("<")


def test_a_thread_that_ends_by_a_fault_is_an_event_without_the_faults_text(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ValueError("DOE JOHN.png")

    before = threading.excepthook
    with thread_faults_logged():
        thread = threading.Thread(target=fail, name="camera")
        thread.start()
        thread.join()
    assert threading.excepthook is before
    [line] = caplog.messages
    assert re.fullmatch(r"thread_failed name=camera error=ValueError at=test_log\.py:\d+", line)
