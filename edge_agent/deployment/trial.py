"""A new model is tried in a process of its own: one that crashes the interpreter, or never ends, takes nothing else with it.

python -P -m edge_agent.deployment.trial FOLDER DIGEST
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edge_agent.child_process import PythonChild
from edge_agent.errors import EdgeAgentError, ModelContractError, ModelError

TIMEOUT_S = 120.0
"""Python, the runtime and the golden vectors take half a second on a desktop, and some seconds on the slowest boards."""

_MAX_MEMORY_BYTES = 1024**3
_REASON_CHARACTERS = 500


def try_bundle(directory: Path, digest: str, *, timeout_s: float = TIMEOUT_S) -> None:
    """Build the interpreter of a bundle and run its golden vectors, in a child process.

    Parameters
    ----------
    directory : Path
        The bundle's folder; its files are verified again by the child, which runs what it has read.
    digest : str
        SHA-256 of the manifest that was verified here.
    timeout_s : float
        A child that has not ended by then is killed.

    Raises
    ------
    ModelError
        If the child refuses the model, does not end in time, or is killed.
    """
    try:
        with PythonChild("edge_agent.deployment.trial", str(directory), digest) as child:
            ended = child.wait(timeout_s)
    except OSError as fault:
        raise ModelError(
            f"the model could not be tried, because {sys.executable} cannot be started: {fault.strerror}; run it as the user who owns the"
            " home folder"
        ) from fault
    if ended.exit_code is None:
        raise ModelError(f"the model was tried and had not finished its test images after {timeout_s:g} s; it is not fit for this board")
    if ended.signal_name:
        raise ModelError(
            f"the model was tried and brought its process down ({ended.signal_name}): it is damaged or not fit for this board; do not use"
            " it, and tell the people who built it"
        )
    if ended.exit_code:
        reason = ended.last_line.removeprefix("error: ")[:_REASON_CHARACTERS]
        raise ModelError(f"the model was tried and failed: {reason or 'it gave no reason'}")


def main() -> int:
    """Try the bundle that the arguments name; gives the exit code."""
    directory, digest = Path(sys.argv[1]), sys.argv[2]
    _spare_the_others()
    from edge_agent.inference.bundle import load_bundle, make_interpreter

    try:
        # The signature was verified by the parent, over the manifest of this digest.
        bundle = load_bundle(directory)
        if bundle.digest != digest:
            raise ModelContractError(f"{directory}: not the bundle that was verified")
        make_interpreter(bundle)
    except EdgeAgentError as fault:
        sys.stderr.write(f"error: {fault}\n")
        return fault.exit_code
    return 0


def _spare_the_others() -> None:
    """Let a model which takes all memory be killed before other programs, and let a crash leave no core file on a small disk."""
    import resource
    from contextlib import suppress

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    os.nice(5)


if __name__ == "__main__":
    sys.exit(main())
