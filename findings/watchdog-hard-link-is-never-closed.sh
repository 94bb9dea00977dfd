#!/usr/bin/env bash
# Finding:  a file that is linked or truncated into a watched folder gives no "closed" event.
# Expected: whoever waits for on_closed hears of every file that was written.
# Seen:     a plain write gives created, modified, closed; os.link gives created only; os.truncate by path gives modified
#           only. A program that acts on on_closed alone never sees the linked file. watchdog 7.1.0, Linux (inotify).
# Source:   inotify(7): IN_CLOSE_WRITE is about a file descriptor opened for writing; neither call opens one.
# Here:     the agent takes events as hints only; a file is taken when size, time and inode have stood still
#           (edge_agent/intake/settle.py).
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check watchdog==7.1.0

cd "$work"
venv/bin/python - <<'END'
import importlib.metadata
import os
import time
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

print("watchdog", importlib.metadata.version("watchdog"), "on", os.uname().sysname, os.uname().release)
inbox, outside = Path("inbox"), Path("outside.jpg")
inbox.mkdir()
outside.write_bytes(b"12345678")
seen: dict[str, set[str]] = {}


class Listener(FileSystemEventHandler):
    def on_any_event(self, event: FileSystemEvent) -> None:
        if not event.is_directory:
            seen.setdefault(Path(os.fsdecode(event.src_path)).name, set()).add(event.event_type)


def wait_for(name: str, kind: str) -> None:
    deadline = time.monotonic() + 20
    while kind not in seen.get(name, ()):
        if time.monotonic() > deadline:
            raise SystemExit(f"changed: no event {kind!r} for {name}; seen: {seen}")
        time.sleep(0.01)


observer = Observer()
observer.schedule(Listener(), str(inbox))
observer.start()
os.link(outside, inbox / "linked.jpg")
wait_for("linked.jpg", "created")
(inbox / "written.jpg").write_bytes(b"12345678")
wait_for("written.jpg", "closed")  # events come in order: what the link gives has come before this
linked = set(seen["linked.jpg"])
os.truncate(inbox / "linked.jpg", 4)
wait_for("linked.jpg", "modified")
(inbox / "last.jpg").write_bytes(b"1")
wait_for("last.jpg", "closed")
observer.stop()
observer.join()
print("written:  ", *sorted(seen["written.jpg"]))
print("linked:   ", *sorted(linked))
print("truncated:", *sorted(seen["linked.jpg"] - linked))
if "closed" in seen["linked.jpg"]:
    raise SystemExit("changed: a linked or truncated file is reported as closed")
END
