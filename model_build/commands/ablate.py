"""``model-build ablate``: what each number format, pruning, and each kind of augmentation is worth."""

from __future__ import annotations

import os
from pathlib import Path

import click

from model_build.commands.options import DATA


@click.group("ablate")
def command() -> None:
    """Take a model apart: what a number format, pruned weights or an augmentation is worth."""
    # TensorFlow writes its start-up lines past Python; only its errors are for the user.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


@command.command("precision")
@click.argument("run_folder", type=click.Path(path_type=Path))
@DATA
@click.option("--out", type=click.Path(path_type=Path), help="Folder for table, JSON, figure and converted models; RUN_FOLDER/precision.")
@click.option("--epochs", type=click.IntRange(min=1), help="Fine-tuning of each pruned model; half of the run's own epochs if not given.")
def precision(run_folder: Path, data: Path, out: Path | None, epochs: int | None) -> None:
    """Compare float32, float16, dynamic range, int8 (per tensor, per channel) and pruned int8 on the trunk that RUN_FOLDER measured.

    The pruned weights are kept in OUT: after a kill, the same command resumes after the last of them.
    """
    from model_build.config import load_build_config
    from model_build.data.cohort import read_cohort
    from model_build.progress import BarProgress, files_read
    from model_build.studies.precision.ablation import default_epochs, measure_precision, trunk_path
    from model_build.studies.precision.result import PRECISION

    config = load_build_config(run_folder / "config.toml")
    trunk_path(run_folder, config)  # before the images are read, which takes a while
    folder = out if out is not None else run_folder / "precision"
    folder.mkdir(parents=True, exist_ok=True)
    with BarProgress() as progress:
        images, cohort = read_cohort(data, config, files_read(progress), run_folder / "pixels")
        found = measure_precision(
            run_folder,
            images,
            cohort,
            folder,
            epochs=epochs or default_epochs(config),
            on_stage=progress.stage,
            on_step=lambda step: progress.advance(
                step.epoch * step.batches_per_epoch + step.batch, f"epoch {step.epoch + 1}, loss {step.loss:.3f}"
            ),
        )
    click.echo(PRECISION.write(found, folder))
    click.echo(f"table, numbers, figure and models: {folder}")


@command.command("augmentation")
@click.argument("config", type=click.Path(path_type=Path))
@DATA
@click.option("--out", type=click.Path(path_type=Path), help="Folder for table, JSON, figure and models; runs/NAME-augmentation.")
@click.option("--epochs", type=click.IntRange(min=1), help="Length of each of the four trainings; CONFIG's own if not given.")
def augmentation(config: Path, data: Path, out: Path | None, epochs: int | None) -> None:
    """Train the model of CONFIG with none, the geometric, the intensity and all random changes, and compare them clean and under shift.

    Finished trainings are kept in OUT: after a kill, the same command resumes after the last of them.
    """
    from model_build.config import load_build_config
    from model_build.data.cohort import read_cohort
    from model_build.data.split import refuse_leakage
    from model_build.progress import BarProgress, files_read
    from model_build.studies.augmentation.ablation import measure_augmentation, refuse_frozen
    from model_build.studies.augmentation.result import AUGMENTATION

    build = load_build_config(config)
    refuse_frozen(config, build.train)
    folder = out if out is not None else Path("runs") / f"{build.name}-augmentation"
    folder.mkdir(parents=True, exist_ok=True)
    with BarProgress() as progress:
        images, cohort = read_cohort(data, build, files_read(progress), folder / "pixels")
        refuse_leakage(images, cohort.is_held_out, build.source)
        found = measure_augmentation(
            images, cohort, folder, epochs=epochs or build.train.epochs, on_stage=progress.stage, on_advance=progress.advance
        )
    click.echo(AUGMENTATION.write(found, folder))
    click.echo(f"table, numbers, figure and models: {folder}")
