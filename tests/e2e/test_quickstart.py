"""The first command of the README, in a copy of the tree."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

QUICKSTART = "scripts/quickstart"


@pytest.fixture
def copy(tmp_path: Path, repository: Path) -> Path:
    """The tree as a clone would hold it, with what is not committed yet, and without .venv."""
    if not (repository / "edge_agent" / "models" / "cxr-pneumonia" / "manifest.json").is_file():
        pytest.skip("the bundle that ships is not there")
    tree = tmp_path / "edge-agent"
    ignored = shutil.ignore_patterns(
        ".git", ".venv*", "*_cache", "__pycache__", ".hypothesis", "demo", "runs", "*.egg-info", "edge-agent-home"
    )
    shutil.copytree(repository, tree, ignore=ignored)
    return tree


def borrow_environment(tree: Path) -> None:
    """Give the copy a .venv without a download: this one's packages, this tree's code, and the stamp that says it is complete."""
    venv.create(tree / ".venv", with_pip=False, symlinks=True)
    own = next(path for path in (tree / ".venv" / "lib").glob("python3*/site-packages"))
    packages = "\n".join(path for path in sys.path if path.endswith("site-packages"))
    # The tree first: this environment has an editable install of another checkout.
    (own / "borrowed.pth").write_text(f"{tree}\n{packages}\n")
    program = tree / ".venv" / "bin" / "edge-agent"
    program.write_text(f"#!{tree}/.venv/bin/python\nimport sys\nfrom edge_agent.cli import main\nsys.exit(main())\n")
    program.chmod(0o755)
    stamp = 'echo "$(sha256sum <pyproject.toml) $PWD" >.venv/.installed-demo'
    subprocess.run(["bash", "-c", stamp], cwd=tree, check=True)


def run_quickstart(tree: Path) -> subprocess.CompletedProcess[str]:
    foreign = ("VIRTUAL_ENV", "PYTHONPATH", "EDGE_AGENT_HOME", "COLUMNS")
    environment = {name: value for name, value in os.environ.items() if name not in foreign}
    return subprocess.run([tree / QUICKSTART], cwd="/", env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def check_demo(tree: Path, run: subprocess.CompletedProcess[str]) -> None:
    assert run.returncode == 0, run.stderr
    records = {
        record["path"]: record
        for record in map(json.loads, (tree / "demo" / "results" / "predictions.jsonl").read_text("utf-8").splitlines())
    }
    assert records.keys() == {"adult-chest.dcm", "leg.dcm", "phantom-0001.jpg", "phantom-0002.jpg", "cut-short.jpg"}
    for name in ("adult-chest.dcm", "leg.dcm"):
        assert (records[name]["decision"], records[name]["reason"]["code"]) == ("review", "novel"), records[name]
    assert (records["cut-short.jpg"]["status"], records["cut-short.jpg"]["reason"]["code"]) == ("rejected", "truncated")
    assert {path.name for path in (tree / "demo" / "done").iterdir()} == records.keys() - {"cut-short.jpg"}
    for word in ("unlike the images", "ends too early", *records, "demo/results", ".venv/bin/edge-agent run --home demo"):
        assert word in run.stdout


def test_it_classifies_the_demo_and_can_be_run_again(copy: Path) -> None:
    borrow_environment(copy)
    check_demo(copy, run_quickstart(copy))
    (copy / "demo" / "inbox" / "left-behind.txt").write_text("from the first run")
    check_demo(copy, run_quickstart(copy))


def test_it_does_not_pull_the_folder_from_under_a_running_agent(copy: Path) -> None:
    """1. An agent was left running on demo/. 2. The command is run again. Result: a message, and demo/ as it was."""
    borrow_environment(copy)
    (copy / "demo" / "state").mkdir(parents=True)
    with (copy / "demo" / "state" / "agent.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = run_quickstart(copy)
    assert run.returncode == 1
    assert "an agent is running on the folder demo" in run.stderr
    assert (copy / "demo" / "state" / "agent.lock").exists()


def test_a_python_that_is_too_old_is_named_with_the_way_out(copy: Path, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "dirname", "env", "sha256sum", "cat"):
        (programs / name).symlink_to(str(shutil.which(name)))
    (programs / "python3").write_text("#!/bin/sh\nexit 1\n")
    (programs / "python3").chmod(0o755)
    run = subprocess.run([copy / QUICKSTART], env={"PATH": str(programs)}, capture_output=True, text=True)
    assert run.returncode == 1
    assert "Python 3.11 or newer is needed" in run.stderr
    assert "sudo apt install python3 python3-venv" in run.stderr
    assert not (copy / ".venv").exists()


def test_the_documents_show_what_it_prints(copy: Path) -> None:
    """Up to the order of the images, which two workers decide, and the digits, which another processor's kernels may round differently."""

    def shape(text: str) -> list[str]:
        return sorted(re.sub(r"\d+\.\d+", "#", line.rstrip()) for line in text.strip().splitlines())

    def shown(document: str, mark: str) -> list[str]:
        found = re.search(rf"<!-- {mark} -->\n```text\n(.*?)\n```\n", (copy / document).read_text("utf-8"), re.DOTALL)
        assert found is not None
        return shape(found.group(1))

    borrow_environment(copy)
    printed = shape(run_quickstart(copy).stdout)
    assert shown("docs/use.md", "output of scripts/quickstart") == printed
    part = shown("README.md", "from the output of scripts/quickstart")
    assert len(part) >= 3
    assert not set(part) - set(printed)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_installs_itself_on_a_fresh_machine_without_tensorflow(copy: Path) -> None:
    check_demo(copy, run_quickstart(copy))
    listing = subprocess.run([copy / ".venv" / "bin" / "python", "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "ai-edge-litert" in listing
    assert "tensorflow" not in listing
