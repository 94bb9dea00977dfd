"""The documents say what is so: their commands parse, the quick ones run, their links lead somewhere, nothing is too wide to read."""

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
SHOWN = re.compile(r"(?:^|`)(?:sudo )?(?:\.venv/bin/)?((?:edge-agent|model-build) [a-z-]+[^`#\n]*)", re.MULTILINE)
"""At the start of a line or of a code span."""
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARKED = re.compile(r"^<!-- run -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)")
WRAPPED = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/use.md",
    "docs/measured.md",
    "docs/build.md",
    "docs/architecture.md",
    "docs/install.md",
)
WIDEST = 120
WRITTEN_BY_PROGRAMS = {"config.toml"}
OTHER_PROGRAMS = {"pip", "python3", "mlflow", "wc", "apt", "usermod", "systemctl", "systemd-analyze", "git", "pytest", "cp", "echo"}
"""Not ours; what stands behind them is not looked into, other than the paths."""
KEPT_HERE = re.compile(r"(?:edge_agent|model_build|tests|scripts|systemd|docs|findings)/\S+")
"""A path of the repository, in a command."""


def documents(repository: Path) -> dict[str, str]:
    folders = ("docs", "scripts", "systemd", "findings")
    paths = [*repository.glob("*.md"), *(path for folder in folders for path in (repository / folder).rglob("*"))]
    return {path.relative_to(repository).as_posix(): path.read_text("utf-8") for path in paths if path.is_file()}


def written(repository: Path) -> dict[str, str]:
    """The documents that people wrote; those of ``docs/reports`` are made by programs."""
    return {name: text for name, text in documents(repository).items() if name.endswith(".md") and not name.startswith("docs/reports/")}


def command_lines(text: str) -> list[str]:
    """Each command of the blocks marked ``sh``, without its comment, with its continuation lines."""
    blocks = [block for language, block in FENCED.findall(text) if language == "sh"]
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


def parse(command: str) -> None:
    """Take a command line apart as the program would, without running it."""
    program, *arguments = shlex.split(command, comments=True)
    group, context = PROGRAMS[program], click.Context(PROGRAMS[program], info_name=program)
    if arguments[0].startswith("-"):
        group.make_context(program, arguments, resilient_parsing=True)
        return
    while True:
        name, *arguments = arguments
        command_of_it = group.get_command(context, name)
        if command_of_it is None:
            raise click.UsageError(f"no such command: {name}")
        if not arguments:
            return  # the name of a command, in a sentence
        context = command_of_it.make_context(name, arguments, parent=context)
        arguments = [*getattr(context, "_protected_args", ()), *context.args]  # click 9 has them all in args
        if not isinstance(command_of_it, click.Group) or not arguments:
            return
        group = command_of_it


def command_fault(command: str, repository: Path) -> str:
    """Say what is wrong with a line of a block marked ``sh``; nothing where it would do as it says."""
    words = shlex.split(command, comments=True)
    while words and (words[0] == "sudo" or re.fullmatch(r"[A-Z_]+=\S*", words[0])):
        del words[0]
    if not words:
        return ""
    program, *arguments = words
    missing = [word for word in words if KEPT_HERE.fullmatch(word) and not (repository / word).exists()]
    if missing:
        return f"{missing[0]} is not there"
    name = program.removeprefix(".venv/bin/")
    if name in PROGRAMS:
        try:
            parse(shlex.join([name, *arguments]))
        except click.ClickException as fault:
            return fault.format_message()
        return ""
    script = next((repository / word for word in (program, *arguments[:1]) if KEPT_HERE.fullmatch(word)), None)
    if script is None or name in ("pytest", *OTHER_PROGRAMS):
        return "" if name in OTHER_PROGRAMS else f"{program} is not known"
    source = script.read_text("utf-8")
    for module in re.findall(r"-m (support[\w.]+)", source):
        source += (repository / "tests" / f"{module.replace('.', '/')}.py").read_text("utf-8")
    absent = [word for word in arguments if word.startswith("--") and word not in source and script.name != "test"]
    return f"{script.name} has no {absent[0]}" if absent else ""


def anchors(text: str) -> set[str]:
    """The names by which a page shows its headings."""
    headings = re.findall(r"^#+ (.+)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture(autouse=True)
def files_of_the_examples_need_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(click.Path, "convert", lambda _type, value, _parameter, _context: value)


def test_every_command_line_shown_anywhere_parses(repository: Path) -> None:
    wrong, count = [], 0
    for name, text in documents(repository).items():
        for command in SHOWN.findall(text.replace("\\\n", " ").replace("\n# ", "\n")):
            count += 1
            try:
                parse(command)
            except click.ClickException as fault:
                wrong.append(f"{name}: {command}: {fault.format_message()}")
    assert wrong == []
    assert count >= 50
    for command in ("edge-agent run --no-such-option", "edge-agent exprot"):
        with pytest.raises(click.ClickException):
            parse(command)


def test_every_line_of_every_command_block_would_do_as_it_says(repository: Path) -> None:
    lines = [(name, line) for name, text in written(repository).items() for line in command_lines(text)]
    assert [f"{name}: {line}: {fault}" for name, line in lines if (fault := command_fault(line, repository))] == []
    assert {"README.md", "docs/build.md", "docs/use.md", "docs/measured.md", "docs/install.md"} <= {name for name, _ in lines}


@pytest.mark.parametrize(
    "line",
    [
        "sudo edge-agent model instal NAME.zip",
        ".venv/bin/model-build train CONFIG --dat DATA",
        ".venv/bin/python tests/benchmarks/bench_nothing.py",
        ".venv/bin/python tests/benchmarks/bench_writes.py --pictures 20",
        "sudo scripts/install --no-such-option",
        "sudo scripts/soak --no-such-option",
        "wc -c edge_agent/models/cxr-pneumonia/model.tfl",
        "edgeagent run",
    ],
)
def test_a_command_that_would_fail_is_seen(line: str, repository: Path) -> None:
    assert command_fault(line, repository)


def test_each_block_says_what_it_is(repository: Path) -> None:
    """A block of commands is marked ``sh``, so that it is held; a picture or an output is ``text``."""
    kinds = {f"{name}: {language}" for name, text in written(repository).items() for language, _ in FENCED.findall(text)}
    assert {kind for kind in kinds if kind.rpartition(": ")[2] not in ("sh", "text", "toml", "python")} == set()


def test_no_line_is_too_wide_to_read(repository: Path) -> None:
    wide = [f"{name}:{number}" for name in WRAPPED for number, line in numbered(repository / name) if len(line) > WIDEST]
    assert wide == []
    assert len((repository / "README.md").read_text("utf-8").splitlines()) <= 64  # one screen


def numbered(path: Path) -> list[tuple[int, str]]:
    """The lines of a page, other than those of a picture or a file that is shown as it is."""
    text = re.sub(r"(?ms)^```text\n.*?^```$", lambda block: "\n" * block.group().count("\n"), path.read_text("utf-8"))
    return list(enumerate(text.splitlines(), start=1))


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
    lines = [line for text in written(repository).values() for block in MARKED.findall(text) for line in block.splitlines()]
    assert len(lines) >= 6
    for line in lines:
        program, *arguments = shlex.split(line, comments=True)
        run = subprocess.run([sys.executable, "-m", modules[program], *arguments], cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 0, f"{line}\n{run.stderr}"
    assert (tmp_path / "demo" / "done" / "a.jpg").is_file()
    assert (tmp_path / "since-july.csv").read_text("utf-8").count("\n") == 2
    assert len(list((tmp_path / "drawings").iterdir())) == 2


def test_every_link_leads_somewhere(repository: Path) -> None:
    missing = []
    for name, text in documents(repository).items():
        for target, anchor in LINK.findall(text if name.endswith(".md") else ""):
            page = (repository / name).parent / target if target else repository / name
            if not page.exists() or (anchor and anchor not in anchors(page.read_text("utf-8"))):
                missing.append(f"{name}: {target}#{anchor}")
    assert missing == []
    assert "not-a-heading" not in anchors("# A heading\n")


def test_every_file_named_in_the_text_is_there(repository: Path) -> None:
    """A whole path, or one within the package that the sentence is about."""
    places = ("", "edge_agent", "model_build", "edge_agent/imaging", "model_build/data/layouts", "tests/faults/hostile", "docs")
    absent, count = [], 0
    for name in WRAPPED:
        text = FENCED.sub("", (repository / name).read_text("utf-8")).split("\n## Modules\n")[0]
        for path in re.findall(r"`((?:[\w-]+/)*[\w-]+\.(?:py|sql|toml))`", text):
            count += 1
            example = "NAME" in path or "NNNN" in path or path in WRITTEN_BY_PROGRAMS
            if not example and not any((repository / place / path).is_file() for place in places):
                absent.append(f"{name}: {path}")
    assert absent == []
    assert count >= 40


def test_each_rule_that_a_test_enforces_names_it(repository: Path) -> None:
    text = (repository / "CONTRIBUTING.md").read_text("utf-8")
    rules = text.split("## Rules that a test enforces\n")[1].split("\n## ")[0].strip().split("\n* ")
    assert len(rules) >= 6
    assert [rule for rule in rules if not re.search(r"\(`(?:tests/[\w/]+|pyproject)\.(?:py|toml)`\)\.$", rule)] == []


@pytest.mark.parametrize("name", ["docs/use.md", "docs/measured.md", "docs/build.md", "docs/architecture.md", "CONTRIBUTING.md"])
def test_each_long_page_begins_with_its_contents(repository: Path, name: str) -> None:
    text = (repository / name).read_text("utf-8")
    headings = re.findall(r"^## (.+)$", FENCED.sub("", text), re.MULTILINE)
    listed = {anchor for target, anchor in LINK.findall(text[: text.index("\n## ")]) if not target}
    assert len(headings) >= 4
    assert {heading for heading in headings if not anchors(f"# {heading}") <= listed} == set()


def test_the_documents_name_every_extra_and_script_they_rely_on(repository: Path) -> None:
    extras = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for name, text in written(repository).items():
        for extra in re.findall(r'extra "(\w+)"', text):
            assert extra in extras, name
        for script in re.findall(r"scripts/[\w-]+", text):
            assert (repository / script).is_file(), name
