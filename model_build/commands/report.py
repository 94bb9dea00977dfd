"""``model-build report``: a run's HTML report, written again."""

from __future__ import annotations

from pathlib import Path

import click

from model_build.commands.options import FOLDER


@click.command("report")
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option("--data", type=FOLDER, help="The data it was trained on: the report then shows the worst mistakes.")
def command(run_folder: Path, data: Path | None) -> None:
    """Write RUN_FOLDER/report.html again, without images unless --data is given."""
    from model_build.report.html import rewrite_html_report

    click.echo(rewrite_html_report(run_folder, data))
