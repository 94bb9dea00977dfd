"""``model-build evaluate``: a bundle on labelled images."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("evaluate")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
def command(bundle: Path, data: Path) -> None:
    """Measure BUNDLE on DATA, a folder with one folder of images per label."""
    from model_build.check import evaluate_bundle

    click.echo(evaluate_bundle(bundle, data))
