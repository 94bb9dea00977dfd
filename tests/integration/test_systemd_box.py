"""The installed service under a real systemd, in a box of its own: the whole life that a clinic gives it.

Takes over a minute, so it runs by name: ``pytest -m slow tests/integration/test_systemd_box.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.systemd_box import NoBoxError, SystemdBox, wait_for

from model_build.data.phantom.draw import save_phantom

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

HOME = "/var/lib/edge-agent"
CONFIG = "/etc/edge-agent/edge-agent.toml"
AS_TECHNICIAN = "setpriv --reuid=technician --regid=technician --init-groups sh -c"
SHARE = "/srv/x ray"
MOUNT_SHARE = f"mount -t tmpfs -o mode=2770,gid=edge-agent stick '{SHARE}'"


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """What is carried to the box: wheels of everything, and images."""
    folder = tmp_path_factory.mktemp("things")
    folder.chmod(0o755)
    asked = subprocess.run(["/usr/bin/python3", "-c", "import sys; print(sys.version_info.minor)"], capture_output=True, text=True)
    if asked.stdout.strip() != str(sys.version_info.minor):
        pytest.skip("the system's Python is of another version than this one, so wheels made here do not fit")
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", folder / "wheels", repository], check=True)
    for seed in range(12):
        save_phantom(folder / f"{seed}.png", seed, rows=256, columns=256)
    return folder


@pytest.fixture(scope="module")
def box(things: Path, tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[SystemdBox]:
    try:
        with SystemdBox(tmp_path_factory.mktemp("box"), [things, repository]) as machine:
            machine.run(f"ln -s /box{things} /things && ln -s /box{repository} /checkout")
            machine.run("useradd --create-home technician")
            machine.run("/checkout/scripts/install --wheels /things/wheels")
            machine.run("usermod --append --groups edge-agent technician")
            yield machine
    except NoBoxError as refusal:
        pytest.skip(f"no systemd of its own can be run here: {refusal}")


def process(box: SystemdBox) -> str:
    return box.output("systemctl show --property=MainPID --value edge-agent")


def status(box: SystemdBox) -> dict[str, object]:
    found: dict[str, object] = json.loads(box.run(f"edge-agent status --home {HOME} --format json").stdout)
    return found


def drop(box: SystemdBox, seed: int, name: str, inbox: str = f"{HOME}/inbox") -> None:
    """Copy an image as the technician does, whose umask is the usual one; a disk without access control lists wants another."""
    umask = "022" if inbox.startswith(HOME) else "002"
    box.run(f"{AS_TECHNICIAN} \"umask {umask}; mkdir -p '{inbox}/ward' && cp /things/{seed}.png '{inbox}/ward/{name}'\"")


def test_a_technician_drops_an_image_and_reads_its_result(box: SystemdBox) -> None:
    assert box.output("systemctl is-active edge-agent; systemctl is-enabled edge-agent").split() == ["active", "enabled"]
    drop(box, 0, "first.png")
    box.wait(f"test -e {HOME}/done/ward/first.png && test -e {HOME}/results/ward/first.png.json")
    assert json.loads(box.output(f"{AS_TECHNICIAN} 'cat {HOME}/results/ward/first.png.json'"))["status"] == "done"
    box.wait("systemctl status edge-agent | grep -q 'Status: .1 done'", 15)
    assert box.run(f"{AS_TECHNICIAN} 'edge-agent status'").stdout.startswith("agent:       running")
    for forbidden in (f"rm {HOME}/done/ward/first.png", f"echo >>{HOME}/results/predictions.jsonl", f"cat {CONFIG}"):
        assert box.run(f"{AS_TECHNICIAN} '{forbidden}'", check=False).returncode != 0, forbidden


def test_the_doctor_finds_the_installed_agent_and_no_problem(box: SystemdBox) -> None:
    report = json.loads(box.run("edge-agent doctor --format json").stdout)
    found = {finding["check"]: finding for finding in report["findings"]}
    assert (report["user"], report["home"]) == ("edge-agent", HOME)
    assert [finding for finding in report["findings"] if finding["verdict"] == "problem"] == []
    assert found["configuration"]["saw"] == CONFIG
    assert found["user"]["saw"].endswith("umask 0027")
    assert found["service"]["saw"].startswith("active, enabled")
    assert f"process {process(box)}" in found["agent"]["saw"]
    # The model's folder, the home and the interpreter were looked at as the agent, who is in the group of the cameras.
    assert "video" in found["user"]["saw"]


def test_the_service_is_shut_in(box: SystemdBox) -> None:
    agent = process(box)
    inside = f"nsenter --target {agent} --mount --user --setuid 0"
    for path in (CONFIG, "/opt/edge-agent/current/bin/edge-agent", "/etc/passwd"):
        refused = box.run(f"{inside} sh -c 'echo >>{path}'", check=False)
        assert "Read-only file system" in refused.stderr, path
    limits = box.output(f"cat /proc/{agent}/limits /proc/{agent}/status")
    assert "Max core file size        0" in limits
    assert "NoNewPrivs:\t1" in limits
    assert "CapEff:\t0000000000000000" in limits
    assert "Seccomp:\t2" in limits


def test_killed_it_is_back_after_ten_seconds_and_nothing_is_lost(box: SystemdBox) -> None:
    before = process(box)
    killed_s = time.monotonic()
    box.run(f"kill -KILL {before}")
    drop(box, 1, "while-dead.png")
    box.wait(f"test -e {HOME}/done/ward/while-dead.png", 120)
    assert time.monotonic() - killed_s > 9
    assert process(box) != before


def test_a_reload_takes_a_good_configuration_and_refuses_a_bad_one(box: SystemdBox) -> None:
    before = process(box)
    box.run(f"sed -i 's/^on_done = .*/on_done = \"keep\"/' {CONFIG} && systemctl reload edge-agent")
    wait_for(lambda: "reloaded changed=True" in box.output("journalctl -u edge-agent"), 10)
    drop(box, 2, "kept.png")
    box.wait(f"test -e {HOME}/results/ward/kept.png.json && test -e {HOME}/inbox/ward/kept.png")
    box.run(f"sed -i 's/^on_done = .*/on_done = \"burn\"/' {CONFIG} && systemctl reload edge-agent")
    wait_for(lambda: "intake.on_done" in box.output("journalctl -u edge-agent"), 10)
    drop(box, 3, "still-kept.png")
    box.wait(f"test -e {HOME}/results/ward/still-kept.png.json && test -e {HOME}/inbox/ward/still-kept.png")
    assert "intake.on_done" in box.run("edge-agent doctor --area program", check=False).stdout.replace("\n", "")
    box.run(f"sed -i 's/^on_done = .*/on_done = \"move\"/' {CONFIG} && systemctl reload edge-agent")
    box.wait(f"test ! -e {HOME}/inbox/ward/kept.png", 20)
    assert process(box) == before


def test_an_agent_that_hangs_is_ended_and_says_where_it_stood(box: SystemdBox) -> None:
    drop_in = "/run/systemd/system/edge-agent.service.d"
    box.run(f"mkdir -p {drop_in} && printf '[Service]\\nWatchdogSec=3\\n' >{drop_in}/fast.conf && systemctl daemon-reload")
    box.run("systemctl restart edge-agent")
    hung = process(box)
    box.run(f"kill -STOP {hung}")
    wait_for(lambda: process(box) not in (hung, "0"), 40)
    box.wait(f"grep -q 'Fatal Python error: Aborted' {HOME}/state/crash-last.txt")
    assert "Aborted" in box.output("edge-agent doctor --area service --format json")
    box.run(f"rm -r {drop_in} && systemctl daemon-reload && systemctl restart edge-agent")


def test_a_stop_takes_under_two_seconds(box: SystemdBox) -> None:
    began_s = time.monotonic()
    box.run("systemctl stop edge-agent")
    assert time.monotonic() - began_s < 3  # with the start of the command itself
    assert box.output("systemctl show --property=Result --value edge-agent") == "success"
    box.run("systemctl start edge-agent")


def test_an_upgrade_keeps_data_and_configuration_and_one_that_does_not_start_is_taken_back(box: SystemdBox) -> None:
    records = status(box)["records"]
    box.run(f"echo '# by hand' >>{CONFIG} && sed -i 's/^settle_time_s = .*/settle_time_s = 0.5/' {CONFIG}")
    said = box.run("/checkout/scripts/install --wheels /things/wheels").stdout
    assert "Keep the configuration" in said
    assert box.output(f"ls /etc/edge-agent /opt/edge-agent/releases; readlink /opt/edge-agent/current; tail -n 1 {CONFIG}").split("\n") == [
        *("/etc/edge-agent:", "edge-agent.toml", "keys", "", "/opt/edge-agent/releases:", "2", "/opt/edge-agent/releases/2", "# by hand"),
    ]
    assert status(box)["records"] == records
    # A version whose doctor is content and whose agent ends at once.
    box.run(
        "mkdir /tmp/bad && cd /tmp/bad && cp -r /checkout/edge_agent /checkout/pyproject.toml . 2>/dev/null; "
        "python3 - <<'END'\n"
        "import zipfile\n"
        "about = 'edge_agent-99.dist-info'\n"
        "with zipfile.ZipFile('/tmp/bad/edge_agent-99-py3-none-any.whl', 'w') as wheel:\n"
        "    wheel.writestr('broken.py', 'import sys\\ndef main():\\n    return int(sys.argv[1] != \"doctor\")\\n')\n"
        "    wheel.writestr(f'{about}/METADATA', 'Metadata-Version: 2.1\\nName: edge-agent\\nVersion: 99\\n')\n"
        "    wheel.writestr(f'{about}/WHEEL', 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n')\n"
        "    wheel.writestr(f'{about}/entry_points.txt', '[console_scripts]\\nedge-agent = broken:main\\n')\n"
        "    wheel.writestr(f'{about}/RECORD', '')\n"
        "END"
    )
    refused = box.run("/checkout/scripts/install --wheels /tmp/bad", check=False)
    assert refused.returncode == 1
    assert "the old program is in use again" in refused.stderr
    assert box.output("readlink /opt/edge-agent/current; ls /opt/edge-agent/releases; systemctl is-active edge-agent").split() == [
        *("/opt/edge-agent/releases/2", "2", "active"),
    ]
    assert status(box)["records"] == records


def test_a_share_that_comes_goes_and_comes_back(box: SystemdBox) -> None:
    """1. The inbox is a mount point on which nothing is mounted yet. 2. Its disk comes, with an image. 3. It goes. 4. Meanwhile the service
    is started anew. 5. The disk comes back, with another image. Result: the service never fails, and both images have one record each."""
    before = status(box)["records"]
    assert isinstance(before, int)
    box.run(f"mkdir -p '{SHARE}' && chgrp edge-agent '{SHARE}' && chmod 2770 '{SHARE}'")
    box.run(f"sed -i 's|^#inbox = .*|inbox = \"{SHARE}\"|' {CONFIG}")
    box.run("/checkout/scripts/install --wheels /things/wheels")  # reads the inbox in the configuration, and writes the drop-in for it
    assert f'ReadWritePaths="-{SHARE}"' in box.output("systemctl cat edge-agent")
    started = process(box)
    box.run(MOUNT_SHARE)
    drop(box, 4, "on-the-stick.png", SHARE)
    box.wait(f"test -e {HOME}/done/ward/on-the-stick.png -a ! -e '{SHARE}/ward/on-the-stick.png'", 40)
    box.run(f"umount '{SHARE}'")
    wait_for(lambda: "waiting: the inbox" in box.output("systemctl status edge-agent"), 40)
    assert process(box) == started
    box.run("systemctl restart edge-agent")
    assert box.output("systemctl is-active edge-agent") == "active"
    assert status(box)["waits_for"] == "inbox_away"
    box.run(MOUNT_SHARE)
    drop(box, 5, "again.png", SHARE)
    box.wait(f"test -e {HOME}/done/ward/again.png", 60)
    assert status(box)["records"] == before + 2
    box.run(f"umount '{SHARE}'")


def test_removal_leaves_the_results_and_a_purge_nothing(box: SystemdBox) -> None:
    box.run("/opt/edge-agent/current/service/uninstall")
    assert (
        box.output("systemctl is-active edge-agent; ls -d /opt/edge-agent /usr/local/bin/edge-agent /etc/systemd/system/edge-agent.service")
        == "inactive"
    )
    box.run(f"test -e {HOME}/results/predictions.jsonl -a -e {CONFIG}")
    box.run("/checkout/scripts/uninstall --purge --yes")
    assert (
        box.output(f"ls -d {HOME} /etc/edge-agent /etc/systemd/system/edge-agent*; getent passwd edge-agent; getent group edge-agent") == ""
    )
