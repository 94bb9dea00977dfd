"""``model-build experiments``: many builds, one table."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_agent.errors import EdgeAgentError
from model_build.commands.options import DATA, TRACK, WANDB, open_trackers

if TYPE_CHECKING:
    from model_build.experiments.plan import Experiment


@click.command("experiments")
@click.argument("configs", metavar="CONFIG...", nargs=-1, required=True, type=click.Path(path_type=Path))
@DATA
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Common folder: a run folder for each build, and the table.")
@click.option("--base", type=click.Path(path_type=Path), help="The TOML that recipes build on; the shipped cxr-pneumonia if not given.")
@click.option("--verbose", type=click.IntRange(0, 2), help="0 silent, 1 a bar, 2 a line for each epoch, whatever recipes say.")
@TRACK
@WANDB
def command(
    configs: tuple[Path, ...], data: Path, out: Path, base: Path | None, verbose: int | None, track: str | None, wandb: bool
) -> None:
    """Build each CONFIG, one after another, and compare them in OUT/comparison.md.

    A CONFIG is a build's TOML, or a JSON recipe (or a list of recipes) of hyper-parameters on --base. The same command again, after a kill
    too, passes over finished builds and goes on with the others. The exit code is 0 where all finished, else that of the first failure.
    """
    from model_build.experiments.build_process import INTERRUPTED, build_apart
    from model_build.experiments.comparison import compare, write_comparison
    from model_build.experiments.plan import chosen_columns, compared_runs, experiments_folder, read_experiments, run_experiments
    from model_build.experiments.recipes import DEFAULT_BASE
    from model_build.experiments.tracking.run import track_run

    experiments = read_experiments(configs, out, base or DEFAULT_BASE)

    def say(text: str) -> None:
        if verbose != 0:
            click.echo(text, err=True)

    with experiments_folder(out, data):
        trackers = open_trackers(track, wandb, out)

        untracked: list[EdgeAgentError] = []

        def on_finished(experiment: Experiment) -> None:
            try:
                for text in track_run(experiment.folder, experiment.name, trackers):
                    say(text)
            except EdgeAgentError as fault:
                # The build is whole, and the others need not wait for the server: the same command again tracks what is not tracked.
                click.echo(f"error: {experiment.name}: {fault}", err=True)
                untracked.append(fault)

        try:
            failures = run_experiments(experiments, data, build_apart, say, verbose=verbose, on_finished=on_finished)
        except KeyboardInterrupt:
            click.echo("\nStopped. Finished builds and epochs are kept: the same command goes on from there.", err=True)
            sys.exit(INTERRUPTED)
        columns = chosen_columns(experiments)
        click.echo(write_comparison(compare(compared_runs(experiments, failures), columns), columns, out), nl=False)
    say(f"comparison: {out / 'comparison.md'} and {out / 'comparison.json'}")
    codes = [failure.exit_code for failure in failures.values()] + [fault.exit_code for fault in untracked]
    if codes:
        sys.exit(codes[0])
