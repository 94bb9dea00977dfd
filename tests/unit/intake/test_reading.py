"""Reading an arrival: whole, unchanged, and never through a link."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.agents import arrival_of

from edge_agent.errors import InputFault
from edge_agent.intake import reading
from edge_agent.intake.reading import StillChangingError, read_arrival

LIMIT = 1000


def test_the_bytes_are_read(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"image")
    assert read_arrival(tmp_path, arrival_of(tmp_path, "sub/a"), LIMIT) == b"image"


def test_an_empty_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert read_arrival(tmp_path, arrival_of(tmp_path, "a"), LIMIT) == b""


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/etc/hostname")
    with pytest.raises(InputFault, match="symbolic link") as caught:
        read_arrival(tmp_path, arrival_of(tmp_path, "a"), LIMIT)
    assert caught.value.code == "symlink"


def test_neither_is_a_folder_that_became_one(tmp_path: Path) -> None:
    inbox, outside = tmp_path / "inbox", tmp_path / "outside"
    (inbox / "sub").mkdir(parents=True)
    (inbox / "sub" / "a").write_bytes(b"image")
    arrival = arrival_of(inbox, "sub/a")
    (inbox / "sub").rename(outside)
    (inbox / "sub").symlink_to(outside)
    with pytest.raises(FileNotFoundError):
        read_arrival(inbox, arrival, LIMIT)


def test_what_is_gone_is_gone(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    arrival = arrival_of(tmp_path, "a")
    (tmp_path / "a").unlink()
    with pytest.raises(FileNotFoundError):
        read_arrival(tmp_path, arrival, LIMIT)


def test_what_changed_since_it_settled_must_settle_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"image")
    arrival = arrival_of(tmp_path, "a")
    os.utime(path, ns=(1, 1))
    with pytest.raises(StillChangingError):
        read_arrival(tmp_path, arrival, LIMIT)
    path.write_bytes(b"image, longer")
    with pytest.raises(StillChangingError):
        read_arrival(tmp_path, arrival, LIMIT)


def test_what_changes_while_it_is_read_must_settle_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    1. The file is opened and is what it was when it settled.
    2. While it is read, somebody writes to it, and sets its old date again.
    Result: no mixture of old and new bytes is taken for the image.
    """
    path = tmp_path / "a"
    path.write_bytes(b"image")
    arrival = arrival_of(tmp_path, "a")
    read = os.read

    def meddling(descriptor: int, count: int) -> bytes:
        content = read(descriptor, count)
        path.write_bytes(b"IMAGE")
        os.utime(path, ns=(arrival.mtime_ns, arrival.mtime_ns))
        return content

    monkeypatch.setattr(reading.os, "read", meddling)
    with pytest.raises(StillChangingError):
        read_arrival(tmp_path, arrival, LIMIT)


def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        file.truncate(LIMIT + 1)
    with pytest.raises(InputFault, match="1,001 bytes") as caught:
        read_arrival(tmp_path, arrival_of(tmp_path, "a"), LIMIT)
    assert caught.value.code == "too_large"


def test_a_pipe_in_its_place_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    arrival = arrival_of(tmp_path, "a")
    (tmp_path / "a").unlink()
    os.mkfifo(tmp_path / "a")
    with pytest.raises(StillChangingError):
        read_arrival(tmp_path, arrival, LIMIT)


def test_a_folder_in_its_place_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    arrival = arrival_of(tmp_path, "a")
    (tmp_path / "a").unlink()
    (tmp_path / "a").mkdir()
    with pytest.raises(StillChangingError):
        read_arrival(tmp_path, arrival, LIMIT)


@pytest.mark.parametrize(("number", "code"), [(13, "no_permission"), (5, "read_error"), (6, "not_a_file")])
def test_faults_of_the_file_are_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, code: str) -> None:
    (tmp_path / "a").touch()
    arrival = arrival_of(tmp_path, "a")
    real = os.open

    def failing(path: Any, *args: Any, **options: Any) -> int:
        if path == "a":
            raise OSError(number, os.strerror(number))
        return real(path, *args, **options)

    monkeypatch.setattr(reading.os, "open", failing)
    with pytest.raises(InputFault) as caught:
        read_arrival(tmp_path, arrival, LIMIT)
    assert caught.value.code == code


def test_a_medium_that_fails_while_it_is_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"image")

    def failing(_descriptor: int, _count: int) -> bytes:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(reading.os, "read", failing)
    with pytest.raises(InputFault, match="Check the disk"):
        read_arrival(tmp_path, arrival_of(tmp_path, "a"), LIMIT)


@pytest.mark.parametrize("number", [errno.EUCLEAN, errno.EBADMSG, errno.EINVAL, errno.EOVERFLOW, errno.EACCES])
def test_whatever_the_system_says_of_one_file_is_a_fault_of_that_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    (tmp_path / "a").write_bytes(b"image")
    monkeypatch.setattr(reading.os, "read", raising(number))
    with pytest.raises(InputFault) as caught:
        read_arrival(tmp_path, arrival_of(tmp_path, "a"), LIMIT)
    assert caught.value.code == "read_error"


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EAGAIN, errno.ETXTBSY])
def test_a_file_that_another_program_keeps_locked_is_left_for_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    (tmp_path / "a").write_bytes(b"image")
    monkeypatch.setattr(reading.os, "read", raising(number))
    with pytest.raises(FileNotFoundError):
        read_arrival(tmp_path, arrival_of(tmp_path, "a"), LIMIT)


def raising(number: int) -> Callable[..., bytes]:
    def failing(*_: object) -> bytes:
        raise OSError(number, os.strerror(number))

    return failing


def test_too_many_open_files_is_not_the_files_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").touch()
    arrival = arrival_of(tmp_path, "a")
    real = os.open

    def failing(path: Any, *args: Any, **options: Any) -> int:
        if path == "a":
            raise OSError(24, os.strerror(24))
        return real(path, *args, **options)

    monkeypatch.setattr(reading.os, "open", failing)
    with pytest.raises(OSError, match="Too many open files"):
        read_arrival(tmp_path, arrival, LIMIT)
