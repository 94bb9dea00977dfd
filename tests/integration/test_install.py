"""scripts/install and scripts/uninstall in a staging folder, with a program that is quickly installed: what stands where, and what is kept.

The real program under a real systemd: tests/integration/test_systemd_box.py.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import zipfile
from pathlib import Path

import pytest

from edge_agent.config import load_config

SCRIPTS = ("install", "uninstall", "quickstart", "test", "service.sh", "venv.sh")


def run_script(name: str, *arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    script = Path(__file__).parents[2] / "scripts" / name
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    return subprocess.run(
        [script, *arguments],
        **({"env": environment, "cwd": "/", "stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 60} | options),
    )


def make_wheel(folder: Path, version: str, doctor_exit_code: int) -> None:
    """A program of the agent's name whose ``doctor`` is content or not."""
    folder.mkdir(exist_ok=True)
    about = f"edge_agent-{version}.dist-info"
    with zipfile.ZipFile(folder / f"edge_agent-{version}-py3-none-any.whl", "w") as wheel:
        code = f"import sys\n\ndef main():\n    print('program {version}:', *sys.argv[1:])\n    return {doctor_exit_code}\n"
        wheel.writestr("edge_agent_stub.py", code)
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: edge-agent\nVersion: {version}\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/entry_points.txt", "[console_scripts]\nedge-agent = edge_agent_stub:main\n")
        wheel.writestr(f"{about}/RECORD", "")


@pytest.fixture
def as_root() -> None:
    if os.getuid() != 0 or not shutil.which("systemd-sysusers"):
        pytest.skip("needs root and systemd-sysusers (sudo apt install systemd)")


def tree(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def version_in_use(root: Path) -> str:
    return subprocess.run([root / "usr/local/bin/edge-agent", "--version"], capture_output=True, text=True).stdout.split(":")[0]


def test_a_dry_run_prints_every_step_and_changes_nothing(tmp_path: Path) -> None:
    make_wheel(tmp_path / "wheels", "1", 0)
    before = tree(tmp_path)
    run = run_script("install", "--dry-run", "--root", tmp_path / "root", "--wheels", tmp_path / "wheels", "--inbox", "/srv/x ray")
    assert run.returncode == 0, run.stderr
    assert run.stdout.endswith("Nothing was changed.\n")
    assert tree(tmp_path) == before
    for word in (
        "-m venv",
        "pip install",
        "--no-index",
        "systemd-sysusers",
        "doctor --area program",
        "edge-agent.toml",
        "inbox.conf",
        "mv -fT",
    ):
        assert word in run.stdout, word
    run = run_script("uninstall", "--dry-run", "--purge")
    assert run.returncode == 0, run.stderr
    assert "rm -rf --one-file-system -- /var/lib/edge-agent" in run.stdout


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("install", ["--nonsense"]),
        ("install", ["--inbox"]),
        ("install", ["--inbox", "relative/folder"]),
        ("install", ["--inbox", '/srv/"quoted"']),
        ("install", ["--extras", "camera;reboot"]),
        ("install", ["--wheels", "/nowhere/at/all"]),
        ("install", ["--uninstall", "--nonsense"]),
        ("uninstall", ["everything"]),
        ("uninstall", ["--root"]),
    ],
)
def test_a_wrong_option_is_2_with_the_usage(script: str, arguments: list[str]) -> None:
    run = run_script(script, *arguments, "--dry-run")
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("error: ")
    assert "usage: sudo " in run.stderr


def test_who_is_not_root_is_told(tmp_path: Path) -> None:
    if os.getuid() != 0:
        options = {}
    elif subprocess.run(["test", "-x", Path(__file__).parents[2] / "scripts/install"], user=54321, group=54321, cwd="/").returncode:
        pytest.skip("another user cannot look into this checkout")
    else:
        options = {"user": 54321, "group": 54321, "extra_groups": []}
    for script in ("install", "uninstall"):
        run = run_script(script, **options)
        assert run.returncode == 1
        assert "only root may do this: run  sudo " in run.stderr


@pytest.mark.usefixtures("as_root")
def test_install_upgrade_and_removal(tmp_path: Path) -> None:
    """1. Install. 2. Somebody edits the configuration, and results come. 3. Upgrade. 4. Upgrade to a version that does not work here.
    5. Uninstall. 6. Purge. Result: each version in use is one that worked, and nothing of the person's is lost before the last step."""
    root, wheels = tmp_path / "root", tmp_path / "wheels"
    options = ("--root", root, "--wheels", wheels)

    make_wheel(wheels, "1", 0)
    run = run_script("install", *options, "--inbox", "/srv/x ray 100%")
    assert run.returncode == 0, run.stderr
    assert version_in_use(root) == "program 1"
    config = root / "etc/edge-agent/edge-agent.toml"
    loaded = load_config(config)
    assert (str(loaded.home), str(loaded.inbox), str(loaded.trusted_keys)) == (
        "/var/lib/edge-agent",
        "/srv/x ray 100%",
        "/etc/edge-agent/keys",
    )
    assert stat.S_IMODE(config.stat().st_mode) == 0o640
    drop_in = root / "etc/systemd/system/edge-agent.service.d/inbox.conf"
    assert 'ReadWritePaths="-/srv/x ray 100%%"' in drop_in.read_text()
    assert f"{stat.S_IMODE((root / 'var/lib/edge-agent/inbox').stat().st_mode):o}" == "2770"
    for name in ("systemd/system/edge-agent.service", "tmpfiles.d/edge-agent.conf", "sysusers.d/edge-agent.conf"):
        assert (root / "etc" / name).is_file()

    config.write_text(config.read_text() + "# by hand\n")
    (root / "var/lib/edge-agent/results/predictions.jsonl").write_text("{}\n")
    (root / "opt/edge-agent/releases/7/bin").mkdir(parents=True)  # an upgrade that a power cut ended
    (root / "opt/edge-agent/releases/1/service/edge-agent.toml").write_text("# the defaults were others then\n")
    make_wheel(wheels, "2", 0)
    run = run_script("install", *options)
    assert run.returncode == 0, run.stderr
    assert version_in_use(root) == "program 2"
    assert config.read_text().endswith("# by hand\n")
    assert load_config(config.with_name("edge-agent.toml.new")) == loaded
    assert tree(root / "opt/edge-agent/releases")[0] == "2"
    assert not (root / "opt/edge-agent/releases/7").exists()

    make_wheel(wheels, "3", 1)
    run = run_script("install", *options)
    assert run.returncode == 1
    assert "what was in use still is" in run.stderr
    assert version_in_use(root) == "program 2"
    assert not (root / "opt/edge-agent/releases/3").exists()

    run = run_script("uninstall", "--root", root)
    assert run.returncode == 0, run.stderr
    assert not (root / "opt/edge-agent").exists()
    assert not (root / "usr/local/bin/edge-agent").exists()
    assert tree(root / "etc/systemd/system") == ["edge-agent.service.d", "edge-agent.service.d/inbox.conf"]
    assert (root / "var/lib/edge-agent/results/predictions.jsonl").read_text() == "{}\n"
    assert config.exists()

    run = run_script("install", "--uninstall", "--root", root, "--purge")
    assert run.returncode == 2
    assert "add --yes" in run.stderr
    assert config.exists()
    run = run_script("uninstall", "--root", root, "--purge", "--yes")
    assert run.returncode == 0, run.stderr
    assert [path for path in tree(root) if "edge-agent" in path] == []


@pytest.mark.usefixtures("as_root")
def test_a_purge_does_not_reach_into_what_is_mounted(tmp_path: Path) -> None:
    inbox = tmp_path / "var/lib/edge-agent/inbox"
    inbox.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", inbox], capture_output=True).returncode:
        pytest.skip("this user cannot mount")
    try:
        (inbox / "the-hospitals.dcm").touch()
        run = run_script("uninstall", "--root", tmp_path, "--purge", "--yes")
        assert run.returncode == 1
        assert "unmount it" in run.stderr
        assert (inbox / "the-hospitals.dcm").exists()
    finally:
        subprocess.run(["umount", inbox], check=True)


def test_the_scripts_pass_shellcheck(repository: Path) -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed (sudo apt install shellcheck)")
    check = subprocess.run(
        ["shellcheck", "--external-sources", *(repository / "scripts" / name for name in SCRIPTS)], capture_output=True, text=True
    )
    assert check.stdout == ""


def test_ci_installs_what_these_tests_need(repository: Path) -> None:
    line = next(line for line in (repository / ".ci/run").read_text("utf-8").splitlines() if "apt-get install" in line)
    assert {"python3", "python3-venv", "shellcheck", "systemd"} <= set(line.split())
