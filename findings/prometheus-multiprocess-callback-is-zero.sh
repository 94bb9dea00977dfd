#!/usr/bin/env bash
# Finding:  a gauge with a callback (set_function) exports 0 in prometheus-client's multiprocess mode.
# Expected: the callback is asked at each scrape, as in one process.
# Seen:     one process shows 42; with PROMETHEUS_MULTIPROC_DIR the same gauge shows 0, without a warning.
#           prometheus-client 0.26.0.
# Source:   prometheus/client_python README, multiprocess mode: the collector reads files, and callbacks write none.
# Here:     nothing uses it yet; noted for whoever adds metrics.
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check prometheus-client==0.26.0

cd "$work"
venv/bin/python - <<'END'
import importlib.metadata
import os
import subprocess
import sys

print("prometheus-client", importlib.metadata.version("prometheus-client"))
gauge = """
import os
from prometheus_client import REGISTRY, CollectorRegistry, Gauge, generate_latest, multiprocess
Gauge("queue_images", "Waiting", multiprocess_mode="all").set_function(lambda: 42)
registry = REGISTRY
if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
print([line.rpartition(" ")[2] for line in generate_latest(registry).decode().splitlines() if line.startswith("queue_images")])
"""
os.mkdir("metrics")


def shown(**more: str) -> str:
    return subprocess.run([sys.executable, "-c", gauge], env={**os.environ, **more}, capture_output=True, text=True, check=True).stdout.strip()


one, many = shown(), shown(PROMETHEUS_MULTIPROC_DIR="metrics")
print("one process:", one, " multiprocess mode:", many)
if (one, many) != ("['42.0']", "['0.0']"):
    raise SystemExit("changed: a callback is asked in multiprocess mode too")
END
