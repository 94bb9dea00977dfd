"""Archives built member by member, as nobody builds them by mistake, and what a refusal must look like."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from edge_agent import cli
from edge_agent.deployment.model_store import ModelStore

Members = list[tuple[zipfile.ZipInfo, bytes]]


def member(name: str, *, mode: int = 0o100644, method: int = zipfile.ZIP_DEFLATED) -> zipfile.ZipInfo:
    """One entry of an archive."""
    found = zipfile.ZipInfo(name)
    found.external_attr = mode << 16
    found.create_system = 3
    found.compress_type = method
    return found


def packed(members: Members, comment: bytes = b"") -> bytes:
    """An archive of such entries, as bytes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as writer:
        writer.comment = comment
        for found, content in members:
            writer.writestr(found, content)
    return stream.getvalue()


def members_of(contents: dict[str, bytes], folder: str = "") -> Members:
    """Entries for the files of a bundle, in a ``folder`` that ends in a slash."""
    return [(member(folder + name), content) for name, content in contents.items()]


def everything_below(folder: Path) -> set[str]:
    """All paths in a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def check_refused(content: bytes | Path, home: Path, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Install it by command, with a folder around the home in which nothing may appear."""
    file = content if isinstance(content, Path) else home.with_name("model.zip")
    if isinstance(content, bytes):
        file.write_bytes(content)
    before = everything_below(home.parent)
    assert cli.main(["model", "install", str(file), "--home", str(home)]) == 20
    said = capsys.readouterr()
    assert said.out == ""
    assert message in said.err
    assert said.err.startswith("error: ")
    assert "Traceback" not in said.err
    new = {path for path in everything_below(home.parent) - before if not path.endswith(".lock")}
    assert new <= {"home/state", "home/state/models"}
    assert ModelStore(home).active() is None
