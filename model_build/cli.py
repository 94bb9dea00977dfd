"""The ``model-build`` command: a group that loads each command when it is asked for, and the one place where errors become exit codes."""

from __future__ import annotations

from types import MappingProxyType

import click

from edge_agent.command_group import LazyGroup
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


@click.group(cls=LazyGroup, modules=COMMAND_MODULES, help="Build a model for the edge agent: train on a CPU, measure, pack.")
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
