"""The notify protocol against a real socket, and the unit against systemd's own checker."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.surfaces import systemd
from model_build.data.phantom import save_phantom

INSTALLED = "/opt/edge-agent/bin/edge-agent"


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket that stands where systemd's would."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@edge-agent-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("\0" + name[1:] if name.startswith("@") else name)
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield receiver


def test_each_message_arrives_as_systemd_reads_it(manager: socket.socket) -> None:
    assert systemd.notify_ready()
    assert manager.recv(4096) == b"READY=1"
    assert systemd.notify_watchdog()
    assert manager.recv(4096) == b"WATCHDOG=1"
    before_us = time.monotonic_ns() // 1000
    assert systemd.notify_reloading()
    reloading, _, at_us = manager.recv(4096).decode().partition("\nMONOTONIC_USEC=")
    assert reloading == "RELOADING=1"
    assert before_us <= int(at_us) <= time.monotonic_ns() // 1000
    assert systemd.notify_stopping()
    assert manager.recv(4096) == b"STOPPING=1"
    assert systemd.notify_status("3 waiting, é")
    assert manager.recv(4096).decode() == "STATUS=3 waiting, é"


def test_a_status_can_not_carry_a_second_assignment(manager: socket.socket) -> None:
    assert systemd.notify_status("image\nWATCHDOG=trigger\r\nend")
    assert manager.recv(4096) == b"STATUS=image WATCHDOG=trigger end"


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "relative/socket", "/nowhere/notify"])
def test_nobody_listening_is_no_fault(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not systemd.notify_ready()
    assert not systemd.notify_status("waiting")


@pytest.mark.parametrize(
    ("limit_us", "pid", "interval_s"),
    [
        ("30000000", None, 15.0),
        ("30000000", "self", 15.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_the_watchdog_is_pinged_twice_in_its_limit(
    monkeypatch: pytest.MonkeyPatch, limit_us: str | None, pid: str | None, interval_s: float | None
) -> None:
    for name, value in (("WATCHDOG_USEC", limit_us), ("WATCHDOG_PID", str(os.getpid()) if pid == "self" else pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert systemd.watchdog_interval_s() == interval_s


@pytest.fixture
def checkable_unit(repository: Path, tmp_path: Path) -> Path:
    """A copy of the unit that starts a program which exists here; without that, systemd-analyze reports the missing one."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed (sudo apt install systemd)")
    copy = tmp_path / "edge-agent.service"
    copy.write_text((repository / "systemd" / "edge-agent.service").read_text("utf-8").replace(INSTALLED, "/bin/true"))
    return copy


def test_systemd_has_nothing_to_say_about_the_unit(checkable_unit: Path) -> None:
    check = subprocess.run(["systemd-analyze", "verify", "--man=no", str(checkable_unit)], capture_output=True, text=True)
    assert (check.returncode, check.stdout + check.stderr) == (0, "")
    checkable_unit.write_text(checkable_unit.read_text().replace("Type=notify", "Type=notifies"))
    check = subprocess.run(["systemd-analyze", "verify", "--man=no", str(checkable_unit)], capture_output=True, text=True)
    assert "notifies" in check.stderr


def test_the_unit_stays_within_its_exposure_budget(checkable_unit: Path) -> None:
    report = subprocess.run(["systemd-analyze", "security", "--offline=true", str(checkable_unit)], capture_output=True, text=True)
    level = re.search(r"Overall exposure level for edge-agent.service: ([\d.]+)", report.stdout)
    if level is None:
        pytest.skip(f"this systemd-analyze can not judge a file: {report.stderr.strip()}")
    assert float(level.group(1)) <= 1.5


def test_unit_and_code_agree(repository: Path) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes="#")
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(repository / "systemd" / "edge-agent.service")
    service = unit["Service"]
    assert (service["Type"], service["NotifyAccess"], service["Restart"]) == ("notify", "main", "always")
    program, *arguments = service["ExecStart"].split()
    assert program == INSTALLED
    assert arguments[arguments.index("--home") + 1] == f"/var/lib/{service['StateDirectory']}"
    assert arguments[arguments.index("--config") + 1].startswith(f"/etc/{service['ConfigurationDirectory']}/")
    assert f"\nu {service['User']} " in (repository / "systemd" / "edge-agent.sysusers.conf").read_text("utf-8")


REFUSE_NEW_CODE = """
import ctypes, sys
# PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN: the kernel's own form of MemoryDenyWriteExecute=, since Linux 6.3.
if ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0):
    sys.exit(77)
from edge_agent.cli import main
sys.exit(main())
"""


def test_the_agent_needs_no_memory_that_is_writable_and_executable(tmp_path: Path, repository: Path) -> None:
    if not (repository / "edge_agent" / "models" / "cxr-pneumonia" / "manifest.json").is_file():
        pytest.skip("the bundle that ships is not there")
    (tmp_path / "inbox").mkdir()
    save_phantom(tmp_path / "inbox" / "a.png", 0, rows=256, columns=256)
    run = subprocess.run([sys.executable, "-c", REFUSE_NEW_CODE, "run", "--once", "--home", str(tmp_path)], capture_output=True, text=True)
    if run.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3 has)")
    assert run.returncode == 0, run.stderr
    assert '"status":"done"' in (tmp_path / "results" / "predictions.jsonl").read_text("utf-8")
