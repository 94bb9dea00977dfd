"""``edge-agent doctor``: what is wrong here, and what to do about it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from edge_agent.doctor.finding import AREAS, Area

if TYPE_CHECKING:
    from edge_agent.doctor.examine import ExaminedAgent
    from edge_agent.doctor.finding import Finding


@click.command(name="doctor")
@click.option("--config", "config_path", type=click.Path(path_type=Path), metavar="FILE", help="TOML configuration.")
@click.option("--home", type=click.Path(path_type=Path), metavar="DIR", help="Home folder of the agent.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True, help="For people or programs.")
@click.option(
    "--area", "areas", multiple=True, type=click.Choice(AREAS), help="Check this area only; may be repeated. [default: everything]"
)
def command(config_path: Path | None, home: Path | None, form: Literal["table", "json"], areas: tuple[Area, ...]) -> int:
    """Check everything that the agent depends on, and say what to do. Changes nothing, and needs no network.

    Without --config and --home it looks at the agent that is installed on this box. As root it looks with the rights of the agent's user.
    The exit code is 1 where there is a problem, 0 where there are none or only warnings.
    """
    from edge_agent.doctor.examine import examine
    from edge_agent.doctor.finding import worst
    from edge_agent.doctor.table import print_findings

    agent = _examined(config_path, home)
    findings = examine(agent, areas or AREAS)
    if form == "json":
        _print_json(agent, findings)
    else:
        print_findings(findings, sys.stdout)
    return 1 if worst(findings) == "problem" else 0


def _examined(config_path: Path | None, home: Path | None) -> ExaminedAgent:
    """Find the agent that is meant, and go on with the rights of its user."""
    from edge_agent.config import config_of_box, load_config
    from edge_agent.doctor.access import become_agent
    from edge_agent.doctor.examine import ExaminedAgent
    from edge_agent.errors import ConfigError

    config_path = config_of_box(config_path, home)
    fault = ""
    try:
        config = load_config(config_path, home=home)
    except ConfigError as refused:
        config, fault = load_config(None, home=home), str(refused)
    user = become_agent(config.home)
    if config_path is not None and not fault and not os.access(config_path, os.R_OK, effective_ids=True):
        fault = f"{config_path} cannot be read by {user.name}, as whom the agent runs:  sudo chown {user.name} {config_path}"
    return ExaminedAgent(config=config, config_path=config_path, config_fault=fault, user=user)


def _print_json(agent: ExaminedAgent, findings: list[Finding]) -> None:
    import msgspec

    from edge_agent.doctor.finding import worst
    from edge_agent.files.names import printable_path

    report = {"verdict": worst(findings), "home": printable_path(str(agent.config.home)), "user": agent.user.name, "findings": findings}
    click.echo(msgspec.json.encode(report).decode())
