"""The doctor's look at Python, the packages, the configuration and the model."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge_agent.bench.board import read_board
from edge_agent.doctor.finding import Finding, ok
from edge_agent.doctor.probe import ProbeResult
from edge_agent.doctor.program import build_finding, config_finding, model_findings, package_findings, python_findings
from edge_agent.version import describe_build


def by_check(findings: Iterator[Finding] | list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def test_a_missing_wheel_is_a_problem_and_a_missing_extra_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"click": "8.1", "numpy": "2.0"}

    def version(name: str) -> str:
        if name not in there:
            raise importlib.metadata.PackageNotFoundError(name)
        return there[name]

    requires = ["click>=8.1", "numpy>=1.26", "opencv-python-headless>=4.9; extra == 'camera'", "tensorflow; extra == 'build'"]
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(importlib.metadata, "requires", lambda _name: requires)
    found = by_check(package_findings())
    assert found["packages"].verdict == "ok"
    assert found["packages"].saw == "click 8.1, numpy 2.0"
    assert found["extras"] == ok("extras", "none; not installed: camera")
    requires.append("ai-edge-litert<2.2,>=2.1.6")
    found = by_check(package_findings())
    assert found["packages"].verdict == "problem"
    assert found["packages"].saw.startswith("missing: ai-edge-litert;")


def test_the_build_is_named_as_its_version_option_names_it() -> None:
    assert build_finding() == ok("edge-agent", describe_build())


def test_the_packages_of_this_environment() -> None:
    found = by_check(package_findings())
    assert found["packages"].verdict == "ok"
    assert "ai-edge-litert" in found["packages"].saw


@pytest.mark.parametrize(("glibc", "verdict"), [("2.36", "ok"), ("2.27", "ok"), ("2.26", "problem"), (None, "problem")])
def test_the_c_library(glibc: str | None, verdict: str) -> None:
    board = msgspec.structs.replace(read_board(), glibc=glibc)
    assert by_check(python_findings(board))["C library"].verdict == verdict


@pytest.mark.parametrize(
    ("result", "page_size_bytes", "word"),
    [
        (ProbeResult({}, "was killed by SIGILL", "running the model", "SIGILL"), 4096, "newer board"),
        (ProbeResult({}, "was killed by SIGSEGV", "loading numpy", "SIGSEGV"), 16384, "kernel8.img"),
        (ProbeResult({}, "was killed by SIGSEGV", "loading numpy", "SIGSEGV"), 4096, "scripts/install"),
        (ProbeResult({}, "was killed by SIGKILL", "running the model", "SIGKILL"), 4096, "memory"),
        (ProbeResult({}, "No module named 'numpy'", "loading numpy"), 4096, "scripts/install"),
        (ProbeResult({}, "model.tflite: not the file that was packed", "reading the model's files"), 4096, "rollback"),
    ],
)
def test_a_crash_is_a_result_with_its_advice(result: ProbeResult, page_size_bytes: int, word: str) -> None:
    (found,) = model_findings(msgspec.structs.replace(read_board(), page_size_bytes=page_size_bytes), result)
    assert found.verdict == "problem"
    assert result.failure in found.saw
    assert word in found.advice


def test_the_configuration() -> None:
    assert config_finding(None, "").verdict == "ok"
    assert config_finding(Path("/etc/edge-agent/edge-agent.toml"), "intake.inbx: unknown key").verdict == "problem"
