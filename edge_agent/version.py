"""Which build of the program this is: its version, and the commit that it was made from.

Standard library only, and nothing of ours: ``hatch_build.py`` runs this file while a wheel is built.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import tomllib
from pathlib import Path

COMMIT_FILE = "commit.txt"
"""Beside this file in a wheel, where ``hatch_build.py`` puts it; never in a checkout, which asks git."""

_PACKAGE = Path(__file__).resolve().parent
_SOURCES = ("edge_agent", "model_build", "pyproject.toml")
_SHOWN_DIGITS = 12
_GIT_TIMEOUT_S = 10


def commit_of(checkout: Path) -> str:
    """Ask git for the commit of a checkout.

    Parameters
    ----------
    checkout : Path
        The folder that holds ``.git``; a repository around it is another program's, and is not asked.

    Returns
    -------
    str
        40 hex digits, with ``+changes`` behind them where the sources differ from the commit; empty where there is no checkout or no git.
    """
    if not (checkout / ".git").exists():
        return ""
    # Root may install from a checkout of somebody else; git must neither refuse that nor leave files of root's in it.
    git = ["git", "--no-optional-locks", "-c", f"safe.directory={checkout}", "-C", str(checkout)]
    try:
        commit, changes = (
            subprocess.run([*git, *arguments], capture_output=True, text=True, check=True, timeout=_GIT_TIMEOUT_S).stdout.strip()  # noqa: S603
            for arguments in (("rev-parse", "HEAD"), ("status", "--porcelain", "--", *_SOURCES))
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return f"{commit}+changes" if changes else commit


def build_commit() -> str:
    """Tell the commit that this program was made from, as :func:`commit_of` does; empty where nobody knows it."""
    try:
        return (_PACKAGE / COMMIT_FILE).read_text("ascii").strip()
    except FileNotFoundError:
        return commit_of(_PACKAGE.parent)


def program_version() -> str:
    """Tell the version: of a checkout as its ``pyproject.toml`` has it now, else as the package was installed."""
    try:
        project = tomllib.loads((_PACKAGE.parent / "pyproject.toml").read_text("utf-8")).get("project", {})
    except FileNotFoundError:
        project = {}
    if project.get("name") != "edge-agent":  # beside an installed package stands nothing, or another's
        return importlib.metadata.version("edge-agent")
    version: str = project["version"]
    return version


def describe_build() -> str:
    """Say version and commit in words: ``0.2.0 (commit 1b5c2f0a9d3e)``, ``+changes`` behind an edited one, or ``commit unknown``."""
    commit, mark, _ = build_commit().partition("+")
    return f"{program_version()} (commit {commit[:_SHOWN_DIGITS] or 'unknown'}{mark and '+changes'})"
