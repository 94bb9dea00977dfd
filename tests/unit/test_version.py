"""Which build a program is: told from git in a checkout, from a file in a wheel, and honestly not at all where neither is there."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_agent.version import commit_of, describe_build, program_version

Checkout = Callable[[str], Path]


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=T", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false")
    return subprocess.run(["git", "-C", folder, *who, *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, repository: Path) -> Path:
    """What a wheel is made of, committed in a repository of its own."""
    if not shutil.which("git"):
        pytest.skip("git is not installed")
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE"):
        shutil.copy(repository / name, folder)
    for name in ("edge_agent", "model_build"):
        shutil.copytree(repository / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "models"))
    git(folder, "init", "--quiet")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "All")
    return folder


def shown_by(place: Path, program: str = "edge_agent.cli") -> str:
    """Ask the program that stands in ``place`` for its version, as a user would."""
    code = f"import sys; sys.path.insert(0, {str(place)!r}); import {program} as program; program.cli(prog_name='edge-agent')"
    done = subprocess.run([sys.executable, "-c", code, "--version"], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_this_checkout_names_the_version_of_its_project(repository: Path) -> None:
    version = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert program_version() == version
    assert re.fullmatch(rf"{re.escape(version)} \(commit ([0-9a-f]{{12}}(\+changes)?|unknown)\)", describe_build())


def test_a_checkout_names_its_commit_and_whether_it_was_changed(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert commit_of(checkout) == commit
    assert shown_by(checkout) == f"edge-agent {program_version()} (commit {commit[:12]})"
    assert shown_by(checkout, "model_build.cli").endswith(f"(commit {commit[:12]})")
    (checkout / "edge_agent" / "more.py").write_text("")
    assert commit_of(checkout) == f"{commit}+changes"
    assert shown_by(checkout).endswith(f"(commit {commit[:12]}+changes)")


def test_a_copy_without_git_says_that_nobody_knows(checkout: Path) -> None:
    """Also one that lies inside of another program's repository."""
    copy = checkout / "vendor" / "edge-agent"
    copy.mkdir(parents=True)
    for name in ("edge_agent", "pyproject.toml"):
        (checkout / name).rename(copy / name)
    assert commit_of(copy) == ""
    assert shown_by(copy).endswith("(commit unknown)")


def test_a_checkout_of_somebody_else_is_asked_too_and_nothing_is_left_in_it(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``sudo scripts/install`` in a technician's checkout: git refuses the repositories of others unless told."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    with pytest.raises(subprocess.CalledProcessError):
        git(checkout, "rev-parse", "HEAD")
    before = (checkout / ".git" / "index").stat().st_mtime_ns
    (checkout / "pyproject.toml").touch()
    assert len(commit_of(checkout)) == 40
    assert (checkout / ".git" / "index").stat().st_mtime_ns == before


@pytest.mark.parametrize("edited", [False, True])
def test_a_wheel_brings_its_commit_with_it(checkout: Path, tmp_path: Path, edited: bool) -> None:
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip('hatchling is not installed (extra "dev")')
    commit = git(checkout, "rev-parse", "HEAD")
    if edited:
        (checkout / "edge_agent" / "more.py").write_text("")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--wheel-dir", tmp_path)
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, checkout], check=True)
    [wheel] = tmp_path.glob("edge_agent-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    assert shown_by(tmp_path / "installed") == f"edge-agent {program_version()} (commit {commit[:12]}{'+changes' if edited else ''})"
    assert not (checkout / "edge_agent" / "commit.txt").exists()


def test_git_is_asked_only_for_the_version() -> None:
    code = "import edge_agent.cli, sys; print(*{'subprocess', 'edge_agent.version'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
