"""``edge-agent check-config``: is this configuration fit to run, and what does it mean?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from edge_agent.config import Config


@click.command(name="check-config")
@click.option("--config", "config_path", type=click.Path(path_type=Path), metavar="FILE", help="TOML configuration.")
@click.option("--inbox", type=click.Path(path_type=Path), metavar="DIR", help="Folder to watch; HOME/inbox if not given.")
@click.option("--home", type=click.Path(path_type=Path), metavar="DIR", help="Folder for results, done, rejected and state.")
@click.option("--model", "bundle_path", type=click.Path(path_type=Path), metavar="BUNDLE", help="Bundle; the one that ships if not given.")
def command(config_path: Path | None, inbox: Path | None, home: Path | None, bundle_path: Path | None) -> None:
    """Check a configuration, its folders and its model, and print what is in force. Changes nothing.

    Takes the options of run. All errors are reported at once; the exit code is 10, or 20 where only the model is at fault.
    """
    from edge_agent.config import load_config
    from edge_agent.errors import ConfigError, ModelError

    config = load_config(config_path, home=home, inbox=inbox, bundle=bundle_path)
    problems = _folder_problems(config) + _camera_problems(config)
    try:
        model = _check_model(config)
    except ModelError as error:
        if not problems:
            raise
        problems.append(f"model.bundle: {error}")
    if problems:
        count = "1 error" if len(problems) == 1 else f"{len(problems)} errors"
        raise ConfigError("\n  ".join([f"the configuration cannot be run, {count}:", *problems]))
    click.echo(config_toml(config))
    click.echo(f"# the inbox: {config.inbox}")
    click.echo(f"# the model: {model}")
    click.echo("# all of this can be run")


def config_toml(config: Config) -> str:
    """Give a configuration as TOML with every key; keys that are not given stand commented out."""
    import msgspec

    from edge_agent.files.names import printable_path

    def lines(values: dict[str, Any]) -> list[str]:
        return [f"#{key} =" if value is None else f"{key} = {msgspec.json.encode(value).decode()}" for key, value in values.items()]

    table: dict[str, Any] = msgspec.to_builtins(config, enc_hook=lambda path: printable_path(str(path)))
    sections = {key: value for key, value in table.items() if isinstance(value, dict)}
    text = lines({key: value for key, value in table.items() if key not in sections})
    for name, section in sections.items():
        text += ["", f"[{name}]", *lines(section)]
    return "\n".join(text) + "\n"


def _folder_problems(config: Config) -> list[str]:
    problems = []
    home, inbox = config.home, config.intake.inbox
    # The home is made at the first start, in the nearest folder that is there.
    nearest = next(path for path in (home, *home.parents) if _is_there(path))
    if not nearest.is_dir():
        problems.append(f"home: {nearest} is not a folder; name another")
    elif not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
        problems.append(f"home: the agent may not write to {nearest}; give its user the right to, or name another")
    if inbox is None:  # made in the home
        return problems
    if not _is_there(inbox):
        problems.append(f"intake.inbox: {inbox} does not exist; create it, mount its disk, or name another")
    elif not inbox.is_dir():
        problems.append(f"intake.inbox: {inbox} is not a folder; name another")
    elif not os.access(inbox, os.R_OK | os.X_OK):
        problems.append(f"intake.inbox: the agent may not read {inbox}; give its user the right to")
    elif config.intake.on_done != "keep" and not os.access(inbox, os.W_OK):
        problems.append(
            f'intake.inbox: the agent may not move images out of {inbox}; give its user the right to write, or set on_done = "keep"'
        )
    return problems


def _is_there(path: Path) -> bool:
    return os.access(path, os.F_OK)  # Path.exists raises where a parent may not be searched


def _camera_problems(config: Config) -> list[str]:
    from importlib.util import find_spec

    if config.camera.source and find_spec("cv2") is None:
        return ["camera.source: the extra is missing; install it with  pip install 'edge-agent[camera]'"]
    return []


def _check_model(config: Config) -> str:
    """Load the bundle and run its golden vectors, as the agent would; gives its name for people."""
    from edge_agent.deployment.model_store import bundle_for
    from edge_agent.inference.classifier import Classifier

    bundle = bundle_for(config).load()
    identity = Classifier(bundle).identity
    return f"{identity.name} {identity.version}, for {bundle.manifest.population} ({bundle.directory}; {bundle.origin})"
