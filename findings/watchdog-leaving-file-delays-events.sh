#!/usr/bin/env bash
# Finding:  a file that leaves a watched folder delays every event behind it by half a second.
# Expected: an observer reports each event as soon as the kernel gives it.
# Seen:     after a file is moved out of the folder, the next created file is reported about 0.5 s late; without a file
#           that leaves, within a few milliseconds. watchdog 7.1.0, Linux (inotify).
# Source:   watchdog/observers/inotify*.py: a "moved from" event waits for its "moved to", and the queue waits with it.
# Here:     the agent moves each finished image out of its inbox, so it does not ask the kernel for files that leave
#           (edge_agent/intake/watch.py).
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check watchdog==7.1.0

cd "$work"
venv/bin/python - <<'END'
import importlib.metadata
import os
import statistics
import time
from pathlib import Path

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer

print("watchdog", importlib.metadata.version("watchdog"), "on", os.uname().sysname, os.uname().release)
inbox, done = Path("inbox"), Path("done")
inbox.mkdir()
done.mkdir()
seen_s: dict[str, float] = {}


class Listener(FileSystemEventHandler):
    def on_created(self, event: FileSystemEvent) -> None:
        seen_s.setdefault(Path(os.fsdecode(event.src_path)).name, time.monotonic())


def delay_s(name: str) -> float:
    created_s = time.monotonic()
    (inbox / name).write_bytes(b"1")
    while name not in seen_s:
        if time.monotonic() > created_s + 20:
            raise SystemExit(f"changed: no event for {name}")
        time.sleep(0.001)
    return seen_s[name] - created_s


observer = Observer()
observer.schedule(Listener(), str(inbox))
observer.start()
plain, behind = [], []
for number in range(5):
    plain.append(delay_s(f"plain-{number}"))
    time.sleep(1)
    (inbox / f"plain-{number}").rename(done / f"plain-{number}")
    behind.append(delay_s(f"behind-{number}"))
    time.sleep(1)
observer.stop()
observer.join()
print(f"created:                      reported after {statistics.median(plain):.3f} s (median of 5)")
print(f"created behind one that left: reported after {statistics.median(behind):.3f} s (median of 5)")
if statistics.median(behind) < 0.3:
    raise SystemExit("changed: a file that leaves delays nothing")
END
