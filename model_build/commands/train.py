"""``model-build train``: one build, from images to bundle."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from model_build.commands.options import DATA, TRACK, WANDB, open_trackers

if TYPE_CHECKING:
    from edge_agent.inference.bundle import Bundle
    from model_build.build import Build
    from model_build.report.result import Report

INTERRUPTED = 130


@click.command("train")
@click.argument("config", type=click.Path(path_type=Path))
@DATA
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; runs/NAME if not given.")
@click.option("--resume", is_flag=True, help="Go on from the last finished epoch in the run folder.")
@click.option(
    "--teacher", type=click.Path(path_type=Path), help="Finished run folder to learn from, for a CONFIG with [train.distillation]."
)
@TRACK
@WANDB
def command(config: Path, data: Path, out: Path | None, resume: bool, teacher: Path | None, track: str | None, wandb: bool) -> None:
    """Train what CONFIG says and write OUT/bundle, OUT/report.html, OUT/report.md and OUT/report.json."""
    # TensorFlow writes its start-up lines past Python; only its errors are for the user.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from model_build.config import load_build_config
    from model_build.progress import BarProgress

    build_config = load_build_config(config)
    run_folder = out if out is not None else Path("runs") / build_config.name
    # A store that cannot be opened ends the command before hours of training.
    trackers = open_trackers(track, wandb, run_folder)
    from model_build.build import Build
    from model_build.environment import environment
    from model_build.experiments.tracking.run import track_run
    from model_build.report.markdown import summary_lines
    from model_build.run_folder import ENVIRONMENT, prepare_out, write_json

    going_on = prepare_out(run_folder, config.read_text(encoding="utf-8"), resume=resume, warn=lambda text: click.echo(text, err=True))
    write_json(run_folder / ENVIRONMENT, environment())
    with BarProgress() as progress:
        built, bundle = _run_or_tell_how_to_resume(
            Build(build_config, data, run_folder, progress, teacher=teacher), config, data, run_folder, going_on
        )
    for line in summary_lines(built):
        click.echo(line)
    click.echo(f"bundle: {bundle.directory}  ({built.model_size_bytes:,} bytes of model)")
    click.echo(f"report: {run_folder / 'report.html'}  (shows images of DATA: it stays with them)")
    for text in track_run(run_folder, build_config.name, trackers):
        click.echo(text)


def _run_or_tell_how_to_resume(build: Build, config: Path, data: Path, out: Path, resume: bool) -> tuple[Report, Bundle]:
    try:
        return build.run(resume=resume)
    except KeyboardInterrupt:
        learning = f" --teacher {build.teacher}" if build.teacher is not None else ""
        command = f"model-build train {config} --data {data} --out {out}{learning} --resume"
        kept = "The last finished epoch is kept." if build.checkpoint.exists() else "No epoch was finished yet."
        click.echo(f"\nStopped. {kept} Go on with:  {command}", err=True)
        sys.exit(INTERRUPTED)
