"""The ``model-build`` command: parse, call, print, exit code."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_agent.errors import ConfigError, EdgeAgentError
from model_build.data import phantom

if TYPE_CHECKING:
    from edge_agent.inference.bundle import Bundle
    from model_build.build import Build
    from model_build.config import LayoutName
    from model_build.report import Report

INTERRUPTED = 130
_BUILD_LIBRARIES = frozenset({"jinja2", "keras", "matplotlib", "sklearn", "tensorflow"})


@click.group(help="Build a model for the edge agent: train on a CPU, measure, pack.")
@click.version_option(package_name="edge-agent", prog_name="model-build")
def cli() -> None:
    """Hold the commands."""


cli.add_command(phantom.command)


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder that holds the data set, laid out as CONFIG says.")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder; runs/NAME if not given.")
@click.option("--resume", is_flag=True, help="Go on from the last finished epoch in the run folder.")
def train(config: Path, data: Path, out: Path | None, resume: bool) -> None:
    """Train what CONFIG says and write OUT/bundle, OUT/report.html, OUT/report.md and OUT/report.json."""
    # TensorFlow writes its start-up lines past Python; only its errors are for the user.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from model_build.config import load_build_config
    from model_build.progress import BarProgress

    build_config = load_build_config(config)
    if not data.is_dir():
        raise click.BadParameter(f"{data} is not a folder", param_hint="--data")
    run_folder = out if out is not None else Path("runs") / build_config.name
    from model_build.build import Build, prepare_out

    going_on = prepare_out(run_folder, config.read_text(encoding="utf-8"), resume=resume, warn=lambda text: click.echo(text, err=True))
    with BarProgress() as progress:
        built, bundle = _run_or_tell_how_to_resume(Build(build_config, data, run_folder, progress), config, data, run_folder, going_on)
    metrics = built.measured.metrics
    click.echo(f"held-out patients, int8: AUC {metrics['auc']}")
    click.echo(f"at the operating point: sensitivity {metrics['sensitivity']}, specificity {metrics['specificity']}")
    click.echo(f"bundle: {bundle.directory}  ({built.model_size_bytes:,} bytes of model)")
    click.echo(f"report: {run_folder / 'report.html'}  (shows images of DATA: it stays with them)")


def _run_or_tell_how_to_resume(build: Build, config: Path, data: Path, out: Path, resume: bool) -> tuple[Report, Bundle]:
    try:
        return build.run(resume=resume)
    except KeyboardInterrupt:
        command = f"model-build train {config} --data {data} --out {out} --resume"
        kept = "The last finished epoch is kept." if build.checkpoint.exists() else "No epoch was finished yet."
        click.echo(f"\nStopped. {kept} Go on with:  {command}", err=True)
        sys.exit(INTERRUPTED)


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
def evaluate(bundle: Path, data: Path) -> None:
    """Measure BUNDLE on DATA, a folder with one folder of images per label."""
    from model_build.check import evaluate_bundle

    click.echo(evaluate_bundle(bundle, data))


@cli.command("label-efficiency")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="The data set, in the layout that CONFIG names.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the table, its JSON and the figure.")
def label_efficiency(config: Path, data: Path, out: Path) -> None:
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
            data, build_config.source, build_config.input, lambda done, total: progress.advance(done, f"{done} of {total} files")
        )
        progress.stage("embedding and fitting", 1)
        points = measure_label_efficiency(build_config, images)
    write_label_efficiency(points, out)
    click.echo(render_table(points))


@cli.command("compare-heads")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="The data set, in the layout that CONFIG names.")
@click.option("--model", type=click.Path(path_type=Path), required=True, help="A bundle folder, or a .tflite with CONFIG's input size.")
def compare_heads(config: Path, data: Path, model: Path) -> None:
    """Compare every kind of head on the embeddings of MODEL, by cross-validation over patients."""
    from model_build import head_comparison
    from model_build.config import load_build_config
    from model_build.data.images import read_images
    from model_build.embed import embed_images
    from model_build.progress import BarProgress

    build = load_build_config(config)
    content, contract = head_comparison.read_model(model, build.input)
    heads = head_comparison.every_kind(build.head)
    with BarProgress() as progress:
        progress.stage("reading images", 1)
        images = read_images(data, build.source, contract, lambda done, total: progress.advance(done // total, f"{done} of {total} files"))
        progress.stage("int8 embedding", 1)
        embeddings = embed_images(content, images.pixels).embeddings
        progress.stage("fitting heads", len(heads) * head_comparison.FOLD_COUNT)
        positive = images.labels == build.source.labels.index(build.source.positive[0])
        patients = [entry.patient for entry in images.files]
        results = head_comparison.compare_heads(embeddings, positive, patients, heads, build.seed, progress.advance)
    click.echo(head_comparison.render_comparison(results, len(positive), len(set(patients))))


@cli.command()
@click.argument("run_folder", type=click.Path(path_type=Path))
@click.option("--data", type=click.Path(path_type=Path), help="The data it was trained on: the report then shows the worst mistakes.")
def report(run_folder: Path, data: Path | None) -> None:
    """Write RUN_FOLDER/report.html again, without images unless --data is given."""
    from model_build.report_html import rewrite_html_report

    if data is not None and not data.is_dir():
        raise click.BadParameter(f"{data} is not a folder", param_hint="--data")
    click.echo(rewrite_html_report(run_folder, data))


@cli.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), help="A build's TOML: its layout, classes and split.")
@click.option(
    "--layout", type=click.Choice(["folders", "nih", "cbis-ddsm", "mini-mias", "manifest"]), help="Without --config; default: folders."
)
@click.option("--patient-pattern", help="Without --config, for folders: what its first group matches in a file name is the patient.")
@click.option("--table", help="Without --config, for manifest: the CSV file's name; default: manifest.csv.")
@click.option("--format", "output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--names", is_flag=True, help="Tell files and patients by name instead of salted hashes; keep such output with the data.")
def audit(
    data: Path, config: Path | None, layout: LayoutName | None, patient_pattern: str | None, table: str | None, output: str, names: bool
) -> None:
    """Look through DATA before training: counts, unreadable files, copies, leakage, shortcuts."""
    import msgspec

    from model_build.audit import audit_examples
    from model_build.audit_text import render_audit
    from model_build.config import load_build_config
    from model_build.data.layouts.reading import list_examples
    from model_build.data.pseudonyms import Pseudonyms
    from model_build.progress import BarProgress

    if config is not None and (layout or patient_pattern or table):
        raise click.UsageError("--config says layout, pattern and table itself; leave --layout, --patient-pattern and --table out")
    build = load_build_config(config) if config is not None else None
    source = build.source if build is not None else None
    if source is not None:
        layout, patient_pattern, table = source.layout, source.patient_pattern, source.table
    examples = list_examples(
        data,
        layout or "folders",
        labels=source.labels if source is not None else None,
        patient_pattern=patient_pattern or "",
        table=table or "manifest.csv",
    )
    with BarProgress() as progress:
        progress.stage("reading images", len(examples))
        found = audit_examples(
            data,
            examples,
            source=source,
            seed=build.seed if build is not None else 0,
            patients_known=(layout or "folders") != "folders" or bool(patient_pattern),
            pseudonyms=None if names else Pseudonyms(),
            on_progress=lambda done, total: progress.advance(done, f"{done} of {total} files"),
        )
    click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode() if output == "json" else render_audit(found))


def main() -> int:
    """Run the command; faults become a message and their exit code."""
    try:
        cli(prog_name="model-build")
    except EdgeAgentError as fault:
        click.echo(f"error: {fault}", err=True)
        return fault.exit_code
    except ModuleNotFoundError as fault:
        # The agent is installed without them; a missing module of any other name is a bug and keeps its traceback.
        library = (fault.name or "").partition(".")[0]
        if library not in _BUILD_LIBRARIES:
            raise
        click.echo(f"error: {library} is not installed: get the build's libraries with  pip install -e '.[build]'", err=True)
        return ConfigError.exit_code
    return 0
