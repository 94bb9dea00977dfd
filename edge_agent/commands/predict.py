"""``edge-agent predict``: classify files at once, without a database."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import click

if TYPE_CHECKING:
    from edge_agent.imaging.preprocess import InputContract
    from edge_agent.inference.bundle import Bundle
    from edge_agent.inference.classifier import Classifier
    from edge_agent.records import Frame, ModelIdentity, Record, Verdict


class Target(NamedTuple):
    """A file to classify: its path as given, and where its heatmap goes (None for nowhere)."""

    path: str
    heatmap: Path | None


@click.command(name="predict")
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True), metavar="PATH...")
@click.option("--model", "bundle_path", type=click.Path(path_type=Path), metavar="BUNDLE", help="Bundle; the one that ships if not given.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "jsonl", "csv"]),
    default="table",
    show_default=True,
    help="A table for people, JSON lines, or CSV.",
)
@click.option(
    "--heatmaps",
    "heatmap_folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Draw over each image the evidence for its likeliest positive label, as DIR/NAME.heatmap.png.",
)
def command(paths: tuple[str, ...], bundle_path: Path | None, form: Literal["table", "jsonl", "csv"], heatmap_folder: Path | None) -> None:
    """Classify files, and every file below folders; print a record for each, in the order of the arguments.

    Nothing is stored or moved. A file that is no readable image gets a record too: "rejected", with the reason. Hidden and half-copied
    files below folders are left out.
    """
    from edge_agent.config import load_config
    from edge_agent.inference.bundle import default_bundle_path, load_bundle

    targets = find_targets(paths, heatmap_folder)
    bundle = load_bundle(bundle_path or default_bundle_path(), trusted_keys=load_config(None).trusted_keys)
    if bundle.signed_by is None and not bundle.is_shipped:
        click.echo(f"warning: {bundle.directory} is {bundle.origin}: use it only if you know who made it", err=True)
    with _progress(len(targets)) as advance:
        records = classify_targets(bundle, targets, advance)
        if form != "table":
            from edge_agent.outbox.export import write_records

            write_records(records, form, sys.stdout.buffer)
            return
        shown = list(records)
    from edge_agent.surfaces.record_table import print_records

    print_records(shown, sys.stdout)
    click.echo(f"\ndecision support for triage, not a diagnosis; model made for: {bundle.manifest.population}")


def find_targets(paths: tuple[str, ...], heatmap_folder: Path | None = None) -> list[Target]:
    """List the files that the arguments mean.

    Parameters
    ----------
    paths : tuple of str
        Files and folders. Of a folder every file below it, sorted by path, but those that the agent's inbox ignores by default.
    heatmap_folder : Path or None
        What lies in it was drawn by an earlier run and is left out. Heatmaps keep the sub-folders of a folder argument; no two get the
        same name.

    Raises
    ------
    click.BadParameter
        If a folder cannot be listed.
    """
    drawn = None if heatmap_folder is None else heatmap_folder.resolve()
    targets: list[Target] = []
    taken: set[Path] = set()
    for path in paths:
        is_folder = Path(path).is_dir()
        for name in _files_below(path) if is_folder else [Path(path).name]:
            file = f"{path.rstrip('/')}/{name}" if is_folder else path
            if drawn is None:
                targets.append(Target(file, None))
            elif not Path(file).resolve().is_relative_to(drawn):
                targets.append(Target(file, _free_name(drawn / name, taken)))
    return targets


def _files_below(folder: str) -> list[str]:
    from edge_agent.config import IntakeConfig
    from edge_agent.errors import SourceGoneError
    from edge_agent.intake.scan import IgnoreRule, scan_folder

    try:
        names = sorted(name for name, _ in scan_folder(Path(folder), IgnoreRule(IntakeConfig().ignore)))
    except SourceGoneError:
        raise click.BadParameter(f"the folder {folder!r} cannot be listed; may you read it?", param_hint="PATH") from None
    if not names:
        click.echo(f"no files in {folder}", err=True)
    return names


def _free_name(image: Path, taken: set[Path]) -> Path:
    from edge_agent.files.names import fit_name

    for count in range(1, len(taken) + 2):
        heatmap = image.with_name(fit_name(image.name, ".heatmap.png", f"-{count}" if count > 1 else ""))
        if heatmap not in taken:
            break
    taken.add(heatmap)
    return heatmap


def classify_targets(bundle: Bundle, targets: list[Target], advance: Callable[[], None] = lambda: None) -> Iterator[Record]:
    """Classify files on all cores.

    Parameters
    ----------
    bundle : Bundle
        Its interpreter is loaded once for each core.
    targets : list of Target
        See :func:`find_targets`.
    advance : callable
        Called once for each file done.

    Yields
    ------
    Record
        In the order of the targets, ``id`` null, ``source`` "predict". A file that cannot be classified is "rejected".

    Raises
    ------
    EdgeAgentError
        For a fault of our own side.
    """
    from concurrent.futures import ThreadPoolExecutor
    from queue import SimpleQueue

    from edge_agent.inference.classifier import Classifier

    count = max(1, min(len(os.sched_getaffinity(0)), len(targets)))
    # A classifier serves one thread at a time: each file takes an idle one, which is put back after it.
    idle: SimpleQueue[Classifier] = SimpleQueue()
    for _ in range(count):
        idle.put(Classifier(bundle, num_threads=1))

    def examine(target: Target) -> Record:
        classifier = idle.get()
        try:
            return _examine(target, classifier)
        finally:
            idle.put(classifier)

    with ThreadPoolExecutor(count) as pool:
        for record in pool.map(examine, targets):
            advance()
            yield record


def _examine(target: Target, classifier: Classifier) -> Record:
    import hashlib
    import time
    from datetime import UTC, datetime

    from edge_agent.agent.classify import classify_content, rejected_record
    from edge_agent.config import ImagingConfig
    from edge_agent.errors import InputFault
    from edge_agent.records import Arrival, Timing

    # It has not settled in an inbox, so there is no stamp to compare it with.
    arrival = Arrival(
        source="predict",
        path=target.path,
        received_at=datetime.now(UTC),
        settled_ns=time.monotonic_ns(),
        **dict.fromkeys(("size_bytes", "mtime_ns", "ctime_ns", "inode"), 0),
    )
    try:
        content = _read(Path(target.path))
    except InputFault as fault:
        return rejected_record(arrival, "", fault, Timing())
    viewer = classifier if target.heatmap is None else _DrawingClassifier(classifier, target.heatmap)
    return classify_content(arrival, content, hashlib.sha256(content).hexdigest(), viewer, ImagingConfig().max_pixels)


def _read(path: Path) -> bytes:
    from edge_agent.config import IntakeConfig
    from edge_agent.errors import InputFault

    limit = IntakeConfig().max_file_bytes
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputFault("not_a_file", "This is not a file but a device, a pipe or a socket. Name image files only.")
        if status.st_size > limit:
            raise InputFault("too_large", f"The file has {status.st_size:,} bytes; at most {limit:,} are read.")
        return path.read_bytes()
    except OSError as fault:
        raise InputFault("read_error", f"The file could not be read: {fault.strerror}.") from None


class _DrawingClassifier:
    """A classifier that also draws its heatmap into one file."""

    def __init__(self, classifier: Classifier, heatmap: Path) -> None:
        self._classifier = classifier
        self._heatmap = heatmap

    @property
    def identity(self) -> ModelIdentity:
        return self._classifier.identity

    @property
    def input(self) -> InputContract:
        return self._classifier.input

    def classify(self, frame: Frame) -> Verdict:
        from PIL import Image, PngImagePlugin

        from edge_agent.files.atomic import replacing, storage_error

        verdict, picture = self._classifier.classify_with_heatmap(frame)
        try:
            self._heatmap.parent.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise storage_error(fault, f"make the folder {self._heatmap.parent}") from fault
        label = self._classifier.heatmap_label(verdict)
        text = PngImagePlugin.PngInfo()
        text.add_itxt("Description", f"what speaks for {label}, probability {verdict.scores[label]:.2f}")
        with replacing(self._heatmap) as file:
            Image.fromarray(picture).save(file, "PNG", pnginfo=text)
        return verdict


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on standard error while the block runs, if that is a terminal; gives the function that moves it on by one."""
    if not sys.stderr.isatty() or total < 2:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task("", total=total)
        yield lambda: bar.advance(task)
