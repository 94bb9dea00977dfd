"""Track a run folder without any network, and read back what stands in the stores; each as a program of its own.

``python -m support.tracked log OUT mlflow|wandb...`` (twice) and ``python -m support.tracked read OUT`` (JSON on standard output).
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.no_network import forbid_network
from support.runs import read_page

_BLOCK, _HEADER = 32768, 7


def log(out: Path, kinds: list[str]) -> None:
    """Track OUT/run under the name "first"; killed by the kernel where anything asks for an internet socket."""
    # At its import it asks once whether this machine has an address ::1, which is a socket that sends nothing.
    import urllib3  # noqa: F401

    forbid_network()
    from model_build.commands.options import open_trackers
    from model_build.experiments.tracking.run import track_run

    trackers = open_trackers("" if "mlflow" in kinds else None, "wandb" in kinds, out)
    for _ in range(2):
        print(json.dumps(track_run(out / "run", "first", trackers, read_page)))


def read_mlflow(out: Path) -> dict[str, Any]:
    """Every run of the local store and the latest bundle, by MLflow's own client."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    import mlflow
    from mlflow.tracking import MlflowClient

    mlflow.set_tracking_uri(f"sqlite:///{out / 'mlruns' / 'mlflow.db'}")
    client = MlflowClient()
    found = []
    for run in client.search_runs([entry.experiment_id for entry in client.search_experiments()]):
        losses = client.get_metric_history(run.info.run_id, "measure/loss")
        found.append(
            {
                "name": run.info.run_name,
                "status": run.info.status,
                "seconds": (run.info.end_time - run.info.start_time) / 1000,
                "params": run.data.params,
                "metrics": run.data.metrics,
                "losses": [(entry.step, entry.value) for entry in losses],
                "files": _files(Path(mlflow.artifacts.download_artifacts(run_id=run.info.run_id))),
            }
        )
    versions = client.search_model_versions("name = 'tiny'")
    bundle = Path(mlflow.artifacts.download_artifacts("models:/tiny/1")) if versions else None
    return {
        "runs": found,
        "versions": [{"version": entry.version, "tags": entry.tags} for entry in versions],
        "bundle": _files(bundle) if bundle else {},
    }


def _files(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text("latin-1") for path in folder.rglob("*") if path.is_file()}


def _records(path: Path) -> Iterator[bytes]:
    """The records of a ``.wandb`` file, which is a LevelDB log behind a header of seven bytes."""
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    place, whole = _HEADER, b""
    while place + _HEADER <= len(content):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER:
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        whole += content[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def read_wandb(out: Path) -> list[dict[str, Any]]:
    """Every offline run: name, config, history, summary and the artifacts with their files."""
    from wandb.proto import wandb_internal_pb2

    found = []
    for path in sorted((out / "wandb").glob("offline-run-*/run-*.wandb")):
        run: dict[str, Any] = {"config": {}, "history": [], "summary": {}, "artifacts": {}, "host": "", "complete": False}
        for content in _records(path):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(content)
            match record.WhichOneof("record_type"):
                case "run":
                    run["name"], run["host"] = record.run.display_name, record.run.host
                    run["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
                case "history":
                    run["history"].append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item})
                case "summary":
                    run["summary"] |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.summary.update}
                case "artifact":
                    files = {entry.path: Path(entry.local_path).read_text("latin-1") for entry in record.artifact.manifest.contents}
                    run["artifacts"][record.artifact.name] = {"type": record.artifact.type, "files": files}
                case "exit":
                    run["complete"] = True
        found.append(run)
    return found


if __name__ == "__main__":
    action, folder, *rest = sys.argv[1:]
    if action == "log":
        log(Path(folder), rest)
    else:
        print(json.dumps({"mlflow": read_mlflow(Path(folder)), "wandb": read_wandb(Path(folder))}))
