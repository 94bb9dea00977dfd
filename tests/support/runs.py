"""Run folders as a build leaves them, and what stands in for a build: all of it small and written at once."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from edge_agent.errors import DiskFullError
from model_build.experiments.build_process import Failure, Order
from model_build.report.page import Drawing, Page

CONFIG = """\
name = "tiny"
version = "0.0.1"
serial = 3
task = "binary"
[source]
labels = ["NORMAL", "OPACITY"]
positive = ["OPACITY"]
patient_pattern = '^(p\\d+)'
held_out_fraction = 0.3
title = "phantoms"
licence = "ours"
attribution = "none"
[input]
rows = 32
columns = 32
[trunk]
block_count = 3
[train]
epochs = 2
batch_size = 8
learning_rate = 1e-3
head_learning_rate = 4e-3
weight_decay = 1e-2
finish_epochs = 1
finish_learning_rate = 2e-4
[card]
population = "synthetic phantoms"
intended_use = "tests"
limitations = ["Not for real films."]
"""

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"/>'
THUMBNAIL = b"\x89PNG a patient's film"


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def page(*, images: bool, inside: bool = False) -> Page:
    """A report: one figure, and one film where ``images``, or where ``inside`` in a second figure."""
    drawings = [Drawing("ROC curve", SVG)]
    if inside:
        drawings.append(Drawing("film", f"""<svg><image href="{_uri(THUMBNAIL, "png")}"/></svg>""".encode()))
    film = f'<img src="{_uri(THUMBNAIL, "png")}" alt="held-out film">' if images else ""
    return Page(f"<html>{''.join(f'<img src={drawing.uri!r}>' for drawing in drawings)}{film}</html>", drawings)


def read_page(folder: Path) -> Page:
    """The page without images, as ``model-build report`` makes it."""
    return page(images=False)


def estimate(value: float | None) -> dict[str, float | None]:
    return {"value": value, "low": None if value is None else value - 0.02, "high": None if value is None else value + 0.01}


def point(name: str, auc: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "metrics": {"auc": estimate(auc), "sensitivity": estimate(0.97), "specificity": estimate(0.9)},
        "metrics_cross_fitted": {"sensitivity": estimate(0.95), "specificity": estimate(0.88)},
        "confusion": {"true_positive": 1},
    }


def write_run(folder: Path, config_text: str = CONFIG, *, auc: float | None = 0.9, findings: tuple[str, ...] = ("OPACITY",)) -> None:
    """Fill a run folder as a finished build does."""
    (folder / "bundle").mkdir(parents=True, exist_ok=True)
    (folder / "config.toml").write_text(config_text)
    (folder / "environment.json").write_text(json.dumps({"cpu": "slow", "packages": {"numpy": "2"}, "git_commit": "abc"}))
    epochs = [("measure", 1, 0.7), ("measure", 2, 0.5), ("finish", 1, 0.4)]
    (folder / "epochs.jsonl").write_text(
        "".join(json.dumps({"phase": p, "epoch": e, "loss": loss, "elapsed_s": 10.0 * i}) + "\n" for i, (p, e, loss) in enumerate(epochs))
    )
    report = {
        "name": "tiny",
        "version": "0.0.1",
        "serial": 3,
        "measured": {"points": [point(name, auc) for name in findings], "overall": {}, "novel_share_held_out": 0.0},
        "model_size_bytes": 123456,
        "build_seconds": 90.0,
    }
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "report.md").write_text("# report")
    (folder / "report.html").write_text(page(images=True).text)
    (folder / "held_out.npz").write_bytes(b"patients")
    (folder / "bundle" / "manifest.json").write_text('{"name": "tiny"}')
    (folder / "bundle" / "model.tflite").write_bytes(b"TFL3")


class FakeBuilds:
    """Builds that finish, fail or are killed, as their names say; ``orders`` is what was built."""

    def __init__(self) -> None:
        self.orders: list[Order] = []
        self.broken: dict[str, Failure] = {}
        self.killed_at = ""

    def __call__(self, order: Order) -> Failure | None:
        self.orders.append(order)
        if order.folder.name == self.killed_at:
            raise KeyboardInterrupt
        if order.folder.name in self.broken:
            return self.broken[order.folder.name]
        write_run(order.folder, order.config_text, auc=0.9 + 0.01 * len(self.orders))
        return None


def note_cores(order: Order) -> None:
    """A build that notes its cores and its environment."""
    order.folder.mkdir(parents=True, exist_ok=True)
    (order.folder / "cores").write_text(f"{len(os.sched_getaffinity(0))} {os.environ.get('TF_NUM_INTRAOP_THREADS')}")


def fill_disk(order: Order) -> None:
    """A build that ends with an error of ours."""
    raise DiskFullError(f"{order.folder}: no space left")


def divide_by_zero(order: Order) -> None:
    """A build with a bug."""
    raise ZeroDivisionError("by zero")


def need_a_library(order: Order) -> None:
    """A build whose library is not installed."""
    raise ModuleNotFoundError("No module named 'keras'", name="keras.layers")


def vanish(order: Order) -> None:
    """A build that the kernel ends."""
    os.kill(os.getpid(), signal.SIGKILL)


def last_for_ever(order: Order) -> None:
    """A build that notes its process and does not end."""
    order.folder.mkdir(parents=True, exist_ok=True)
    (order.folder / "pid").write_text(str(os.getpid()))
    time.sleep(600)
