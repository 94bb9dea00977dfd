"""What must never be committed, and what must always be there."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

IMAGE_NAMES = re.compile(r"\.(jpe?g|png|tiff?|bmp|webp|gif|dcm|dicom|jp2|heic)$", re.IGNORECASE)
IMAGE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"II*\0", b"MM\0*", b"GIF8", b"\0\0\0\x0cjP")
# A path of somebody's own machine; /home/pi is the account that Raspberry Pi's documents use.
OWN_PATH = re.compile(r"(?<![\w.}/-])/(?:home/(?!pi\b)|root/|Users/|work/|tmp/bash)\w+")


@pytest.fixture(scope="module")
def tracked(repository: Path) -> dict[str, Path]:
    if not (repository / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, text=True, check=True).stdout.split("\0")
    return {name: repository / name for name in names if name and (repository / name).is_file()}


def is_image(name: str, start: bytes) -> bool:
    return bool(IMAGE_NAMES.search(name)) or start.startswith(IMAGE_STARTS) or start[128:132] == b"DICM"


def test_no_image_is_committed(tracked: dict[str, Path]) -> None:
    images = []
    for name, path in tracked.items():
        with path.open("rb") as file:
            if is_image(name, file.read(132)):
                images.append(name)
    assert images == []
    assert is_image("scan", bytes(128) + b"DICM")
    assert is_image("a.JPG", b"")


def test_no_file_names_a_place_on_one_machine(tracked: dict[str, Path]) -> None:
    found = []
    for name, path in tracked.items():
        try:
            text = path.read_text("utf-8")
        except UnicodeDecodeError:
            continue  # binary: the bundle's model and vectors
        found += [f"{name}: {match.group()}" for match in OWN_PATH.finditer(text)]
    assert found == []
    assert OWN_PATH.search("see " + "/home" + "/someone/x")


def test_the_licence_is_the_one_that_the_package_states(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    text = (repository / "LICENSE").read_text("utf-8")
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text


def test_the_change_log_has_this_version_with_its_date_on_top(repository: Path) -> None:
    """Above it stands at most what is not released yet."""
    version = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    headings = re.findall(r"^## (.+)$", (repository / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    released = [heading for heading in headings if heading != "Unreleased"]
    assert headings in (released, ["Unreleased", *released])
    assert re.fullmatch(rf"{re.escape(version)} \(20\d\d-\d\d-\d\d\)", released[0])


def test_each_script_can_be_run_and_stops_at_the_first_fault(repository: Path) -> None:
    scripts = [path for path in [*(repository / "scripts").iterdir(), repository / ".ci" / "run"] if path.is_file()]
    programs = [path for path in scripts if path.read_bytes().startswith(b"#!")]
    assert {"quickstart", "test", "run"} <= {path.name for path in programs}
    for path in programs:
        assert os.access(path, os.X_OK), f"{path.name} is not executable"
        if "bash" in path.read_text("utf-8").splitlines()[0]:
            assert "\nset -euo pipefail\n" in path.read_text("utf-8"), path.name


def blanket_handlers(source: str) -> list[int]:
    """Lines of handlers that catch everything and do not raise it again."""

    def catches_all(handler: ast.ExceptHandler) -> bool:
        kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
        return any(kind is None or (isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException")) for kind in kinds)

    def raises(handler: ast.ExceptHandler) -> bool:
        return any(isinstance(node, ast.Raise) for node in ast.walk(handler))

    handlers = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ExceptHandler)]
    return [handler.lineno for handler in handlers if catches_all(handler) and not raises(handler)]


def test_everything_is_caught_only_where_one_image_ends_and_where_the_program_does(repository: Path) -> None:
    allowed = {"edge_agent/agent/worker_pool.py", "edge_agent/cli.py", "model_build/cli.py"}
    found = []
    for package in ("edge_agent", "model_build"):
        for path in sorted((repository / package).rglob("*.py")):
            name = path.relative_to(repository).as_posix()
            if name not in allowed:
                found += [f"{name}:{line}" for line in blanket_handlers(path.read_text("utf-8"))]
    assert found == []
    assert blanket_handlers("try:\n    f()\nexcept (OSError, Exception):\n    pass") == [3]
    assert blanket_handlers("try:\n    f()\nexcept BaseException:\n    g()\n    raise") == []


def test_each_finding_says_what_it_is_and_leaves_nothing(repository: Path) -> None:
    """They fetch packages, so that no test runs them; ``findings/README.md`` has the format."""
    findings = sorted((repository / "findings").glob("*.sh"))
    assert len(findings) >= 4
    for path in findings:
        text = path.read_text("utf-8")
        parts = re.findall(r"^# (\w+): +\S", text.partition("\nset -euo pipefail\n")[0], re.MULTILINE)
        assert parts == ["Finding", "Expected", "Seen", "Source", "Here"], path.name
        assert os.access(path, os.X_OK), path.name
        assert "\ntrap 'rm -rf -- \"$work\"' EXIT\n" in text, path.name
        [packages] = re.findall(r" pip install --quiet --disable-pip-version-check (.+)$", text, re.MULTILINE)
        assert all(re.fullmatch(r"[\w-]+==[\d.]+", package) for package in packages.split()), path.name
        assert 'raise SystemExit("changed: ' in text or 'raise SystemExit(f"changed: ' in text, path.name
