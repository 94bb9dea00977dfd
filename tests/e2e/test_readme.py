"""The documents say what is so: their commands parse, the quick ones run, their links lead somewhere, the pasted output is the real one."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from edge_agent.cli import cli as edge_agent
from model_build.cli import cli as model_build
from model_build.data.phantom.draw import save_phantom

PROGRAMS = {"edge-agent": edge_agent, "model-build": model_build}
SHOWN = re.compile(r"(?:^|`)(?:\.venv/bin/)?((?:edge-agent|model-build) [a-z-]+[^`#\n]*)", re.MULTILINE)
"""At the start of a line or of a code span."""
MARKED = re.compile(r"^<!-- run -->\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def documents(repository: Path) -> dict[str, str]:
    paths = [*repository.glob("*.md"), *(path for folder in ("docs", "scripts", "systemd") for path in (repository / folder).rglob("*"))]
    return {path.relative_to(repository).as_posix(): path.read_text("utf-8") for path in paths if path.is_file()}


def parse(command: str) -> None:
    """Take a command line apart as the program would, without running it."""
    program, name, *arguments = shlex.split(command)
    parent = click.Context(PROGRAMS[program], info_name=program)
    subcommand = PROGRAMS[program].get_command(parent, name)
    if subcommand is None:
        raise click.UsageError(f"no such command: {name}")
    if not arguments:
        return  # the name of a command, in a sentence
    subcommand.make_context(name, arguments, parent=parent)


def test_every_command_line_shown_anywhere_parses(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The files named in the examples are not there.
    monkeypatch.setattr(click.Path, "convert", lambda _type, value, _parameter, _context: value)
    wrong, count = [], 0
    for name, text in documents(repository).items():
        for command in SHOWN.findall(text.replace("\n# ", "\n")):
            count += 1
            try:
                parse(command)
            except click.ClickException as fault:
                wrong.append(f"{name}: {command}: {fault.format_message()}")
    assert wrong == []
    assert count >= 12
    for command in ("edge-agent run --no-such-option", "edge-agent exprot"):
        with pytest.raises(click.ClickException):
            parse(command)


def test_the_marked_commands_run(repository: Path, tmp_path: Path) -> None:
    if not (repository / "edge_agent" / "models" / "cxr-pneumonia" / "manifest.json").is_file():
        pytest.skip("the bundle that ships is not there")
    for folder in ("demo/inbox", "folder"):
        (tmp_path / folder).mkdir(parents=True)
        save_phantom(tmp_path / folder / "a.jpg", 0, rows=256, columns=256)
    radiograph = Path(str(pytest.importorskip("data_store").__file__)).parent / "data" / "RG1_UNCR.dcm"
    shutil.copy(radiograph, tmp_path / "scan.dcm")
    shutil.copytree(repository / "docs", tmp_path / "docs")
    modules = {".venv/bin/edge-agent": "edge_agent.cli", ".venv/bin/model-build": "model_build"}
    lines = [line for block in MARKED.findall((repository / "README.md").read_text("utf-8")) for line in block.splitlines()]
    assert len(lines) >= 6
    for line in lines:
        program, *arguments = shlex.split(line, comments=True)
        run = subprocess.run([sys.executable, "-m", modules[program], *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0, f"{line}\n{run.stderr}"
    assert (tmp_path / "demo" / "done" / "a.jpg").is_file()
    assert (tmp_path / "since-july.csv").read_text("utf-8").count("\n") == 2
    assert len(list((tmp_path / "drawings").iterdir())) == 2


def test_every_link_leads_somewhere(repository: Path) -> None:
    missing = [
        f"{name}: {target}"
        for name, text in documents(repository).items()
        for target in LINK.findall(text if name.endswith(".md") else "")
        if not (repository / name).parent.joinpath(target).exists()
    ]
    assert missing == []


def test_the_readme_names_every_extra_and_script_it_relies_on(repository: Path) -> None:
    text = (repository / "README.md").read_text("utf-8")
    extras = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for extra in re.findall(r'extra "(\w+)"', text):
        assert extra in extras
    for script in re.findall(r"scripts/\w+", text):
        assert (repository / script).is_file()
