"""What people put into an inbox, and what inboxes do: each gets a record or a clear message, and nothing is lost."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from PIL import Image
from support.agent_process import run_agent
from support.agents import AgentHome, drop, image_bytes

from edge_agent import cli


@pytest.fixture
def home(tmp_path: Path) -> AgentHome:
    return AgentHome(tmp_path)


def huge_png(side: int) -> bytes:
    """A PNG that says it has ``side`` times ``side`` pixels, and is a few hundred bytes long."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def truncated_jpeg() -> bytes:
    content = io.BytesIO()
    with Image.open(io.BytesIO(image_bytes(1, (300, 300)))) as image:
        image.save(content, "JPEG")
    return content.getvalue()[:-2000]


def rejection(home: AgentHome, name: str, content: bytes) -> dict[str, object]:
    """Drop a bad file between two good ones, and give its record."""
    drop(home.inbox, "a good one.png", image_bytes(1))
    drop(home.inbox, name, content)
    drop(home.inbox, "z good one.png", image_bytes(2))
    home.run_once()
    assert home.files("done") == ["a good one.png", "z good one.png"]
    assert home.files("rejected") == sorted([name, f"{name}.reason.txt"])
    assert (home.home / "rejected" / name).read_bytes() == content
    [row] = [row for row in home.rows() if row["status"] == "rejected"]
    note = (home.home / "rejected" / f"{name}.reason.txt").read_text()
    assert row["reason_message"] in note
    return row


class TestFiles:
    def test_zero_bytes(self, home: AgentHome) -> None:
        row = rejection(home, "zero.png", b"")
        assert row["reason_code"] == "empty"
        assert "again" in str(row["reason_message"])

    def test_text_called_jpg(self, home: AgentHome) -> None:
        assert rejection(home, "report.jpg", b"Findings: none.\n" * 20)["reason_code"] == "not_an_image"

    def test_a_truncated_jpeg(self, home: AgentHome) -> None:
        assert rejection(home, "cut.jpg", truncated_jpeg())["reason_code"] == "truncated"

    def test_thirty_thousand_pixels_square(self, home: AgentHome) -> None:
        assert rejection(home, "bomb.png", huge_png(30_000))["reason_code"] == "too_large"

    def test_an_image_called_something_else(self, home: AgentHome) -> None:
        drop(home.inbox, "report.txt", image_bytes(1))
        home.run_once()
        assert [row["status"] for row in home.rows()] == ["done"], "the content says what it is, not the name"

    def test_a_name_with_newline_emoji_and_quotes(self, home: AgentHome) -> None:
        name = "pa\ntient \N{LUNGS} \"x\" 'y' =1+1;$(reboot).png"
        drop(home.inbox, name, image_bytes(1))
        home.run_once()
        assert home.files("done") == [name]
        assert [line["path"] for line in home.lines()] == [name]
        assert home.files("results")[0] == f"{name}.json"

    def test_a_folder_called_x_png(self, home: AgentHome) -> None:
        drop(home.inbox, "x.png/y.png/in.png", image_bytes(1))
        (home.inbox / "empty.png").mkdir()
        home.run_once()
        assert [row["path"] for row in home.rows()] == ["x.png/y.png/in.png"]
        assert home.files("done") == ["x.png/y.png/in.png"]
        assert (home.inbox / "empty.png").is_dir()

    def test_a_file_and_then_a_folder_of_the_same_name(self, home: AgentHome) -> None:
        drop(home.inbox, "a", image_bytes(1))
        home.run_once()
        drop(home.inbox, "a/b.png", image_bytes(2))
        home.run_once()
        assert home.files("done") == ["a", "a-folder/b.png"]

    def test_pipes_and_sockets_are_left_where_they_are(self, home: AgentHome) -> None:
        os.mkfifo(home.inbox / "pipe.png")
        home.run_once()
        assert home.rows() == []
        assert (home.inbox / "pipe.png").exists()


class TestLinks:
    def test_a_link_out_of_the_inbox_is_not_followed(self, home: AgentHome, tmp_path: Path) -> None:
        """
        1. Somebody puts a link into the inbox that leads to an image elsewhere, another that leads to a folder, and one to nowhere.
        Result: each link is rejected and moved itself. What they lead to is not read, moved or copied.
        """
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "private.png").write_bytes(image_bytes(1))
        (home.inbox / "file.png").symlink_to(elsewhere / "private.png")
        (home.inbox / "folder").symlink_to(elsewhere)
        (home.inbox / "nowhere.png").symlink_to(tmp_path / "absent")
        home.run_once()
        rows = home.rows()
        assert sorted(row["path"] for row in rows) == ["file.png", "folder", "nowhere.png"]
        assert {(row["status"], row["reason_code"], row["sha256"]) for row in rows} == {("rejected", "symlink", "")}
        assert (home.home / "rejected" / "file.png").readlink() == elsewhere / "private.png"
        assert (home.home / "rejected" / "folder").is_symlink()
        assert [path.name for path in elsewhere.iterdir()] == ["private.png"]
        assert home.classified == []

    def test_a_link_to_an_image_in_the_inbox(self, home: AgentHome) -> None:
        drop(home.inbox, "a.png", image_bytes(1))
        (home.inbox / "b.png").symlink_to("a.png")
        home.run_once()
        assert {row["path"]: row["status"] for row in home.rows()} == {"a.png": "done", "b.png": "rejected"}
        assert home.files("done") == ["a.png"]

    def test_a_hard_link_is_a_second_copy(self, home: AgentHome) -> None:
        drop(home.inbox, "a.png", image_bytes(1))
        os.link(home.inbox / "a.png", home.inbox / "b.png")
        home.run_once()
        assert sorted((row["path"], row["status"]) for row in home.rows()) == [("a.png", "done"), ("b.png", "done")]
        assert home.files("done") == ["a.png", "b.png"]
        assert len(home.classified) == 1


class TestInbox:
    def test_one_that_does_not_exist(self, tmp_path: Path) -> None:
        code, said = run_agent(tmp_path / "home", once=True, inbox=tmp_path / "absent")
        assert code == 30
        assert f"the inbox {tmp_path / 'absent'} does not exist" in said
        assert "--inbox" in said

    def test_one_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        code, said = run_agent(tmp_path / "home", once=True, inbox=tmp_path / "file")
        assert code == 10
        assert "is not a folder" in said

    def test_one_that_cannot_be_written(self, tmp_path: Path) -> None:
        inbox = tmp_path / "inbox"
        inbox.mkdir()
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=64k", "tmpfs", inbox], capture_output=True, text=True)
        if mounted.returncode:
            pytest.skip(f"no read-only file system can be mounted here: {mounted.stderr.strip()}")
        try:
            code, said = run_agent(tmp_path / "home", once=True, inbox=inbox)
            assert code == 10
            assert "is not writable" in said
            assert "on_done" in said
            code, said = run_agent(tmp_path / "home", once=True, inbox=inbox, on_done="keep")
            assert code == 0, said
        finally:
            subprocess.run(["umount", "--lazy", inbox], check=True)

    def test_the_default_one_is_made(self, tmp_path: Path) -> None:
        code, said = run_agent(tmp_path / "home", once=True)
        assert code == 0
        assert said == (
            f"0 images: 0 positive, 0 negative, 0 to review, 0 rejected, 0 duplicates; results in {tmp_path / 'home' / 'results'}\n"
        )
        assert (tmp_path / "home" / "inbox").is_dir()


class TestSettings:
    def test_a_bundle_that_is_not_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["run", "--home", str(tmp_path / "home"), "--model", str(tmp_path / "absent"), "--once"]) == 20
        assert str(tmp_path / "absent") in capsys.readouterr().err

    def test_an_unknown_key(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "c.toml").write_text("[intake]\nsettle_time = 1\n")
        assert cli.main(["run", "--config", str(tmp_path / "c.toml"), "--home", str(tmp_path / "home")]) == 10
        assert "settle_time_s" in capsys.readouterr().err

    def test_a_home_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "home").touch()
        code, said = run_agent(tmp_path / "home", once=True)
        assert code == 40
        assert "error: cannot make the folder" in said
        assert "Traceback" not in said
