"""``model-build sign``: sign a bundle, so that boxes know where it comes from."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("sign")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", "key_path", type=click.Path(path_type=Path), required=True, metavar="KEY", help="Private key made by keygen.")
def command(bundle: Path, key_path: Path) -> None:
    """Sign BUNDLE, a bundle's folder or the run folder that holds it: writes its manifest.sig. Sign after the last change."""
    from model_build.bundle.signing import find_bundle, read_private_key, sign_bundle

    key = read_private_key(key_path)
    if key_path.stat().st_mode & 0o077:
        click.echo(f"warning: others on this machine may read {key_path}:  chmod 600 {key_path}", err=True)
    directory = find_bundle(bundle)
    signature = sign_bundle(directory, key)
    click.echo(f"signed {directory} with the key {signature.key_id}")
