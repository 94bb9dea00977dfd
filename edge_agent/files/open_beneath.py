"""Folders opened below a root without following symbolic links."""

from __future__ import annotations

import os
from pathlib import Path


def open_folder(root: Path, parts: tuple[str, ...]) -> int:
    """Open the folder ``parts`` below ``root`` without following a symbolic link on the way.

    A path is checked and used at different times; whoever may write to the inbox could swap a sub-folder for a link in between. What
    is done relative to this descriptor stays inside the inbox.

    Returns
    -------
    int
        A descriptor for ``dir_fd=``; the caller closes it.

    Raises
    ------
    OSError
        If a folder is gone (``ENOENT``) or is no folder any more (``ELOOP``, ``ENOTDIR``).
    """
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor
