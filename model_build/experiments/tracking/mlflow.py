"""Runs in MLflow: a store on this machine, or a server by its address; each bundle is a version of a registered model."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.errors import StorageError
from model_build.experiments.tracking.run import TrackedRun

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_ENVIRONMENT = {
    # Before the import: MLflow otherwise reports its use to its makers.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Standard output is the table's.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # MLflow looks for git to name the commit; the run's environment names it already.
    "GIT_PYTHON_REFRESH": "quiet",
}
_HTTP_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""A server that does not answer is reported after seconds, not after the many minutes of MLflow's own seven tries."""
_BATCH = {"metrics": 1000, "params": 100}
_LONGEST_VALUE = 500


def local_store(folder: Path) -> str:
    """The address of the store in a folder on this machine."""
    return f"sqlite:///{folder.resolve() / 'mlflow.db'}"


class MlflowTracker:
    """MLflow as a tracker.

    Parameters
    ----------
    address : str
        Of a server (``http://...``) or a database (``sqlite:///...``); a path is a folder with a store of its own.

    Raises
    ------
    StorageError
        If there is no such server, or the store cannot be opened: before hours of training, not after.
    ModuleNotFoundError
        If MLflow is not installed.
    """

    kind = "mlflow"

    def __init__(self, address: str) -> None:
        os.environ.update(_ENVIRONMENT)
        for name, value in _HTTP_LIMITS.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._artifacts: str | None = None
        if "://" not in address:
            folder = Path(address)
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as fault:
                raise StorageError(f"{folder}: MLflow's store cannot be made here: {fault.strerror}") from fault
            address, self._artifacts = local_store(folder), (folder.resolve() / "artifacts").as_uri()
        self.store = address
        with self._faults():
            self._client: MlflowClient = MlflowClient(address)
            self._client.search_experiments(max_results=1)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as fault:
            raise StorageError(f"{self.store}: MLflow could not store the run: {fault}") from fault

    def begin(self, run: TrackedRun) -> str:
        """Open a run in the experiment that is named after the model."""
        with self._faults():
            experiment = self._client.get_experiment_by_name(run.model)
            number = experiment.experiment_id if experiment else self._client.create_experiment(run.model, self._artifacts)
            tags = {"mlflow.source.name": "model-build", "mlflow.source.git.commit": run.git_commit}
            begun = self._client.create_run(number, start_time=int(run.started_s * 1000), run_name=run.name, tags=tags)
            return str(begun.info.run_id)

    def log(self, run_id: str, run: TrackedRun) -> str:
        """Log parameters, metrics, files and bundle, and register the bundle as a version of the model."""
        with self._faults():
            self._log_numbers(run_id, run)
            self._client.log_artifacts(run_id, str(run.files))
            self._client.log_artifacts(run_id, str(run.bundle), "bundle")
            _call_unless("RESOURCE_ALREADY_EXISTS", self._client.create_registered_model, run.model)
            version = self._client.create_model_version(
                run.model,
                source=f"runs:/{run_id}/bundle",
                run_id=run_id,
                tags={"bundle_version": run.version, "serial": str(run.serial)},
                description=f"Bundle {run.model} {run.version} (serial {run.serial}) of the run {run.name}",
            )
            self._client.set_terminated(run_id, end_time=int(run.ended_s * 1000))
        return f"MLflow: run {run.name} in {self.store}, registered as models:/{run.model}/{version.version}"

    def _log_numbers(self, run_id: str, run: TrackedRun) -> None:
        from mlflow.entities import Metric, Param

        metrics = [
            Metric(name, value, int((run.started_s + epoch.elapsed_s) * 1000), epoch.epoch)
            for epoch in run.epochs
            for name, value in epoch.values.items()
        ]
        metrics += [Metric(name, value, int(run.ended_s * 1000), 0) for name, value in run.figures.items()]
        params = [Param(name, _short(value)) for name, value in run.parameters.items()]
        for start in range(0, len(metrics), _BATCH["metrics"]):
            self._client.log_batch(run_id, metrics=metrics[start : start + _BATCH["metrics"]])
        for start in range(0, len(params), _BATCH["params"]):
            self._client.log_batch(run_id, params=params[start : start + _BATCH["params"]])

    def discard(self, run_id: str) -> None:
        """Mark an unfinished run as deleted."""
        with self._faults():
            _call_unless("RESOURCE_DOES_NOT_EXIST", self._client.delete_run, run_id)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _call_unless(harmless: str, call: Callable[[str], object], name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        call(name)
    except MlflowException as fault:
        if fault.error_code != harmless:
            raise
