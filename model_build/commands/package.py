"""``model-build package``: a bundle as one file, to carry to a box."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("package")
@click.argument("run_or_bundle", type=click.Path(path_type=Path))
@click.option("--out", "archive", type=click.Path(path_type=Path, dir_okay=False), required=True, metavar="ZIP", help="File to write.")
def command(run_or_bundle: Path, archive: Path) -> None:
    """Pack the bundle RUN_OR_BUNDLE into one zip file for  edge-agent model install.  The same bundle gives the same bytes."""
    from edge_agent.inference.bundle import SIGNATURE_NAME
    from model_build.bundle.signing import find_bundle, pack_bundle

    directory = find_bundle(run_or_bundle)
    manifest = pack_bundle(directory, archive).manifest
    click.echo(f"{archive}: {manifest.name} {manifest.version} (serial {manifest.serial}), {archive.stat().st_size:,} bytes")
    if not (directory / SIGNATURE_NAME).exists():
        click.echo(
            "warning: not signed; most boxes take only signed models:  model-build sign BUNDLE --key KEY  , then pack it again", err=True
        )
