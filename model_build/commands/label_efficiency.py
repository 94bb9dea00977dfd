"""``model-build label-efficiency``: what each further label buys."""

from __future__ import annotations

import os
from pathlib import Path

import click


@click.command("label-efficiency")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="The data set, in the layout that CONFIG names.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the table, its JSON and the figure.")
def command(config: Path, data: Path, out: Path) -> None:
    """Show how good the model of CONFIG gets from 10 to 500 labels per class, beside raw pixels."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from model_build.config import load_build_config
    from model_build.data.images import read_images
    from model_build.label_efficiency import measure_label_efficiency, render_table, write_label_efficiency
    from model_build.progress import BarProgress

    build_config = load_build_config(config)
    with BarProgress() as progress:
        progress.stage("reading images", 1)
        images = read_images(
            data,
            build_config.source,
            build_config.input,
            lambda done, total: progress.advance(done, f"{done} of {total} files"),
            task=build_config.task,
        )
        progress.stage("embedding and fitting", 1)
        points = measure_label_efficiency(build_config, images)
    write_label_efficiency(points, out)
    click.echo(render_table(points))
