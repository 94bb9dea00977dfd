"""The notify protocol against a real socket, and the unit against systemd's own checker."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.config import BOX_CONFIG, HOME_VARIABLE
from edge_agent.surfaces import systemd
from model_build.data.phantom.draw import save_phantom

INSTALLED = "/opt/edge-agent/current/bin/edge-agent"


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
    systemd.notify_ready()
    assert manager.recv(4096) == b"READY=1"
    systemd.notify_watchdog()
    assert manager.recv(4096) == b"WATCHDOG=1"
    before_us = time.monotonic_ns() // 1000
    systemd.notify_reloading()
    reloading, _, at_us = manager.recv(4096).decode().partition("\nMONOTONIC_USEC=")
    assert reloading == "RELOADING=1"
    assert before_us <= int(at_us) <= time.monotonic_ns() // 1000
    systemd.notify_stopping()
    assert manager.recv(4096) == b"STOPPING=1"
    systemd.notify_status("3 waiting, é")
    assert manager.recv(4096).decode() == "STATUS=3 waiting, é"


def test_a_status_cannot_carry_a_second_assignment(manager: socket.socket) -> None:
    systemd.notify_status("image\nWATCHDOG=trigger\r\nend")
    assert manager.recv(4096) == b"STATUS=image WATCHDOG=trigger end"


@pytest.mark.parametrize("address", [None, "", "vsock:2:1234", "relative/socket", "/nowhere/notify"])
def test_nobody_listening_is_no_fault(monkeypatch: pytest.MonkeyPatch, address: str | None) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    if address is not None:
        monkeypatch.setenv("NOTIFY_SOCKET", address)
    systemd.notify_ready()
    systemd.notify_status("waiting")


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


@pytest.fixture
def exposure(checkable_unit: Path) -> str:
    """What ``systemd-analyze security`` says of the unit."""
    report = subprocess.run(["systemd-analyze", "security", "--offline=true", str(checkable_unit)], capture_output=True, text=True)
    if "Overall exposure level" not in report.stdout:
        pytest.skip(f"this systemd-analyze cannot judge a file: {report.stderr.strip()}")
    return report.stdout


def test_the_unit_stays_within_its_exposure_budget(exposure: str) -> None:
    level = re.search(r"Overall exposure level for edge-agent.service: ([\d.]+)", exposure)
    assert level is not None
    assert float(level.group(1)) <= 1.5


def test_each_relaxation_is_explained_in_the_unit(exposure: str, repository: Path) -> None:
    relaxed = set(re.findall(r"^✗ (\w+=)", exposure, re.MULTILINE))
    assert "PrivateNetwork=" in relaxed
    comments = [line for line in (repository / "systemd" / "edge-agent.service").read_text("utf-8").splitlines() if line.startswith("#")]
    assert {name for name in relaxed if not any(name in line for line in comments)} == set()


@pytest.fixture
def unit(repository: Path) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes="#")
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(repository / "systemd" / "edge-agent.service")
    return parsed


def test_unit_and_code_agree(unit: configparser.ConfigParser, repository: Path) -> None:
    service = unit["Service"]
    assert (service["Type"], service["NotifyAccess"], service["Restart"]) == ("notify", "main", "always")
    program, *arguments = service["ExecStart"].split()
    assert program == INSTALLED
    assert service["Environment"] == f"{HOME_VARIABLE}=/var/lib/{service['StateDirectory']}"
    assert arguments[arguments.index("--config") + 1] == str(BOX_CONFIG)
    assert "ConfigurationDirectory" not in service, "systemd would let the service write to /etc/edge-agent"
    assert f"\nu {service['User']} " in (repository / "systemd" / "edge-agent.sysusers.conf").read_text("utf-8")


def test_a_mount_that_is_away_cannot_keep_the_service_from_starting(unit: configparser.ConfigParser) -> None:
    """Also not a network, which need never come, nor ten failures in a row."""
    assert not {"RequiresMountsFor", "Requires", "BindsTo", "After", "Wants"} & unit["Unit"].keys()
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Service"]["RestartSec"] == "10"


@pytest.fixture
def laid_out(repository: Path, tmp_path: Path) -> Path:
    """A root folder with the users and folders that the two files ask for."""
    if os.getuid() != 0 or not shutil.which("systemd-sysusers") or not shutil.which("systemd-tmpfiles"):
        pytest.skip("needs root, systemd-sysusers and systemd-tmpfiles (sudo apt install systemd)")
    for kind in ("sysusers", "tmpfiles"):
        folder = tmp_path / "etc" / f"{kind}.d"
        folder.mkdir(parents=True)
        shutil.copy(repository / "systemd" / f"edge-agent.{kind}.conf", folder / "edge-agent.conf")
    (tmp_path / "etc" / "edge-agent").mkdir()
    (tmp_path / "etc" / "edge-agent" / "edge-agent.toml").write_text("")
    for command in (["systemd-sysusers"], ["systemd-tmpfiles", "--create"]):
        made = subprocess.run([command[0], f"--root={tmp_path}", *command[1:], "edge-agent.conf"], capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
    return tmp_path


def test_the_home_is_laid_out_for_the_agent_and_its_group(laid_out: Path) -> None:
    uid, gid = (laid_out / "etc" / "passwd").read_text("utf-8").partition("edge-agent:x:")[2].split(":")[:2]
    home = laid_out / "var" / "lib" / "edge-agent"
    modes = {path.name: f"{stat.S_IMODE(path.stat().st_mode):o}" for path in [home, *home.iterdir()]}
    read_only = dict.fromkeys(("results", "done", "rejected", "state"), "2750")
    assert modes == {"edge-agent": "750", "inbox": "2770"} | read_only
    assert {(path.stat().st_uid, path.stat().st_gid) for path in [home, *home.iterdir()]} == {(int(uid), int(gid))}
    config = (laid_out / "etc" / "edge-agent" / "edge-agent.toml").stat()
    assert (config.st_uid, config.st_gid, stat.S_IMODE(config.st_mode)) == (int(uid), 0, 0o640)


def as_user(folder: Path, uid: int, groups: list[int], script: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell as somebody else. The folder is entered before the user changes: pytest's own folders are root's alone."""
    command = ["sh", "-c", f"umask 022; {script}"]
    return subprocess.run(command, cwd=folder, user=uid, group=groups[0], extra_groups=groups[1:], capture_output=True, text=True)


def test_the_agent_may_empty_a_folder_that_a_technician_made(laid_out: Path) -> None:
    inbox = laid_out / "var" / "lib" / "edge-agent" / "inbox"
    agent, group = inbox.stat().st_uid, inbox.stat().st_gid
    drop = "mkdir ward && echo image >ward/a.png"
    assert as_user(inbox, 54322, [54322], drop).returncode != 0, "a stranger may write"
    dropped = as_user(inbox, 54321, [54321, group], drop)
    assert dropped.returncode == 0, dropped.stderr
    if (inbox / "ward").stat().st_mode & 0o070 != 0o070:
        pytest.skip("this file system has no access control lists")
    moved = as_user(inbox, agent, [group], "mv ward/a.png ../done/ && cat ../done/a.png")
    assert moved.stdout == "image\n", moved.stderr
    assert as_user(inbox, 54321, [54321, group], "cat ../done/a.png").stdout == "image\n"
    assert as_user(inbox, 54321, [54321, group], "rm -f ../done/a.png").returncode != 0, "a technician may remove what is done"


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
