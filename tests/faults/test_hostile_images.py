"""Files made to harm: each must end as the fault that it is, fast, in little memory, and without a patient's name."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HOSTILE = Path(__file__).with_name("hostile")
ATTACKS: dict[str, tuple[str, Any]] = runpy.run_path(str(HOSTILE / "make.py"))["ATTACKS"]

MEMORY_LIMIT_MIB = 64
"""Beyond what the decoders need for themselves; the smallest bomb here would take 95 MiB, most over a gibibyte."""

TIME_LIMIT_S = 2.0
"""Of the processor; on an idle machine the slowest takes a tenth of it."""

DECODE_FOLDER = """
import json, resource, sys, time
from pathlib import Path
from edge_agent.errors import InputFault
from edge_agent.imaging.decode import decode_image
import pydicom.filereader, pydicom.pixels.utils, pydicom.pixels.decoders, PIL.Image

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

for path in sorted(Path(sys.argv[1]).iterdir()):
    content = path.read_bytes()
    peak_before, started = peak_mib(), time.process_time()
    try:
        decode_image(content, rows=160, columns=160)
        code, message = "", ""
    except InputFault as fault:
        code, message = fault.code, fault.message
    row = {"name": path.name, "code": code, "message": message, "s": time.process_time() - started, "mib": peak_mib() - peak_before}
    print(json.dumps(row), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """All attacks decoded in one process of their own, so that a crash or a hang of a decoder ends it and not the tests."""
    folder = tmp_path_factory.mktemp("hostile")
    subprocess.run([sys.executable, str(HOSTILE / "make.py"), str(folder)], check=True, timeout=120)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DECODE_FOLDER, str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"after {rows[-1:]}: {done.stderr}"
    return {row["name"]: row for row in rows}


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_file_ends_as_the_fault_that_it_is(name: str, outcomes: dict[str, dict[str, Any]]) -> None:
    """
    1. A file made to harm comes in.
    2. It is decoded.

    Result: the fault that names what is wrong with it (or the picture, where the attack is aside of the pixels).
    """
    outcome = outcomes[name]
    assert outcome["code"] == ATTACKS[name][0], outcome["message"]
    assert "zzyzx" not in outcome["message"].lower()


@pytest.mark.parametrize("name", ATTACKS)
def test_a_hostile_file_costs_neither_time_nor_memory(name: str, outcomes: dict[str, dict[str, Any]]) -> None:
    """
    1. A file that promises thousands of megapixels, frames, bytes, scans or levels comes in.
    2. It is decoded.

    Result: it is refused before anything of that size is allocated or walked through.
    """
    assert outcomes[name]["mib"] < MEMORY_LIMIT_MIB
    assert outcomes[name]["s"] < TIME_LIMIT_S


def test_the_readme_names_each_attack_and_no_other() -> None:
    lines = re.findall(r"^\| `([^`]+)` \|.+\| (?:`([^`]+)`|decoded) \|$", (HOSTILE / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert lines == [(name, code) for name, (code, _) in ATTACKS.items()]


def test_the_folder_holds_no_binaries() -> None:
    assert sorted(path.name for path in HOSTILE.iterdir() if path.name != "__pycache__") == ["README.md", "make.py"]
