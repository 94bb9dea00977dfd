"""Trackers: what they hold is read back from their stores; nothing goes to the network, and no patient's image anywhere."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.no_network import skip_unless_possible
from support.runs import CONFIG, THUMBNAIL, page, read_page, write_run

from edge_agent.errors import ConfigError
from model_build.experiments.tracking.run import TrackedRun, final_figures, shareable_files, track_run
from model_build.run_folder import read_run


def skip_without(*libraries: str) -> None:
    """Skip a test where the extra track is not installed."""
    for name in libraries:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: the extra track brings it")


def run(repository: Path, home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python with next to no environment: MLflow's telemetry would see pytest or CI there and be silent of its own accord."""
    home.mkdir(exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": f"{repository}:{repository / 'tests'}"}
    return subprocess.run(
        [sys.executable, *map(str, arguments)], env=environment, cwd=home, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> dict[str, Any]:
    """A run given to MLflow and W&B, twice, and what both then hold."""
    skip_without("mlflow", "wandb")
    skip_unless_possible()
    folder = tmp_path_factory.mktemp("tracked")
    out, home = folder / "out", folder / "home"
    write_run(out / "run")
    logged = run(repository, home, "-m", "support.tracked", "log", out, "mlflow", "wandb")
    assert logged.returncode == 0, logged.stderr
    done = run(repository, home, "-m", "support.tracked", "read", out)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"said": [json.loads(line) for line in logged.stdout.splitlines()], "out": out, "home": home}


def test_mlflow_holds_parameters_metrics_files_and_the_bundle(stores: dict[str, Any]) -> None:
    (tracked,) = stores["mlflow"]["runs"]
    assert (tracked["name"], tracked["status"], tracked["seconds"]) == ("first", "FINISHED", 90.0)
    assert (tracked["params"]["train.learning_rate"], tracked["params"]["environment.cpu"]) == ("0.001", "slow")
    assert tracked["losses"] == [[1, 0.7], [2, 0.5]]
    metrics = tracked["metrics"]
    assert (metrics["auc"], metrics["auc_low"], metrics["auc_high"]) == (0.9, 0.88, 0.91)
    assert metrics["cross_fitted/sensitivity"] == 0.95
    assert tracked["files"].keys() == {
        "config.toml",
        "environment.json",
        "epochs.jsonl",
        "report.json",
        "report.md",
        "report.html",
        "figures/roc-curve.svg",
        "bundle/manifest.json",
        "bundle/model.tflite",
    }
    assert tracked["files"]["config.toml"] == CONFIG
    assert [version["tags"] for version in stores["mlflow"]["versions"]] == [{"bundle_version": "0.0.1", "serial": "3"}]
    # What is registered is the bundle itself.
    assert stores["mlflow"]["bundle"] == {"manifest.json": '{"name": "tiny"}', "model.tflite": "TFL3"}


def test_wandb_holds_the_same_offline(stores: dict[str, Any]) -> None:
    (tracked,) = stores["wandb"]
    assert (tracked["name"], tracked["complete"]) == ("first", True)
    assert (tracked["config"]["train.learning_rate"], tracked["config"]["environment.cpu"]) == (0.001, "slow")
    assert [entry["measure/loss"] for entry in tracked["history"] if "measure/loss" in entry] == [0.7, 0.5]
    assert (tracked["summary"]["auc"], tracked["summary"]["auc_low"]) == (0.9, 0.88)
    report, model = tracked["artifacts"]["tiny-report"], tracked["artifacts"]["tiny"]
    assert (model["type"], model["files"]) == ("model", {"manifest.json": '{"name": "tiny"}', "model.tflite": "TFL3"})
    assert {"report.html", "figures/roc-curve.svg", "config.toml"} <= report["files"].keys()
    assert tracked["host"] == ""


def test_nothing_is_tracked_twice_and_no_image_leaves_the_data(stores: dict[str, Any]) -> None:
    first, second = stores["said"]
    assert [said.split(" ")[:3] for said in first] == [["MLflow:", "run", "first"], ["Weights", "&", "Biases:"]]
    assert first[0].endswith("mlruns/mlflow.db, registered as models:/tiny/1")
    assert second == []
    everything = json.dumps([stores["mlflow"], stores["wandb"]])
    assert "image/png" not in everything
    assert "patient's film" not in everything
    assert THUMBNAIL not in b"".join(path.read_bytes() for path in (stores["out"] / "wandb").rglob("*") if path.is_file())
    # Nothing is left in the user's own folders.
    assert [path for path in stores["home"].rglob("*") if path.is_file()] == []


def test_the_filter_kills_who_asks_for_the_network(repository: Path, tmp_path: Path) -> None:
    skip_unless_possible()
    program = "from support.no_network import forbid_network; forbid_network(); import socket; socket.socket(socket.{})"
    assert run(repository, tmp_path, "-c", program.format("AF_UNIX")).returncode == 0
    assert run(repository, tmp_path, "-c", program.format("AF_INET")).returncode == -signal.SIGSYS
    assert run(repository, tmp_path, "-c", program.format("AF_INET6")).returncode == -signal.SIGSYS


class FakeTracker:
    """Holds runs by their id; stops in the middle where told to."""

    kind, store = "fake", "here"

    def __init__(self) -> None:
        self.held: dict[str, str] = {}
        self.breaks = False
        self._count = 0

    def begin(self, run: TrackedRun) -> str:
        self._count += 1
        self.held[str(self._count)] = "begun"
        return str(self._count)

    def log(self, run_id: str, run: TrackedRun) -> str:
        if self.breaks:
            raise KeyboardInterrupt
        self.held[run_id] = "logged"
        return f"run {run_id}"

    def discard(self, run_id: str) -> None:
        del self.held[run_id]


def test_a_run_that_was_cut_short_is_given_again_and_its_remains_removed(tmp_path: Path) -> None:
    write_run(tmp_path)
    tracker = FakeTracker()
    tracker.breaks = True
    with pytest.raises(KeyboardInterrupt):
        track_run(tmp_path, "a", [tracker], read_page)
    assert tracker.held == {"1": "begun"}
    tracker.breaks = False
    assert track_run(tmp_path, "a", [tracker], read_page) == ["run 2"]
    assert tracker.held == {"2": "logged"}
    assert track_run(tmp_path, "a", [tracker], read_page) == []
    # Built again into the same folder: another run, and the older one stays.
    write_run(tmp_path, auc=0.95)
    assert track_run(tmp_path, "a", [tracker], read_page) == ["run 3"]
    assert tracker.held == {"2": "logged", "3": "logged"}
    other = FakeTracker()
    other.store = "there"
    assert track_run(tmp_path, "a", [other], read_page) == ["run 1"]
    assert track_run(tmp_path, "a", [other, tracker], read_page) == []


@pytest.mark.parametrize("inside", [False, True])
def test_a_page_with_a_film_is_never_given_away(tmp_path: Path, inside: bool) -> None:
    write_run(tmp_path)
    tracker = FakeTracker()
    with pytest.raises(ConfigError, match="nothing was tracked"):
        track_run(tmp_path, "a", [tracker], lambda _: page(images=not inside, inside=inside))
    assert tracker.held == {}
    # The report of the run folder, which shows films, stays as it was.
    with shareable_files(tmp_path, read_page) as files:
        assert "image/png" not in (files / "report.html").read_text()
        assert not (files / "held_out.npz").exists()
    assert "image/png" in (tmp_path / "report.html").read_text()


def test_figures_that_could_not_be_computed_are_left_out_and_findings_keep_apart(tmp_path: Path) -> None:
    write_run(tmp_path, auc=None, findings=("Mass", "Hernia | rare"))
    figures = final_figures(read_run(tmp_path).report)
    assert "Mass/auc" not in figures
    assert figures["Mass/sensitivity"] == 0.97
    assert figures["Hernia _ rare/cross_fitted/specificity"] == 0.88


@pytest.mark.parametrize(
    ("setup", "arguments", "code", "message"),
    [
        ("import sys; sys.modules['mlflow'] = None", ("--track",), 10, "mlflow is not installed: get what it belongs to with  pip install"),
        ("import sys; sys.modules['wandb'] = None", ("--wandb",), 10, "wandb is not installed: get what it belongs to with  pip install"),
        ("", ("--track", "http://127.0.0.1:9"), 40, "http://127.0.0.1:9: MLflow could not store the run"),
        ("", ("--track", "more.toml"), 2, "more.toml is a config, not a store; put --track behind the configs"),
    ],
)
def test_a_store_that_cannot_be_opened_is_said_before_the_first_build(
    repository: Path, tmp_path: Path, setup: str, arguments: tuple[str, ...], code: int, message: str
) -> None:
    if code == 40:
        skip_without("mlflow")
    (tmp_path / "tiny.toml").write_text(CONFIG)
    program = f"{setup}\nimport sys\nfrom model_build.cli import main\nsys.exit(main())"
    # The server's address is tried for some seconds: once is enough.
    for name in ("experiments",) if code == 40 else ("experiments", "train"):
        folder = tmp_path / name
        done = run(
            repository, tmp_path / "home", "-c", program, name, tmp_path / "tiny.toml", "--data", tmp_path, "--out", folder, *arguments
        )
        assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
        assert message in done.stderr
        assert not (folder / "tiny").exists()
        assert not (folder / "config.toml").exists()
