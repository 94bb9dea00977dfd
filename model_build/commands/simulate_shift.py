"""``model-build simulate-shift``: what is left of a model's figures where images look otherwise than at home."""

from __future__ import annotations

from pathlib import Path

import click

from model_build.commands.options import FOLDER


@click.command("simulate-shift")
@click.argument("run_folders", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--data", type=FOLDER, required=True, help="The data it was trained on.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for table, JSON and figure; the run folder itself if not given.")
def command(run_folders: tuple[Path, ...], data: Path, out: Path | None) -> None:
    """Measure the models of RUN_FOLDERS on their held-out images under shift: intensity, framing, blur, resolution, JPEG.

    Also asks which rule for the operating point and which calibration would have lost least, each under shifts that it has not seen.
    Several run folders are compared with each other in a last table.
    """
    from model_build.data.images import read_images
    from model_build.evaluation.measured_run import read_measured_run
    from model_build.progress import BarProgress, files_read
    from model_build.studies.shift.result import SHIFT, ShiftResult, compare_runs
    from model_build.studies.shift.rule_choice import CHOSEN_ON, compare_choices
    from model_build.studies.shift.simulation import embed_under_shift, measure_shifts
    from model_build.studies.shift.transforms import SHIFTS
    from model_build.tables import render_markdown

    if out is not None and len(run_folders) > 1:
        raise click.UsageError("--out is for one run folder; several are written to themselves")
    runs = {str(folder): read_measured_run(folder) for folder in run_folders}  # before the images are read, which takes a while
    results = {}
    for name, run in runs.items():
        with BarProgress() as progress:
            images = read_images(
                data,
                run.config.source,
                run.config.input,
                files_read(progress),
                task=run.config.task,
            )
            progress.stage("embedding under shift", len(SHIFTS) + 1)
            outputs = embed_under_shift(run, images, progress.advance)
            simulation = measure_shifts(run, outputs)
            progress.stage("comparing choices", len(CHOSEN_ON))
            results[name] = ShiftResult(simulation=simulation, choices=compare_choices(run, outputs, progress.advance))
        text = SHIFT.write(results[name], out if out is not None else Path(name))
        click.echo(f"{name}\n\n{text}" if len(runs) > 1 else text)
    if len(results) > 1:
        click.echo("\n" + render_markdown([compare_runs(results)]))
