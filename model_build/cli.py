"""The ``model-build`` command: a group that loads each command when it is asked for, and the one place where errors become exit codes."""

from __future__ import annotations

import importlib
from types import MappingProxyType

import click

from edge_agent.errors import ConfigError, EdgeAgentError
from model_build.libraries import explain_missing

COMMAND_MODULES = MappingProxyType(
    {
        "train": "model_build.commands.train",
        "experiments": "model_build.commands.experiments",
        "evaluate": "model_build.commands.evaluate",
        "report": "model_build.commands.report",
        "label-efficiency": "model_build.commands.label_efficiency",
        "compare-heads": "model_build.commands.compare_heads",
        "audit": "model_build.commands.audit",
        "ablate": "model_build.commands.ablate",
        "simulate-shift": "model_build.commands.simulate_shift",
        "keygen": "model_build.commands.keygen",
        "sign": "model_build.commands.sign",
        "package": "model_build.commands.package",
        "phantom": "model_build.commands.phantom",
    }
)


class LazyGroup(click.Group):
    """A click group whose commands stand in modules of their own, each imported at its first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name every command, in the order in which a newcomer meets them."""
        return list(COMMAND_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command and give its ``command``; None where there is no such command."""
        module_name = COMMAND_MODULES.get(cmd_name)
        if module_name is None:
            return None
        command: click.Command = importlib.import_module(module_name).command
        return command


@click.group(cls=LazyGroup, help="Build a model for the edge agent: train on a CPU, measure, pack.")
@click.version_option(package_name="edge-agent", prog_name="model-build")
def cli() -> None:
    """Hold the commands."""


def main() -> int:
    """Run the command; faults become a message and their exit code."""
    try:
        cli(prog_name="model-build")
    except EdgeAgentError as fault:
        click.echo(f"error: {fault}", err=True)
        return fault.exit_code
    except ModuleNotFoundError as fault:
        # The agent is installed without them; a missing module of any other name is a bug and keeps its traceback.
        missing = explain_missing(fault)
        if missing is None:
            raise
        click.echo(f"error: {missing}", err=True)
        return ConfigError.exit_code
    return 0
