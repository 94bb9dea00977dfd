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


def constants_under_a_comment(source: str) -> list[str]:
    """Name the module's constants that a comment above explains: a string literal below does, everywhere."""
    lines = source.splitlines()
    return [
        ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        and isinstance(node.targets[0] if isinstance(node, ast.Assign) else node.target, ast.Name | ast.Tuple)
        and lines[node.lineno - 2].startswith("# ")
    ]


def test_constants_are_explained_in_one_way(repository: Path) -> None:
    found = {
        path.relative_to(repository).as_posix(): names
        for package in ("edge_agent", "model_build")
        for path in sorted((repository / package).rglob("*.py"))
        if (names := constants_under_a_comment(path.read_text("utf-8")))
    }
    assert found == {}
    assert constants_under_a_comment('import os\n\n# Why.\nA: int = 1\nB = 2\n"""Why."""') == ["A"]


CATCHING_EVERYTHING = {
    "edge_agent/agent/classify.py: _decode": "a decoder may raise anything at one file, which is then recorded as unreadable",
    "edge_agent/agent/worker_pool.py: _run": "a worker's thread hands the error to the main loop, which raises it again",
    "edge_agent/cli.py: main": "the program ends with a message and an exit code",
    "model_build/experiments/build_process.py: _work": "a build's process hands its error to the parent, and the other builds go on",
}
"""The functions that may catch every exception, and why."""


def blanket_handlers(source: str) -> list[str]:
    """Name the functions that catch everything, but for handlers that tidy up and end with a bare ``raise``."""
    everything = ("Exception", "BaseException")

    def names_all(kinds: list[ast.expr]) -> bool:
        return any(isinstance(kind, ast.Name) and kind.id in everything for kind in kinds)

    def catches_all(node: ast.AST) -> bool:
        if isinstance(node, ast.ExceptHandler):
            last = node.body[-1]
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type] if node.type else []
            return (not kinds or names_all(kinds)) and not (isinstance(last, ast.Raise) and last.exc is None)
        return isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress") and names_all(node.args)

    def look(node: ast.AST, function: str) -> list[str]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        here = [function] if catches_all(node) else []
        return here + [name for child in ast.iter_child_nodes(node) for name in look(child, function)]

    return look(ast.parse(source), "")


def test_everything_is_caught_only_in_named_places(repository: Path) -> None:
    found = [
        f"{path.relative_to(repository).as_posix()}: {function}"
        for package in ("edge_agent", "model_build")
        for path in sorted((repository / package).rglob("*.py"))
        for function in blanket_handlers(path.read_text("utf-8"))
    ]
    assert found == list(CATCHING_EVERYTHING)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("try:\n        g()\n    except (OSError, Exception):\n        pass", ["f"]),
        ("try:\n        g()\n    except:\n        pass", ["f"]),
        ("try:\n        g()\n    except Exception as error:\n        raise ValueError from error", ["f"]),
        ("with contextlib.suppress(OSError, Exception):\n        g()", ["f"]),
        ("try:\n        g()\n    except BaseException:\n        g()\n        raise", []),
        ("try:\n        g()\n    except OSError:\n        pass", []),
    ],
)
def test_a_handler_that_catches_everything_is_seen(body: str, found: list[str]) -> None:
    assert blanket_handlers(f"def f():\n    {body}\n") == found


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
