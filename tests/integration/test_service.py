"""The whole agent as systemd sees it: ready, alive, reloading, stopping."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from model_build.data.phantom.draw import save_phantom


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(120)
        yield receiver


def test_the_agent_reports_ready_then_life_then_a_reload_then_its_stop(tmp_path: Path, manager: socket.socket, repository: Path) -> None:
    if not (repository / "edge_agent" / "models" / "cxr-pneumonia" / "manifest.json").is_file():
        pytest.skip("the bundle that ships is not there")
    home = tmp_path / "home"
    (home / "inbox").mkdir(parents=True)
    environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "400000"}
    environment.pop("WATCHDOG_PID", None)
    config = tmp_path / "edge-agent.toml"
    config.write_text("")
    command = [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(config), "--home", str(home)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as agent:
        try:
            # A start that takes over a second asks for patience first.
            while (message := manager.recv(4096)) != b"READY=1":
                assert message.startswith((b"EXTEND_TIMEOUT_USEC=", b"STATUS=starting"))
            seen = [message]
            while seen.count(b"WATCHDOG=1") < 2 or not any(message.startswith(b"STATUS=0 done") for message in seen):
                seen.append(manager.recv(4096))
            save_phantom(home / "inbox" / "a.png", 0, rows=256, columns=256)
            while not manager.recv(4096).startswith(b"STATUS=1 done"):
                pass
            config.write_text("[log]\nlevel = 'debug'\n")
            agent.send_signal(signal.SIGHUP)
            while not manager.recv(4096).startswith(b"RELOADING=1\nMONOTONIC_USEC="):
                pass
            while manager.recv(4096) != b"READY=1":
                pass
            while manager.recv(4096) != b"WATCHDOG=1":
                pass
            agent.send_signal(signal.SIGTERM)
            while manager.recv(4096) != b"STOPPING=1":
                pass
            assert agent.wait(120) == 0
        finally:
            agent.kill()
    assert (home / "results" / "a.png.json").is_file()
