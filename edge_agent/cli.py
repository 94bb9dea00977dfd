"""The ``edge-agent`` command: a group that loads each command when it is asked for, and the one place where errors become exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import MappingProxyType

import click

from edge_agent.command_group import LazyGroup
from edge_agent.errors import EdgeAgentError

COMMAND_MODULES = MappingProxyType(
    {
        "run": "edge_agent.commands.run",
        "predict": "edge_agent.commands.predict",
        "export": "edge_agent.commands.export",
        "status": "edge_agent.commands.status",
        "model": "edge_agent.commands.model",
        "check-config": "edge_agent.commands.check_config",
        "doctor": "edge_agent.commands.doctor",
        "bench": "edge_agent.commands.bench",
    }
)

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""

EXIT_BROKEN_PIPE = 1
"""The reader of our standard output went away (``edge-agent export | head``); the same that click gives."""


@click.group(cls=LazyGroup, modules=COMMAND_MODULES, context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Classify medical images on a small box: no GPU, no network.

    Decision support for triage; not a diagnosis and not a certified medical device.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and give its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process when not given.

    Returns
    -------
    int
        0 ok, 2 usage, else the ``exit_code`` of the error (see :mod:`edge_agent.errors`); 1 for an unexpected error.
    """
    try:
        outcome = cli.main(args=None if argv is None else list(argv), prog_name="edge-agent", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except EdgeAgentError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except BrokenPipeError:
        # What Python still holds for standard output cannot be delivered; without this it would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except Exception as error:
        from edge_agent.surfaces.log import trace_of

        click.echo(trace_of(error), err=True)
        click.echo(f"error: unexpected failure ({type(error).__name__}); please report it with the lines above", err=True)
        return EdgeAgentError.exit_code
    return outcome if isinstance(outcome, int) else 0


if __name__ == "__main__":
    sys.exit(main())
