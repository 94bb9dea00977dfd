"""The folders that a session works in: made where they are the agent's own, looked for where they are not."""

from __future__ import annotations

import os
from pathlib import Path

from edge_agent.config import WRITTEN_FOLDERS, Config
from edge_agent.errors import ConfigError, SourceGoneError
from edge_agent.files.atomic import storage_error
from edge_agent.files.mounts import Mount
from edge_agent.intake.presence import check_present


def make_folders(config: Config, *, is_new: bool) -> None:
    """Make what is missing in a home; the inbox only in a new one: later it may be a share that is away, not to be made in its place.

    Raises
    ------
    StorageError
        If a folder can not be made.
    """
    for name in (*WRITTEN_FOLDERS, "inbox") if is_new and config.intake.inbox is None else WRITTEN_FOLDERS:
        try:
            (config.home / name).mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise storage_error(fault, f"make the folder {config.home / name}") from fault


def check_inbox(inbox: Path, expected: Mount | None, *, leaves: bool) -> Mount:
    """See that the inbox is there and can be used.

    Parameters
    ----------
    inbox : Path
        Absolute, without symbolic links.
    expected : Mount or None
        What it stood on when it was last in use. Without it the inbox was never in use: what is wrong is a mistake and does not pass.
    leaves : bool
        Whether images leave the inbox, so that it must be writable.

    Returns
    -------
    Mount
        What it stands on.

    Raises
    ------
    ConfigError, SourceGoneError
        If it can not be used.
    """
    if expected is None and not inbox.exists():
        raise SourceGoneError(f"the inbox {inbox} does not exist: create it, mount its disk, or name another with --inbox")
    if expected is None and not inbox.is_dir():
        raise ConfigError(f"the inbox {inbox} is not a folder: name a folder with --inbox")
    mount = check_present(inbox, expected)
    if os.access(inbox, os.R_OK | os.X_OK | (os.W_OK if leaves else 0)):
        return mount
    advice = (
        f"the inbox {inbox} is not writable for the agent, so that images can not be moved out of it: "
        'give the agent\'s user write access to the folder, or set [intake] on_done = "keep"'
    )
    raise ConfigError(advice) if expected is None else SourceGoneError(f"{advice}; work goes on by itself then")
