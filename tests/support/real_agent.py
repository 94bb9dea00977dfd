"""The agent as it ships, with the model that ships, in a process that is started the way a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support.agents import LIMIT_S, wait_until

COMMAND = (sys.executable, "-m", "edge_agent.cli")


def edge_agent(
    *arguments: str | Path, environment: Mapping[str, str] | None = None, timeout_s: float = LIMIT_S
) -> subprocess.CompletedProcess[str]:
    """Run a command of ``edge-agent`` to its end."""
    command = [*COMMAND, *map(str, arguments)]
    given = {**os.environ, **(environment or {})}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False, env=given)


class RealAgent(subprocess.Popen[bytes]):
    """``edge-agent run`` on a home folder, with a short settle time; what it says goes into a file.

    Parameters
    ----------
    folder : Path
        Where its configuration and its log are put: not the disk that is to fail.
    home : Path
        Its home folder.
    settle_s, min_free_bytes
        As in the configuration.
    extra : str
        More of the configuration, in TOML.
    options : str
        More arguments.
    environment : mapping
        Added to this process's own.
    """

    def __init__(
        self,
        folder: Path,
        home: Path,
        *options: str,
        settle_s: float = 0.12,
        min_free_bytes: int = 0,
        extra: str = "",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = folder / "agent.log"
        config = folder / "agent.toml"
        config.write_text(f"[intake]\nsettle_time_s = {settle_s}\n[storage]\nmin_free_bytes = {min_free_bytes}\n{extra}", "utf-8")
        with self.log.open("ab") as log:
            super().__init__(
                [*COMMAND, "run", "--config", str(config), "--home", str(home), *options],
                stdout=subprocess.DEVNULL,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )

    def wait_until_started(self, times: int = 1) -> None:
        """Wait until its log says so often that it started."""
        wait_until(lambda: self.poll() is not None or self.log.read_text("utf-8").count(" started ") >= times)
        assert self.poll() is None, self.log.read_text("utf-8")

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.kill()
        super().__exit__(kind, None, None)
