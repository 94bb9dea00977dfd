"""``model-build label-efficiency``: what each further label buys."""

from __future__ import annotations

import os
from pathlib import Path

import click

from model_build.commands.options import DATA


@click.command("label-efficiency")
@click.argument("config", type=click.Path(path_type=Path))
@DATA
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for table, JSON and figure; a run's report shows them.")
def command(config: Path, data: Path, out: Path) -> None:
    """Show how good the model of CONFIG gets from 10 to 500 labels per class, beside raw pixels."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from model_build.config import load_build_config

    build_config = load_build_config(config)  # before TensorFlow is loaded, which takes a while
    from model_build.data.cohort import read_cohort_images
    from model_build.progress import BarProgress, files_read
    from model_build.studies.label_efficiency.curve import measure_label_efficiency
    from model_build.studies.label_efficiency.result import LABEL_EFFICIENCY

    with BarProgress() as progress:
        images = read_cohort_images(data, build_config, files_read(progress), out / "pixels")
        progress.stage("embedding and fitting", 1)
        measured = measure_label_efficiency(build_config, images)
    click.echo(LABEL_EFFICIENCY.write(measured, out))
