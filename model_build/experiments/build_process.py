"""One build in a process of its own: its memory ends with it, its threads can be limited, and its crash is one failed build."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from edge_agent.child_process import ChildExit
from edge_agent.errors import ConfigError, EdgeAgentError
from model_build.libraries import explain_missing
from model_build.run_folder import CONFIG, ENVIRONMENT, EPOCHS, prepare_out, write_json

INTERRUPTED = 130
"""128 + SIGINT, as shells report it."""

_TIMEOUT_S = 30.0
"""How long an interrupted build may take to keep its last epoch and end."""


@dataclass(frozen=True)
class Order:
    """What to build, and where. ``threads`` is None where the machine decides; ``verbose`` is 0, 1 or 2 as in a recipe."""

    folder: Path
    config_text: str
    data: Path
    threads: int | None = None
    verbose: int = 1


@dataclass(frozen=True)
class Failure:
    """Why a build did not finish, in words, and the exit code that belongs to it."""

    message: str
    exit_code: int


def build(order: Order) -> None:
    """Build in this process what an order says. A build that was interrupted goes on after its last finished epoch.

    Raises
    ------
    EdgeAgentError
        As the build does.
    """
    # TensorFlow writes its start-up lines past Python; only its errors are for the user.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from model_build.build import Build
    from model_build.config import load_build_config
    from model_build.environment import environment
    from model_build.progress import make_progress

    resume = prepare_out(order.folder, order.config_text, resume=True, warn=lambda _: None)
    write_json(order.folder / ENVIRONMENT, environment() | {"threads": order.threads})
    with make_progress(order.verbose, order.folder / EPOCHS) as progress:
        Build(load_build_config(order.folder / CONFIG), order.data, order.folder, progress).run(resume=resume)


def limit_threads(count: int) -> None:
    """Let this process, which has not imported TensorFlow yet, compute on ``count`` threads.

    Where the system supports it, the process is also bound to that many cores, because decoding, scikit-learn and the int8 interpreter
    each start a thread for every core that they may use.
    """
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(count)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:count]))


def _end_with_parent() -> None:
    """End as soon as the parent has ended: a second build may be started then, and two must not write into one folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(INTERRUPTED)


def _work(order: Order, work: Callable[[Order], None], outcome: Connection) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        if order.threads is not None:
            limit_threads(order.threads)
        work(order)
    except EdgeAgentError as fault:
        outcome.send(Failure(str(fault), fault.exit_code))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as fault:
        missing = explain_missing(fault) if isinstance(fault, ModuleNotFoundError) else None
        if missing is None:
            outcome.send(Failure(f"an unexpected error ({type(fault).__name__}: {fault})", EdgeAgentError.exit_code))
            raise
        outcome.send(Failure(missing, ConfigError.exit_code))
    else:
        outcome.send(None)


def build_apart(order: Order, work: Callable[[Order], None] = build) -> Failure | None:
    """Build in a new process and wait for its end.

    Parameters
    ----------
    order : Order
    work : callable
        What the new process does; a function at the top level of a module.

    Returns
    -------
    Failure or None
        None where the build finished.

    Raises
    ------
    KeyboardInterrupt
        After the new process has ended.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(order, work, sender), name=f"build of {order.folder.name}")
    process.start()
    sender.close()
    try:
        outcome: Failure | None = receiver.recv()
        process.join()
    except EOFError:
        process.join()
        return _failure_of(process.exitcode or 0)
    except KeyboardInterrupt:
        # Ctrl-C reaches the whole process group: the build ends by itself, with its last epoch kept.
        process.join(_TIMEOUT_S)
        process.kill()
        process.join()
        raise
    finally:
        receiver.close()
    return outcome


def _failure_of(exit_code: int) -> Failure:
    """The failure of a process that ended without an answer."""
    if exit_code == INTERRUPTED:
        raise KeyboardInterrupt
    ended = ChildExit(exit_code)
    hint = "; the system does this when memory runs out: lower batch_size or the image size" if ended.signal_name == "SIGKILL" else ""
    return Failure(f"the build {ended}{hint}", EdgeAgentError.exit_code)
