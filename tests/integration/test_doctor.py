"""``edge-agent doctor`` as a person runs it, on this machine, on folders and packages that are as bad as real ones."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.agents import AgentHome, drop, image_bytes
from support.disks import NoDisksError, memory_disk

from edge_agent import cli, config
from edge_agent.doctor.finding import AREAS

Found = dict[str, dict[str, str]]


@pytest.fixture(autouse=True)
def no_installed_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "BOX_CONFIG", tmp_path / "not-installed.toml")


def examine(*arguments: str | Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, Found]:
    """Run the command in this process; gives its exit code and the findings by what was looked at."""
    code = cli.main(["doctor", "--format", "json", *map(str, arguments)])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert report["verdict"] == ("problem" if code else report["verdict"])
    return code, {finding["check"]: finding for finding in report["findings"]}


def run_doctor(*arguments: str | Path, path: Path | str = "", python: str = sys.executable) -> subprocess.CompletedProcess[str]:
    """Run it in a process of its own, with more folders to import from; a ``sitecustomize.py`` there is executed before anything else."""
    environment = os.environ | {"COLUMNS": "200", "PYTHONPATH": str(path)}
    command = [python, "-m", "edge_agent.cli", "doctor", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def test_this_machine_is_fit_for_the_agent(tmp_path: Path) -> None:
    home = AgentHome(tmp_path)
    drop(home.inbox, "a.png", image_bytes(1))
    home.run_once()
    before = home.files(".")
    used_s = -sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    run = run_doctor("--home", home.home, "--format", "json")
    used_s += sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
    report = json.loads(run.stdout)
    assert run.returncode == (1 if report["verdict"] == "problem" else 0), run.stderr
    found = {finding["check"]: finding for finding in report["findings"]}
    assert {finding["area"] for finding in report["findings"]} == set(AREAS)
    # Whatever machine this is: the program works, and so does what this test has made.
    for check in ("Python", "packages", "configuration", "model", "model runtime", "home", "inbox", "agent", "database", "camera"):
        assert found[check]["verdict"] == "ok", found[check]
    assert found["database"]["saw"].startswith("1 records")
    assert "golden vectors match" in found["model runtime"]["saw"]
    # SQLite's own, which the first reader of a database makes.
    assert set(home.files(".")) - set(before) <= {"state/edge-agent.db-shm", "state/edge-agent.db-wal"}
    assert used_s < 5


def test_people_get_a_table_with_what_to_do(tmp_path: Path) -> None:
    run = run_doctor("--home", tmp_path / "home", "--area", "folders")
    assert run.returncode == 0, run.stderr
    assert "what to do" in run.stdout
    assert "is not there yet" in run.stdout
    assert "1 warning" in run.stdout


WITHOUT_WHEELS = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("numpy", "rich"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
"""


def test_missing_wheels_are_told_by_what_is_left(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_WHEELS)
    run = run_doctor("--home", tmp_path / "home", "--area", "program", path=tmp_path)
    assert (run.returncode, run.stderr) == (1, "")
    assert "problem\tmodel\tloading numpy: No module named 'numpy'\tinstall the program again" in run.stdout


CRASHING_RUNTIME = """
import os, signal, sys

class Crashing:
    def find_spec(self, name, path=None, target=None):
        if name == "ai_edge_litert.interpreter":
            os.kill(os.getpid(), signal.SIGSEGV)

sys.meta_path.insert(0, Crashing())
"""


def test_a_runtime_that_crashes_is_a_finding_and_no_crash_of_the_doctor(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(CRASHING_RUNTIME)
    run = run_doctor("--home", tmp_path / "home", "--area", "program", path=tmp_path)
    assert run.returncode == 1, run.stderr
    assert "running the model: was killed by SIGSEGV" in " ".join(run.stdout.split())


def test_a_model_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edge_agent.config import Config
    from edge_agent.doctor.probe import Probe

    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(600)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Probe("model", Config(home=tmp_path)) as probe:
        result = probe.finish(0.2)
    assert (result.failure, result.step) == ("did not end within 0.2 s", "starting Python")


def test_a_bundle_that_was_tampered_with_and_a_wrong_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_text("{}")
    config = tmp_path / "edge-agent.toml"
    config.write_text(f'home = "{tmp_path}/home"\n[model]\nbundle = "{bundle}"\n')
    code, found = examine("--config", config, "--area", "program", capsys=capsys)
    assert code == 1
    assert found["configuration"]["verdict"] == "ok"
    assert str(bundle) in found["model"]["saw"]
    config.write_text("[intake]\ninbx = 1\n")
    code, found = examine("--config", config, "--home", tmp_path, "--area", "program", capsys=capsys)
    assert code == 1
    assert "intake.inbx: unknown key" in found["configuration"]["saw"]
    assert found["model"]["verdict"] == "ok"


def test_the_configuration_of_the_box_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    box = tmp_path / "not-installed.toml"
    box.write_text(f'home = "{tmp_path}/box"\n')
    _, found = examine("--area", "folders", capsys=capsys)
    assert f"{tmp_path}/box" in found["home"]["saw"]


def test_a_home_on_a_full_read_only_disk_in_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        with memory_disk(tmp_path / "home", 1024) as home:
            (home / "inbox").mkdir()
            (home / "filling").write_bytes(b"\0" * 900_000)
            code, found = examine("--home", home, "--area", "folders", capsys=capsys)
            assert code == 1
            assert "gone at the next start" in found["home's disk"]["saw"]
            assert found["home's room"]["verdict"] == "problem"
            assert found["home"]["verdict"] == found["inbox"]["verdict"] == "ok"
            subprocess.run(["mount", "-o", "remount,ro", home], check=True)
            _, found = examine("--home", home, "--area", "folders", capsys=capsys)
            assert "read-only" in found["home's disk"]["saw"]
            assert "Read-only file system" in found["home"]["saw"]
            assert "Read-only file system" in found["inbox"]["saw"]
    except NoDisksError as refusal:
        pytest.skip(f"this user cannot mount: {refusal}")


def test_an_inbox_that_is_away(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "edge-agent.toml"
    config.write_text(f'home = "{tmp_path}"\n[intake]\ninbox = "{tmp_path}/stick"\n')
    code, found = examine("--config", config, "--area", "folders", capsys=capsys)
    assert code == 1
    assert "is away" in found["inbox"]["saw"]
    assert not (tmp_path / "stick").exists()


@pytest.fixture
def shared_python(repository: Path) -> tuple[str, str]:
    """A Python that another user can run too, and what it needs on its path: root's own often stands in root's home."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    tries = [(sys.executable, ""), (f"/usr/bin/python3.{sys.version_info.minor}", f"{repository}:{packages}")]
    for python, path in tries:
        command = [python, "-c", "import edge_agent.doctor.examine"]
        try:
            run = subprocess.run(command, cwd="/", env={"PYTHONPATH": path}, user=54321, group=54321, extra_groups=[], capture_output=True)
        except OSError:
            continue
        if run.returncode == 0:
            return python, path
    pytest.skip("another user can run no Python with this checkout")


def test_root_looks_with_the_rights_of_the_agent(other_file_system: Path, shared_python: tuple[str, str]) -> None:
    """A file that only root and its owner can read, and a folder that only they can empty."""
    python, path = shared_python
    home = other_file_system / "home"
    (home / "inbox" / "ward").mkdir(parents=True)
    (home / "inbox" / "secret.png").write_bytes(image_bytes(1))
    (home / "inbox" / "secret.png").chmod(0o600)
    for folder in (home, home / "inbox"):
        os.chown(folder, 54321, 54321)
    other_file_system.chmod(0o755)
    run = run_doctor("--home", home, "--area", "folders", "--area", "program", "--format", "json", python=python, path=path)
    report = json.loads(run.stdout)
    found = {finding["check"]: finding for finding in report["findings"]}
    assert report["user"] == "number 54321"
    assert found["home"]["verdict"] == found["model"]["verdict"] == "ok"
    assert "1 files cannot be read and 1 folders cannot be emptied" in found["inbox"]["saw"]
    os.chown(home / "inbox", 0, 0)
    run = run_doctor("--home", home, "--area", "folders", "--format", "json", python=python, path=path)
    found = {finding["check"]: finding for finding in json.loads(run.stdout)["findings"]}
    assert (run.returncode, found["inbox"]["verdict"]) == (1, "problem")
    assert "Permission denied" in found["inbox"]["saw"]


def test_a_camera(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2 = pytest.importorskip("cv2")
    import numpy as np

    video = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 48))
    for grey in range(0, 100, 10):
        writer.write(np.full((48, 64, 3), grey, np.uint8))
    writer.release()
    config = tmp_path / "edge-agent.toml"
    config.write_text(f'home = "{tmp_path}"\n[camera]\nsource = "{video}"\n')
    code, found = examine("--config", config, "--area", "camera", capsys=capsys)
    assert (code, found["camera"]["verdict"]) == (0, "ok"), found["camera"]
    assert "64 x 48 pixels" in found["camera"]["saw"]
    config.write_text(f'home = "{tmp_path}"\n[camera]\nsource = "rtsp://nurse:secret@127.0.0.1:9/film"\nstall_timeout_s = 0.5\n')
    code, found = examine("--config", config, "--area", "camera", capsys=capsys)
    assert (code, found["camera"]["verdict"]) == (1, "problem")
    assert "secret" not in found["camera"]["saw"]
    assert "cable" in found["camera"]["advice"]


def test_a_running_agent_keeps_its_camera(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = AgentHome(tmp_path)
    drop(home.inbox, "a.png", image_bytes(1))
    with home.running():
        home.wait_for(1)
        config = tmp_path / "edge-agent.toml"
        config.write_text(f'home = "{home.home}"\n[camera]\nsource = "0"\n')
        code, found = examine("--config", config, "--area", "camera", "--area", "service", capsys=capsys)
    assert code == 0, found
    assert "in use by the running agent" in found["camera"]["saw"]
    assert found["agent"]["saw"].startswith(f"runs, process {os.getpid()}")
