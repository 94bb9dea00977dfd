"""Real builds in a row, on synthetic films: killed, gone on with, compared and tracked."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.films import save_film
from support.runs import CONFIG

from edge_agent.inference.bundle import load_bundle

pytestmark = pytest.mark.slow

GRID = [
    {"epochs": 1, "num_workers": 1, "verbose": 0},
    {"epochs": 3, "verbose": 2, "optimizer": "sgd", "learning_rate": 0.01, "loss": "focal", "augmentation": "none", "shuffle": False},
    {"epochs": 1, "encoder": "tiny", "validation_split": 0.4, "batch_size": 4, "metrics": ["auc", "balanced_accuracy"]},
]


@pytest.fixture(scope="module", autouse=True)
def _needs() -> None:
    for name in ("tensorflow", "mlflow", "wandb"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("films")
    for label, opacity_count, first in (("NORMAL", 0, 0), ("OPACITY", 3, 100)):
        (root / label).mkdir()
        for number in range(20):
            path = root / label / f"p{first + number // 2}_{number}.png"
            save_film(path, first + number, opacity_count=opacity_count)
    return root


@pytest.mark.timeout(3600)
def test_builds_in_a_row_survive_a_kill(films: Path, tmp_path: Path, repository: Path) -> None:
    """
    1. Three builds are started; the command is killed by SIGKILL after the first epoch of the second.
    2. The same command again, with both trackers.

    Result: the first is passed over, the second goes on from its epoch, all three are compared and tracked, and each bundle runs.
    """
    (tmp_path / "base.toml").write_text(CONFIG)
    (tmp_path / "grid.json").write_text(json.dumps(GRID))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "model_build", "experiments", "grid.json", "--data", str(films), "--out", str(out)]
    command += ["--base", "base.toml", "--track", "--wandb"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "WANDB"))}
    environment["PYTHONPATH"] = f"{repository}:{repository / 'tests'}"
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 1800
    try:
        while not (out / "grid-2" / "checkpoint.npz").exists():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    first_report = (out / "grid-1" / "report.json").read_bytes()
    assert not (out / "grid-2" / "report.json").exists()
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stderr
    assert "[1/3] grid-1: finished earlier" in done.stderr
    assert (out / "grid-1" / "report.json").read_bytes() == first_report
    assert done.stdout == (out / "comparison.md").read_text()
    assert done.stdout.startswith("| build | epochs | batch_size | learning_rate | optimizer | loss | encoder | auc |")
    assert "3 of 3 builds finished" in done.stdout
    for name, count in (("grid-1", 1), ("grid-2", 3), ("grid-3", 1)):
        folder = out / name
        load_bundle(folder / "bundle")
        lines = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
        assert [line["epoch"] for line in lines if line["phase"] == "measure"] == [*range(1, count + 1)]
        assert json.loads((folder / "environment.json").read_text())["threads"] == (1 if name == "grid-1" else None)
    read = subprocess.run(
        [sys.executable, "-m", "support.tracked", "read", str(out)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert read.returncode == 0, read.stderr
    stores = json.loads(read.stdout)
    tracked = {entry["name"]: entry for entry in stores["mlflow"]["runs"]}
    assert tracked.keys() == {"grid-1", "grid-2", "grid-3"} == {entry["name"] for entry in stores["wandb"]}
    assert len(stores["mlflow"]["versions"]) == 3
    assert tracked["grid-2"]["params"]["train.optimizer"] == "sgd"
    assert [step for step, _ in tracked["grid-2"]["losses"]] == [1, 2, 3]
    assert tracked["grid-3"]["metrics"]["auc_low"] <= tracked["grid-3"]["metrics"]["auc"] <= tracked["grid-3"]["metrics"]["auc_high"]
    figures = [name for name in tracked["grid-1"]["files"] if name.startswith("figures/")]
    assert len(figures) >= 5
    assert "image/png" not in read.stdout
    # Once more: nothing is left to do.
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert (again.returncode, again.stdout) == (0, done.stdout), again.stderr
    assert "MLflow" not in again.stderr
