"""``model-build audit``: a data set, looked through before a second of training."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from model_build.config import LayoutName


@click.command("audit")
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), help="A build's TOML: its layout, classes and split.")
@click.option("--layout", type=click.Choice(get_args(LayoutName)), help="Without --config; default: folders.")
@click.option("--patient-pattern", help="Without --config, for folders: what its first group matches in a file name is the patient.")
@click.option("--table", help="Without --config, for manifest: the CSV file's name; default: manifest.csv.")
@click.option("--format", "output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--names", is_flag=True, help="Name files and patients instead of giving salted hashes; keep such output with the data.")
def command(
    data: Path, config: Path | None, layout: LayoutName | None, patient_pattern: str | None, table: str | None, output: str, names: bool
) -> None:
    """Look through DATA before training: counts, unreadable files, copies, leakage, shortcuts."""
    import msgspec

    from model_build.config import load_build_config
    from model_build.data.audit.audit import audit_examples
    from model_build.data.audit.pseudonyms import Pseudonyms
    from model_build.data.audit.text import render_audit
    from model_build.data.layouts.reading import list_examples, list_source
    from model_build.progress import BarProgress

    if config is not None and (layout or patient_pattern or table):
        raise click.UsageError("--config sets layout, pattern and table; leave --layout, --patient-pattern and --table out")
    build = load_build_config(config) if config is not None else None
    source = build.source if build is not None else None
    if source is not None:
        layout, patient_pattern = source.layout, source.patient_pattern
    if source is not None:
        examples = list_source(data, source)
    else:
        examples = list_examples(data, layout or "folders", patient_pattern=patient_pattern or "", table=table or "manifest.csv")
    with BarProgress() as progress:
        progress.stage("reading images", len(examples))
        found = audit_examples(
            data,
            examples,
            source=source,
            task=build.task if build is not None else "binary",
            seed=build.seed if build is not None else 0,
            patients_known=(layout or "folders") != "folders" or bool(patient_pattern),
            pseudonyms=None if names else Pseudonyms(),
            on_progress=lambda done, total: progress.advance(done, f"{done} of {total} files"),
        )
    click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() if output == "json" else render_audit(found))
