"""What both programs' command lines are made of: commands loaded when they are asked for, and ``--version`` with the commit."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click


class LazyGroup(click.Group):
    """A click group whose commands are in modules of their own, each imported at its first use.

    The import of pixels, models and databases is what costs time; a small board should not pay for ``bench`` to show ``status``.
    """

    def __init__(self, modules: Mapping[str, str], **attributes: Any) -> None:
        """Take each command's name with its module, which holds it as ``command``, in the order in which a newcomer meets them."""
        super().__init__(**attributes)
        self.modules = modules
        version = click.Option(
            ["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version and the commit."
        )
        self.params.append(version)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every command."""
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command and give its ``command``; None where there is no such command."""
        module_name = self.modules.get(cmd_name)
        if module_name is None:
            return None
        command: click.Command = importlib.import_module(module_name).command
        return command


def _show_version(context: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if not wanted or context.resilient_parsing:
        return
    from edge_agent.version import describe_build

    click.echo(f"{context.info_name} {describe_build()}")
    context.exit()
