"""``edge-agent model``: the models on this box."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec

if TYPE_CHECKING:
    from edge_agent.config import Config
    from edge_agent.deployment.model_store import InstalledModel, ModelStore
    from edge_agent.inference.bundle import Bundle

SHIPPED = "shipped"
"""What a person calls the model that came with the program."""

State = Literal["active", "previous", "left", "kept"]


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model as ``model list --format json`` prints it.

    ``state`` is "active"; "previous", which ``rollback`` would bring back; "left", which was rolled back (``left_because`` says why);
    or "kept". ``installed_at`` and ``signed_by`` are null for the one that came with the program.
    """

    name: str
    version: str
    serial: int
    digest: str
    state: State
    shipped: bool
    directory: str
    proven: bool = True
    signed_by: str | None = None
    installed_at: str | None = None
    left_because: str | None = None


class ModelListing(msgspec.Struct, frozen=True, kw_only=True):
    """What ``model list --format json`` prints. ``overruled_by`` is a bundle that the configuration names, which runs instead of these."""

    home: str
    overruled_by: str | None
    models: list[ListedModel]


def _on_a_home(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which box a command is about; the command gets the configuration of that box."""

    @click.option("--home", type=click.Path(path_type=Path), metavar="DIR", help="Home folder of the agent.")
    @click.option("--config", "config_path", type=click.Path(path_type=Path), metavar="FILE", help="TOML configuration.")
    @wraps(function)
    def with_config(config_path: Path | None, home: Path | None, **arguments: Any) -> None:
        from edge_agent.config import config_of_box, load_config

        function(config=load_config(config_of_box(config_path, home), home=home), **arguments)

    return with_config


@click.group(name="model")
def command() -> None:
    """Show, verify, install and change the models of this box.

    A running agent takes over within seconds what is activated here; no image is lost. Without --config and --home the commands are about
    the agent that is installed on this box.
    """


@command.command("list")
@_on_a_home
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True, help="For people or programs.")
def list_models(config: Config, form: Literal["text", "json"]) -> None:
    """List the models of this box and say which one runs. Changes nothing."""
    listing = read_listing(config)
    if form == "json":
        click.echo(msgspec.json.encode(listing).decode())
        return
    for model in listing.models:
        click.echo(_line(model))
    _tell_if_overruled(config)


@command.command("verify")
@click.argument("bundle_path", metavar="BUNDLE_OR_ZIP", type=click.Path(path_type=Path))
@_on_a_home
def verify(bundle_path: Path, config: Config) -> None:
    """Check a bundle as an installation would: signature, checksums, contract, serial, and its test images in a child process.

    Changes nothing. The exit code is 0 where this box would install it, else 20.
    """
    import tempfile

    from edge_agent.deployment.install import serial_refusal
    from edge_agent.deployment.model_store import ModelStore
    from edge_agent.deployment.trial import try_bundle
    from edge_agent.errors import ModelContractError
    from edge_agent.inference.bundle import read_contents, verify_bundle

    contents = read_contents(bundle_path)
    bundle = verify_bundle(bundle_path, contents, allow_unsigned=config.model.allow_unsigned, trusted_keys=config.trusted_keys)
    with tempfile.TemporaryDirectory(prefix="edge-agent-verify-") as folder:
        for name, content in contents.items():
            (Path(folder) / name).write_bytes(content)
        try_bundle(Path(folder), bundle.digest)
    if refusal := serial_refusal(ModelStore(config.home).read(), bundle):
        raise ModelContractError(refusal)
    click.echo(f"{_named(bundle)}: good, {bundle.origin}")
    click.echo(f"digest {bundle.digest}")
    click.echo(f"made for: {bundle.manifest.population}")


@command.command("install")
@click.argument("archive", metavar="ZIP", type=click.Path(path_type=Path))
@_on_a_home
@click.option("--serial", type=click.IntRange(min=0), metavar="N", help="Take the model although it is older, if this is its serial.")
def install(archive: Path, config: Config, serial: int | None) -> None:
    """Verify the model in ZIP, try it in a child process, install and activate it.

    The model that runs stays until the new one is whole on the disk, also through a power cut.
    """
    from edge_agent.deployment.install import install_bundle
    from edge_agent.inference.bundle import read_contents, verify_bundle

    contents = read_contents(archive)
    store = _open_store(config)
    bundle = verify_bundle(archive, contents, allow_unsigned=config.model.allow_unsigned, trusted_keys=config.trusted_keys)
    installed = install_bundle(store, bundle, contents, serial=serial)
    click.echo(f"installed and active: {_named(bundle)}, {bundle.origin}")
    click.echo(f"in {installed.directory}")
    _tell_if_overruled(config)


@command.command("activate")
@click.argument("name")
@_on_a_home
def activate(name: str, config: Config) -> None:
    """Activate the installed model NAME, also an older one.

    NAME is as "list" shows it: NAME-SERIAL-DIGEST, or enough of its beginning to be unique, or "shipped" for the model that
    came with the program.
    """
    from edge_agent.deployment.install import activate_installed, activate_shipped

    store = _open_store(config)
    if name == SHIPPED:
        activate_shipped(store)
        click.echo("active: the model that came with the program")
    else:
        model = activate_installed(store, _find(store, name), config)
        click.echo(f"active: {model.name} {model.version} (serial {model.serial})")
    _tell_if_overruled(config)


@command.command("rollback")
@_on_a_home
def rollback(config: Config) -> None:
    """Bring back the model that ran before. The present one is not brought back later, unless it is activated by name."""
    back = _open_store(config).rollback("somebody asked for it by  edge-agent model rollback")
    click.echo(f"active: {back.name} {back.version} (serial {back.serial})" if back else "active: the model that came with the program")
    _tell_if_overruled(config)


def read_listing(config: Config) -> ModelListing:
    """Read what is installed on a box.

    Raises
    ------
    ModelError, StorageError
        If the pointer file, or the bundle that ships, cannot be read.
    """
    from edge_agent.deployment.model_store import ModelStore
    from edge_agent.inference.bundle import default_bundle_path, load_bundle

    pointer = ModelStore(config.home).read()
    back = [model and model.digest for model in pointer.to_return_to()[:1]]

    def state_of(model: InstalledModel | None) -> State:
        digest = model and model.digest
        if digest == pointer.active:
            return "active"
        if model is not None and model.left_because:
            return "left"
        return "previous" if digest in back else "kept"

    models = [
        ListedModel(
            **msgspec.structs.asdict(model)
            | {"directory": str(model.directory), "installed_at": f"{model.installed_at:%Y-%m-%dT%H:%M:%SZ}"},
            state=state_of(model),
            shipped=False,
        )
        for model in pointer.models
    ]
    shipped = load_bundle(default_bundle_path())
    models.append(
        ListedModel(
            name=shipped.manifest.name,
            version=shipped.manifest.version,
            serial=shipped.manifest.serial,
            digest=shipped.digest,
            state=state_of(None),
            shipped=True,
            directory=str(shipped.directory),
        )
    )
    overruled_by = None if config.model.bundle is None else str(config.model.bundle)
    return ModelListing(home=str(config.home), overruled_by=overruled_by, models=models)


def _line(model: ListedModel) -> str:
    notes = [f"signed by {model.signed_by}" if model.signed_by else "came with the program" if model.shipped else "not signed"]
    if not model.shipped:
        notes.append("proven" if model.proven else "not proven yet")
    if model.left_because:
        notes.append(f"left: {model.left_because}")
    title = SHIPPED if model.shipped else Path(model.directory).name
    return f"{model.state:<9} {title:<40} {model.version:<10} serial {model.serial:<6} {'; '.join(notes)}"


def _named(bundle: Bundle) -> str:
    return f"{bundle.manifest.name} {bundle.manifest.version} (serial {bundle.manifest.serial})"


def _open_store(config: Config) -> ModelStore:
    """Open the models of an existing home for changes, as the user to whom the home belongs."""
    from edge_agent.deployment.model_store import ModelStore
    from edge_agent.errors import ConfigError

    if not config.home.is_dir():
        raise ConfigError(f"there is no home folder {config.home}: start the agent once, or name its home with --home")
    _become_owner(config.home)
    return ModelStore(config.home)


def _become_owner(home: Path) -> None:
    """Give up root's rights for those of the home's owner, for good.

    The agent must be able to read what is installed; and what its user has put into the home, such as a link to another place, must not
    be followed with root's rights.
    """
    owner = home.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    import pwd

    try:
        os.initgroups(pwd.getpwuid(owner.st_uid).pw_name, owner.st_gid)
    except KeyError:  # an owner without an account, as on a disk from another machine
        os.setgroups([])
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)


def _find(store: ModelStore, name: str) -> InstalledModel:
    models = store.read().models
    found = [model for model in models if name in (model.directory.name, model.digest)]
    found = found or [model for model in models if model.directory.name.startswith(name)]
    if len(found) != 1:
        known = ", ".join([*(model.directory.name for model in models), SHIPPED])
        problem = "there is no model" if not found else "more than one model is called"
        raise click.BadParameter(f"{problem} {name!r} on this box; installed are: {known}", param_hint="NAME")
    return found[0]


def _tell_if_overruled(config: Config) -> None:
    if config.model.bundle is not None:
        click.echo(
            f"note: the configuration names a bundle ([model] bundle = {str(config.model.bundle)!r}), and that one runs, whatever is active"
            " here: remove the line to run the active one",
            err=True,
        )
