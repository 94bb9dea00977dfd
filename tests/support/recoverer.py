"""A start's recovery in a process of its own, which kills itself at its nth operation on a file.

    python tests/support/recoverer.py SETTINGS

SETTINGS is one JSON object: ``home``; ``inbox``; ``nth``, from 1.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from edge_agent.agent.ledger import Ledger
from support.forking import ForkServer, serve

STEPS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate", "sqlite3.connect", "open")
"""Events of Python's audit hooks; of "open" only those that open for writing."""


def main(settings: dict[str, Any]) -> int:
    """Open and recover; gives the exit code."""
    count = 0

    def kill(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in STEPS and (event != "open" or (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR))):
            count += 1
            if count == settings["nth"]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(kill)
    ledger = Ledger(Path(settings["home"]), Path(settings["inbox"]), "move")
    ledger.recover()
    ledger.close(sync_timeout_s=10)
    return 0


_server = ForkServer(Path(__file__))


def killed_at(home: Path, inbox: Path, nth: int) -> bool:
    """Recover a home until the nth operation; False where the end came before."""
    with _server.start({"home": str(home), "inbox": str(inbox), "nth": nth}) as process:
        code = process.wait(60)
        assert code in (0, -signal.SIGKILL), process.stderr.read()
        return code != 0


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        serve(int(sys.argv[2]), main)
    else:
        sys.exit(main(json.loads(sys.argv[1])))
