"""How long a start takes when the inbox holds 100,000 files that all have their record, with ``on_done = "keep"``.

.venv/bin/python tests/benchmarks/bench_rescan.py [--files 100000]
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from reporting import Measured, arguments, at_most, median, print_report

from edge_agent.bench.arrivals import disk_folder, write_config
from edge_agent.database.database import Database, Reader
from edge_agent.database.pending_commit import PendingCommit, Settlement
from edge_agent.inference.bundle import load_bundle
from edge_agent.records import Arrival, ModelIdentity, Record

ROUNDS = 5
FILES_PER_FOLDER = 1000
COMMIT_FILES = 10_000


def known_files(inbox: Path, count: int, model: ModelIdentity) -> list[tuple[Record, Arrival]]:
    """Make files in sub-folders, and the records that an agent would have made of them."""
    entries = []
    for number in range(count):
        path = f"{number // FILES_PER_FOLDER:03d}/{number:06d}.jpg"
        content = b"%09d" % number
        if number % FILES_PER_FOLDER == 0:
            (inbox / path).parent.mkdir(parents=True)
        (inbox / path).write_bytes(content)
        stat = (inbox / path).lstat()
        now = datetime.now(UTC)
        record = Record(
            source="folder",
            path=path,
            sha256=hashlib.sha256(content).hexdigest(),
            received_at=now,
            finished_at=now,
            status="done",
            model=model,
            scores={"NORMAL": 0.5, "PNEUMONIA": 0.5},
            label="NORMAL",
            decision="negative",
            novelty=0.5,
        )
        arrival = Arrival(
            source="folder",
            path=path,
            size_bytes=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            ctime_ns=stat.st_ctime_ns,
            inode=stat.st_ino,
            received_at=now,
            settled_ns=0,
        )
        entries.append((record, arrival))
    return entries


def seconds_of_a_run(scratch: Path, home: Path, model: Path) -> float:
    config = scratch / f"{home.name}.toml"
    chosen: dict[str, float | str] = {"model.bundle": str(model), "model.allow_unsigned": True}
    write_config(config, chosen | {"home": str(home), "intake.on_done": "keep", "intake.settle_time_s": 0})
    command = [sys.executable, "-m", "edge_agent.cli", "run", "--once", "--config", str(config)]
    started_s = time.perf_counter()
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started_s


def main() -> int:
    parser = arguments(__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    options = parser.parse_args()
    model = options.model.absolute()
    with disk_folder() as folder:
        scratch = Path(folder)
        full, empty = scratch / "full", scratch / "empty"
        (full / "inbox").mkdir(parents=True)
        empty.mkdir()
        # The agent makes the database; we fill it as it would have.
        seconds_of_a_run(scratch, full, model)
        entries = known_files(full / "inbox", options.files, load_bundle(model).identity)
        with Database(full / "state" / "edge-agent.db") as database:
            for start in range(0, len(entries), COMMIT_FILES):
                ids = database.insert(PendingCommit(entries[start : start + COMMIT_FILES]))
                database.insert(PendingCommit(settlements=[Settlement(record_id, 1.0, 1.0, True) for record_id in ids]))
        print("writing the results of the known files ...", file=sys.stderr)
        seconds_of_a_run(scratch, full, model)
        seconds_of_a_run(scratch, empty, model)
        with_files = [seconds_of_a_run(scratch, full, model) for _ in range(ROUNDS)]
        without = [seconds_of_a_run(scratch, empty, model) for _ in range(ROUNDS)]
        with Reader(full / "state" / "edge-agent.db") as reader:
            last = reader.last()
        assert last is not None
        assert last.id == options.files, f"a known file was classified again: {last.id} records"
    rescan = median(with_files) - median(without)
    return print_report(
        f"Start with {options.files:,} known files in the inbox, median of {ROUNDS}",
        [
            Measured("run --once, empty inbox", median(without), "s"),
            Measured(f"run --once, {options.files:,} known files", median(with_files), "s"),
            at_most("rescan (the difference)", rescan, 3, "s"),
        ],
    )


if __name__ == "__main__":
    raise SystemExit(main())
