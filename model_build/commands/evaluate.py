"""``model-build evaluate``: a bundle on labelled images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from model_build.config import LayoutName

if TYPE_CHECKING:
    from model_build.data.example import Split


@click.command("evaluate")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--config", type=click.Path(path_type=Path), help="A build's TOML that says how DATA is laid out; else as the bundle's data were."
)
@click.option("--layout", type=click.Choice(get_args(LayoutName)), help="How DATA is laid out.")
@click.option("--patient-pattern", help="For folders: what its first group matches in a file name is the patient.")
@click.option("--table", help="For manifest: the CSV file's name.")
@click.option("--merge", multiple=True, metavar="NAME=LABEL", help="NAME, as DATA has it, is the bundle's LABEL. May be given again.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="Only this part of the data set's own split.")
def command(
    bundle: Path,
    data: Path,
    config: Path | None,
    layout: str | None,
    patient_pattern: str | None,
    table: str | None,
    merge: tuple[str, ...],
    split: Split | None,
) -> None:
    """Measure BUNDLE on DATA, labelled images in any layout that training reads."""
    from model_build.evaluation.bundle_evaluation import load_and_evaluate

    pairs = [text.rpartition("=") for text in merge]
    if wrong := next((text for text, (name, _, label) in zip(merge, pairs, strict=True) if not (name and label)), None):
        raise click.BadParameter(f"{wrong!r} is not NAME=LABEL", param_hint="--merge")
    changes = {"layout": layout, "patient_pattern": patient_pattern, "table": table}
    given = {key: value for key, value in changes.items() if value is not None}
    click.echo(load_and_evaluate(bundle, data, config, split, {name: label for name, _, label in pairs}, **given))
