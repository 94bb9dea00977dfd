"""Runs in Weights & Biases' own format on this machine: nothing goes to the network unless the user's WANDB_MODE says so."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge_agent.errors import StorageError
from model_build.experiments.tracking.run import TrackedRun


class WandbTracker:
    """Weights & Biases as a tracker, offline: ``wandb sync FOLDER`` uploads what it wrote, where somebody wants that.

    Parameters
    ----------
    folder : Path
        Everything is written below FOLDER/wandb: runs, staged artifacts, cache and settings.

    Raises
    ------
    ModuleNotFoundError
        If wandb is not installed.
    """

    kind = "wandb"

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self.store = str(self._folder / "wandb")
        os.environ.setdefault("WANDB_MODE", "offline")
        os.environ.setdefault("WANDB_SILENT", "true")
        # Before the import: wandb otherwise reports its own errors to its makers.
        os.environ["WANDB_ERROR_REPORTING"] = "false"
        for name in ("DATA", "CACHE", "CONFIG"):
            os.environ[f"WANDB_{name}_DIR"] = str(self._folder / "wandb" / f".{name.lower()}")
        with self._faults():
            (self._folder / "wandb").mkdir(parents=True, exist_ok=True)
        import wandb

        self._wandb = wandb

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as fault:
            raise StorageError(f"{self.store}: Weights & Biases could not store the run: {fault}") from fault

    def begin(self, run: TrackedRun) -> str:
        """Draw the id of a run."""
        return secrets.token_hex(4)

    def log(self, run_id: str, run: TrackedRun) -> str:
        """Write parameters, metrics, files and bundle."""
        wandb = self._wandb
        settings = wandb.Settings(
            # No name of machine or user, no list of processes, no code, nothing of the terminal.
            host="",
            x_disable_stats=True,
            x_disable_meta=True,
            x_disable_machine_info=True,
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            console="off",
        )
        with (
            self._faults(),
            wandb.init(
                project=run.model,
                name=run.name,
                id=run_id,
                dir=str(self._folder),
                config=run.parameters,
                settings=settings,
                job_type="build",
            ) as begun,
        ):
            for epoch in run.epochs:
                begun.log(epoch.values | {f"{epoch.phase}/epoch": epoch.epoch})
            begun.summary.update(run.figures)
            for kind, folder in (("report", run.files), ("model", run.bundle)):
                name = run.model if kind == "model" else f"{run.model}-{kind}"
                artifact = wandb.Artifact(name, type=kind, metadata={"version": run.version, "serial": run.serial})
                artifact.add_dir(str(folder))
                begun.log_artifact(artifact)
        return f"Weights & Biases: run {run.name} ({run_id}) below {self.store}"

    def discard(self, run_id: str) -> None:
        """Remove the folder of an unfinished run."""
        for folder in Path(self.store).glob(f"*-{run_id}"):
            shutil.rmtree(folder, ignore_errors=True)
