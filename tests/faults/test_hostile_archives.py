"""Zip files that somebody made to do harm, or that were spoiled on the way: each is refused by name, and the box is as it was before."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.archives import check_refused, member, members_of, packed
from support.signed import SERIAL, install

from edge_agent.errors import ModelError
from edge_agent.inference import archive
from edge_agent.inference.bundle import MAX_FILE_BYTES, read_contents


def test_the_archive_that_all_these_are_made_from_is_good(good: dict[str, bytes], box: Path) -> None:
    file = box.with_name("good.zip")
    file.write_bytes(packed(members_of(good)))
    assert install(file, box).serial == SERIAL


def test_a_folder_around_the_files_is_taken(good: dict[str, bytes], tmp_path: Path) -> None:
    file = tmp_path / "folder.zip"
    file.write_bytes(packed([(member("bundle/", mode=0o040755, method=zipfile.ZIP_STORED), b""), *members_of(good, "bundle/")]))
    assert read_contents(file) == good


ODD_MEMBERS: dict[str, tuple[zipfile.ZipInfo, bytes, str]] = {
    "zip slip": (member("../evil.txt"), b"x", "leads out of one single folder"),
    "zip slip by the name of a part": (member("../model.tflite"), b"x", "leads out of one single folder"),
    "zip slip from a folder": (member("a/../../head.json"), b"x", "leads out of one single folder"),
    "absolute name": (member("/etc/passwd"), b"x", "leads out of one single folder"),
    "absolute name of a part": (member("/model.tflite"), b"x", "leads out of one single folder"),
    "backslashes": (member("..\\..\\model.tflite"), b"x", "is no part of a bundle"),
    "deep folders": (member("a/b/model.tflite"), b"x", "leads out of one single folder"),
    "symbolic link": (member("MODEL_CARD.md", mode=0o120777), b"/etc/shadow", "is a link or a device"),
    "device": (member("MODEL_CARD.md", mode=0o020666), b"", "is a link or a device"),
    "pipe": (member("MODEL_CARD.md", mode=0o010666), b"", "is a link or a device"),
    "folder that is a link": (member("bundle/", mode=0o120777), b"/etc", "is a link or a device"),
    "file that no bundle has": (member("sitecustomize.py"), b"x", "is no part of a bundle"),
    "bytecode": (member("__pycache__/x.pyc"), b"x", "is no part of a bundle"),
    "other case": (member("Model.tflite"), b"x", "is no part of a bundle"),
    "end-of-line in a name": (member("model.tflite\n"), b"x", "is no part of a bundle"),
    "packed by a method that unpacks at once": (member("MODEL_CARD.md", method=zipfile.ZIP_LZMA), b"x", "by a method"),
    "second folder": (member("other/MODEL_CARD.md"), b"x", "more than one folder"),
}


@pytest.mark.parametrize("name", ODD_MEMBERS)
def test_an_archive_with_an_odd_member(name: str, good: dict[str, bytes], box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd, content, message = ODD_MEMBERS[name]
    rest = {part: value for part, value in good.items() if part != "MODEL_CARD.md"}
    check_refused(packed([*members_of(rest), (odd, content)]), box, message, capsys)
    check_refused(packed([(odd, content), *members_of(rest)]), box, message, capsys)


def test_a_name_with_a_nul_that_hides_its_end(good: dict[str, bytes], box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = packed(members_of(good)).replace(b"MODEL_CARD.md", b"head.json\0.md")
    check_refused(whole, box, "leads out of one single folder", capsys)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice(good: dict[str, bytes], box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_refused(packed([*members_of(good), (member("model.tflite"), b"another")]), box, "'model.tflite' twice", capsys)


def test_a_member_with_a_password(good: dict[str, bytes], box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = bytearray(packed(members_of(good)))
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the first flag of the first entry of the directory
    check_refused(bytes(content), box, "locked by a password", capsys)


def test_an_oversized_member(good: dict[str, bytes], box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    members = members_of(good | {"model.tflite": bytes(MAX_FILE_BYTES + 1)})
    check_refused(packed(members), box, f"would have {MAX_FILE_BYTES + 1:,} bytes", capsys)


def test_members_that_are_too_large_together(good: dict[str, bytes], box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    large = bytes(MAX_FILE_BYTES)
    content = packed(members_of(good | dict.fromkeys(("model.tflite", "head.json", "golden.npz"), large)))
    check_refused(content, box, "bytes together", capsys)


def test_a_bomb_that_lies_about_its_size_is_cut_off(
    good: dict[str, bytes], box: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    1. A member unpacks to 50 MB; directory and local header say 100 bytes.
    Result: refused by its checksum; no more than a few of its bytes were unpacked.
    """
    unpacked = []
    real_read = zipfile.ZipExtFile.read

    def read(stream: zipfile.ZipExtFile, count: int | None = -1) -> bytes:
        content = real_read(stream, count)
        unpacked.append(len(content))
        return content

    monkeypatch.setattr(zipfile.ZipExtFile, "read", read)
    content = bytearray(packed([(member("model.tflite"), bytes(50_000_000))]))
    for mark, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.index(mark) + offset
        content[at : at + 4] = struct.pack("<L", 100)
    check_refused(bytes(content), box, "damaged", capsys)
    assert sum(unpacked) <= 100


def test_a_directory_of_a_million_members_is_not_read(
    box: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(packed([(member("model.tflite"), b"x")]))
    struct.pack_into("<HH", content, len(content) - 14, 0xFFFE, 0xFFFE)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    check_refused(bytes(content), box, "holds 65534 files", capsys)


def test_a_directory_that_is_longer_than_its_count_says(
    box: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytearray(packed([(member("model.tflite"), b"x")]))
    struct.pack_into("<L", content, len(content) - 10, 50_000_000)
    monkeypatch.setattr(zipfile, "ZipFile", None)
    check_refused(bytes(content), box, "a bundle has fewer", capsys)


def test_the_form_for_very_large_archives_which_has_a_count_of_its_own(
    good: dict[str, bytes], box: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = packed(members_of(good))
    check_refused(content[:-22] + b"PK\x06\x07" + bytes(16) + content[-22:], box, "above 4 GB", capsys)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: content[: len(content) // 2], "cut short"),
        (lambda content: content[:-1], "cut short"),
        (lambda content: content + b"#!/bin/sh", "after its end"),
        (lambda _: b"", "no zip file"),
        (lambda _: b"PK\x05\x06" + bytes(18), "manifest.json: missing"),
        (lambda _: os.urandom(5000), "no zip file"),
        (lambda content: content.replace(b"PK\x01\x02", b"PK\x01\x03", 1), "damaged"),
        (lambda content: content[:200] + bytes([content[200] ^ 255]) + content[201:], "damaged"),
    ],
    ids=["half", "one byte short", "something after it", "empty", "no members", "noise", "a broken directory", "a flipped byte"],
)
def test_a_spoiled_archive(
    spoil: Callable[[bytes], bytes], message: str, good: dict[str, bytes], box: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_refused(spoil(packed(members_of(good))), box, message, capsys)


def test_a_comment(good: dict[str, bytes], box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check_refused(packed(members_of(good), comment=b"hello"), box, "after its end", capsys)


def test_any_single_changed_byte_of_the_directory_is_survived(good: dict[str, bytes], tmp_path: Path) -> None:
    """
    1. Each byte of the archive's directory and end is changed, one at a time.
    Result: the archive is refused as a faulty model, or gives the same bytes; no other fault gets out.
    """
    small = {name: content[:40] for name, content in good.items()}
    content = packed(members_of(small))
    file = tmp_path / "changed.zip"
    for place in range(content.index(b"PK\x01\x02"), len(content)):
        for flip in (0x01, 0x80, 0xFF):
            file.write_bytes(content[:place] + bytes([content[place] ^ flip]) + content[place + 1 :])
            try:
                read = archive.read_archive(file, good.keys(), MAX_FILE_BYTES)
            except ModelError:
                continue
            assert all(small[name] == value for name, value in read.items())


def test_an_archive_that_is_itself_too_large(box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = box.with_name("large.zip")
    with file.open("wb") as stream:
        stream.truncate(10 * 1024**3)
    check_refused(file, box, "larger than", capsys)


@pytest.mark.parametrize("kind", ["nothing", "pipe", "device"])
def test_what_is_no_file(kind: str, box: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = box.with_name("odd.zip")
    if kind == "pipe":
        os.mkfifo(file)
    check_refused(Path("/dev/zero") if kind == "device" else file, box, "no such bundle folder", capsys)
