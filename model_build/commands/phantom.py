"""``model-build phantom``: synthetic chest radiographs."""

from __future__ import annotations

from pathlib import Path

import click

from model_build.data.phantom.draw import save_phantom


@click.command("phantom")
@click.argument("out_dir", type=click.Path(path_type=Path, file_okay=False))
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True, help="How many patients to draw.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The first patient; the others follow.")
@click.option("--opacities", type=click.IntRange(min=0), default=0, show_default=True, help="Consolidations in each pair of lungs.")
@click.option("--format", "suffix", type=click.Choice(["png", "jpg"]), default="png", show_default=True)
def command(out_dir: Path, count: int, seed: int, opacities: int, suffix: str) -> None:
    """Draw synthetic chest radiographs into OUT_DIR, for tests and demonstrations."""
    out_dir.mkdir(parents=True, exist_ok=True)
    for number in range(seed, seed + count):
        path = out_dir / f"phantom-{number:04d}.{suffix}"
        save_phantom(path, number, opacity_count=opacities)
        click.echo(path)
