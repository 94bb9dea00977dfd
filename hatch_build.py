"""Write the commit into every wheel and source archive, so that a program without git beside it can name its build."""

from __future__ import annotations

import runpy
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CommitHook(BuildHookInterface):
    """Adds ``edge_agent/commit.txt``, other than to an editable install, which asks git when somebody wants to know."""

    folder: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Name the file that the build takes in."""
        program = runpy.run_path(str(Path(self.root) / "edge_agent" / "version.py"))
        commit = program["commit_of"](Path(self.root))
        if version == "editable" or not commit:
            return  # without git, a file that a source archive brought with it is packed as it is
        self.folder = tempfile.TemporaryDirectory()
        file = Path(self.folder.name) / program["COMMIT_FILE"]
        file.write_text(f"{commit}\n", "ascii")
        build_data["force_include"][str(file)] = f"edge_agent/{file.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the file once the build has taken it in."""
        if self.folder is not None:
            self.folder.cleanup()
