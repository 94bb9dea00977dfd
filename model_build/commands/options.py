"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from model_build.experiments.tracking.run import Tracker

_UNNAMED = ""
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
"""The type of an existing folder."""
DATA = click.option("--data", type=FOLDER, required=True, help="The data set, in the layout of the config.")


def _no_config(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and value.endswith((".toml", ".json")):
        raise click.BadParameter(f"{value} is a config, not a store; put --track behind the configs", context, parameter)
    return value


TRACK = click.option(
    "--track",
    metavar="[URI]",
    is_flag=False,
    flag_value=_UNNAMED,
    callback=_no_config,
    help="Log to MLflow: a server or a database by its URI, a folder, else MLFLOW_TRACKING_URI, else OUT/mlruns.",
)
WANDB = click.option("--wandb", is_flag=True, help="Log to Weights & Biases' files in OUT/wandb; offline unless WANDB_MODE says otherwise.")


def open_trackers(track: str | None, wandb: bool, out: Path) -> list[Tracker]:
    """The trackers that the options ask for.

    Raises
    ------
    StorageError
        If one cannot be opened.
    ModuleNotFoundError
        If its library is not installed.
    """
    trackers: list[Tracker] = []
    if track is not None:
        from model_build.experiments.tracking.mlflow import MlflowTracker

        trackers.append(MlflowTracker(track or os.environ.get("MLFLOW_TRACKING_URI", "") or str(out / "mlruns")))
    if wandb:
        from model_build.experiments.tracking.wandb import WandbTracker

        trackers.append(WandbTracker(out))
    return trackers
