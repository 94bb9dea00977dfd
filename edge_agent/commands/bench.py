"""``edge-agent bench``: how fast this board is with a model, and how boards compare."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from edge_agent.inference.interpreter import RUNTIMES

_EXISTING_PATH = click.Path(exists=True, path_type=Path)


@click.command("compare")
@click.argument("results", metavar="A B...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def compare(results: tuple[Path, ...]) -> None:
    """Compare the results of several boards, each row with its ratio to the first result."""
    from rich.console import Console

    from edge_agent.bench.result import read_result
    from edge_agent.bench.tables import print_comparison

    print_comparison([(path, read_result(path)) for path in results], Console())


class _BenchCommand(click.Command):
    """Measures, unless the first word is ``compare``: a group could not take a model as its first word."""

    def make_context(self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any) -> click.Context:
        if args[:1] == ["compare"]:
            return compare.make_context(f"{info_name} compare", args[1:], parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)


@click.command(
    "bench",
    cls=_BenchCommand,
    epilog="Compare boards:  edge-agent bench compare A.json B.json...   (results written by --out)",
)
@click.argument("model", required=False, type=_EXISTING_PATH)
@click.option(
    "--runtime", "runtimes", multiple=True, type=click.Choice(RUNTIMES), help="Only this runtime; may be repeated. [default: all installed]"
)
@click.option(
    "--threads", multiple=True, type=click.IntRange(1, 64), help="Only this number of threads; may be repeated. [default: 1 to the cores]"
)
@click.option(
    "--images", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of images to use instead of drawn ones."
)
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=10.0, show_default=True, help="For each row.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True, help="Of standard output.")
@click.option("--out", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Also write the result to a file, as JSON.")
def command(
    model: Path | None,
    runtimes: tuple[str, ...],
    threads: tuple[int, ...],
    images: Path | None,
    seconds: float,
    form: str,
    out: Path | None,
) -> None:
    """Measure how fast this board runs MODEL: a bundle's folder or a bare .tflite file; by default the bundle that ships.

    Load, first and warm inference and each step of an image, for every installed runtime and number of threads, and the time from a file's
    arrival to its durable record. Nothing is sent anywhere. Let nothing else run meanwhile.
    """
    from rich.console import Console

    from edge_agent.bench.result import encode_result
    from edge_agent.bench.run import run_bench
    from edge_agent.bench.sweep import thread_counts
    from edge_agent.bench.tables import print_result
    from edge_agent.errors import ModelError
    from edge_agent.files.atomic import replacing
    from edge_agent.inference.bundle import default_bundle_path
    from edge_agent.inference.interpreter import installed_runtimes

    if out is not None and not out.absolute().parent.is_dir():
        raise click.BadParameter(f"the folder {out.absolute().parent} does not exist", param_hint="--out")
    chosen = runtimes or tuple(installed_runtimes())
    if not chosen:
        raise ModelError("no TFLite runtime is installed; install one with  pip install ai-edge-litert")
    counts = threads or thread_counts(len(os.sched_getaffinity(0)))
    result = run_bench(
        model or default_bundle_path(), chosen, counts, seconds, images, lambda step: click.echo(f"measuring: {step}", err=True)
    )
    if out is not None:
        with replacing(out) as file:
            file.write(encode_result(result))
    if form == "json":
        click.echo(encode_result(result), nl=False)
    else:
        print_result(result, Console())
