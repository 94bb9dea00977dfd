"""``model-build keygen``: a key that signs models."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("keygen")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="DIR", help="Folder for the two keys.")
def command(out: Path) -> None:
    """Make a key for signing models: a private one that stays here, and a public one for the boxes.

    An existing key is never overwritten.
    """
    from model_build.bundle.signing import make_key_pair

    pair = make_key_pair(out)
    click.echo(
        f"private key: {pair.private}  (signs models: keep it on this machine and in a safe; whoever has it can make models for you)"
    )
    click.echo(f"public key:  {pair.public}  (copy it to each box, into /etc/edge-agent/keys or HOME/keys)")
