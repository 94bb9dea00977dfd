"""An installation of a model in a process of its own, which can be made to die, or meet a fault, at a chosen point.

    python tests/support/model_installer.py SETTINGS

SETTINGS is one JSON object: ``home``; ``archive``; ``kill_at``, a name of ``KILL_POINTS``; ``faults``, see ``support.faulty_calls``;
``stubs``, dotted names of functions that do nothing; ``trial``, whether the model is tried, which takes most of the time.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cryptography.hazmat.primitives.asymmetric.ed25519  # noqa: F401 - loaded before it is forked

from edge_agent import cli
from edge_agent.commands import model  # noqa: F401 - loaded before it is forked
from edge_agent.deployment import install as installation
from edge_agent.deployment.model_store import ModelStore
from support.agent_process import put_kill_point
from support.faulty_calls import inject, stub
from support.forking import ForkedProcess, ForkServer, serve

KILL_POINTS: dict[str, tuple[Any, str, str, int]] = {
    "while the files are written": (os, "fsync", "before", 3),
    "before the trial": (installation, "try_bundle", "before", 1),
    "before the folder gets its name": (installation, "_place", "before", 1),
    "before the name is on the disk": (installation, "sync_folder", "before", 2),
    "between the folder's name and the pointer": (installation, "_place", "after", 1),
    "with the new pointer beside the old one": (Path, "replace", "before", 1),
    "before the new pointer is on the disk": (Path, "replace", "after", 1),
    "after the pointer": (ModelStore, "write", "after", 1),
    "before old models are removed": (installation, "_remove_leftovers", "before", 2),
}
"""Where the function is, its name, whether to die before or after it, and the how-many-th time."""
NEW_FROM = "before the new pointer is on the disk"
"""From this point on the new model is active, as long as the power does not fail."""
NEW_FOR_GOOD_FROM = "after the pointer"
"""From this point on it is, whatever happens."""


def main(settings: dict[str, Any]) -> int:
    """Install as the settings say; gives the exit code."""
    for name in settings.get("stubs", []):
        stub(name)
    if not settings.get("trial"):
        stub("edge_agent.deployment.install.try_bundle")
    inject(settings.get("faults", []))
    if kill_at := settings.get("kill_at"):
        put_kill_point(*KILL_POINTS[kill_at])
    return cli.main(["model", "install", settings["archive"], "--home", settings["home"]])


_server = ForkServer(Path(__file__))


def start_install(archive: Path, home: Path, **settings: Any) -> ForkedProcess:
    """Start such a process; its standard error can be read."""
    return _server.start({"home": str(home), "archive": str(archive), **settings})


def run_install(archive: Path, home: Path, **settings: Any) -> tuple[int, str]:
    """Run such a process to its end; gives its exit code and what it said on standard error."""
    with start_install(archive, home, **settings) as process:
        _, said = process.communicate(timeout=120)
        assert process.returncode is not None
        return process.returncode, said


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(int(sys.argv[2]), main)
    else:
        sys.exit(main(json.loads(sys.argv[1])))
