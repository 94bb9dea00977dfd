"""A database that is damaged, cut off, emptied or gone: nothing is lost, nothing is classified twice, and a person is told."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.agents import AgentHome, doing, drop, image_bytes, wait_until
from support.recoverer import killed_at

from edge_agent.agent.ledger import Ledger
from edge_agent.database.database import DATABASE_NAME, Reader
from edge_agent.database.events import Event
from edge_agent.database.integrity import suspicion
from edge_agent.outbox.disposal import NOTE_SUFFIX

PAGE_BYTES = 4096
IMAGES = {f"{seed}.png": image_bytes(seed) for seed in range(4)}
IMAGES |= {"copy.png": image_bytes(0), "sub/deep.png": image_bytes(7), "text.jpg": b"text\n" * 9, "sub/zero.png": b""}
# What a rebuild cannot know: where a file was in the inbox before it moved.
FILE_COLUMNS = ("size_bytes", "mtime_ns", "ctime_ns", "inode", "path_bytes")


@pytest.fixture
def home(quick_folder: Path) -> AgentHome:
    """A home that has done its images."""
    home = AgentHome(quick_folder)
    # The oldest record by far is one that no test takes away: an image older than every record that is left would stay where it is.
    drop(home.inbox, "1.png", IMAGES["1.png"])
    home.run_once()
    for name, content in IMAGES.items():
        if name != "1.png":
            drop(home.inbox, name, content)
    home.run_once()
    # A clash of names.
    drop(home.inbox, "0.png", image_bytes(50))
    home.run_once()
    home.classified.clear()
    assert journal_is_folded(home)
    return home


def records(home: AgentHome) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in FILE_COLUMNS} for row in home.rows()]


def images(home: AgentHome) -> dict[str, bytes]:
    """The images, wherever they lie; a note beside a rejected one names its record, which may be another one afterwards."""
    return {
        f"{folder}/{name}": (home.home / folder / name).read_bytes()
        for folder in ("inbox", "done", "rejected")
        for name in home.files(folder)
        if not name.endswith(NOTE_SUFFIX)
    }


def events(home: AgentHome) -> list[Event]:
    with Reader(home.database) as reader:
        return reader.events(100)


def aside(home: AgentHome) -> list[Path]:
    return sorted((home.home / "state").glob("damaged-*"))


def check(home: AgentHome) -> None:
    with closing(sqlite3.connect(home.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert [line["id"] for line in home.lines()] == [row["id"] for row in home.rows()]


def zero_page(path: Path, number: int) -> None:
    with path.open("r+b") as file:
        file.seek(number * PAGE_BYTES)
        file.write(bytes(PAGE_BYTES))


def garble(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(PAGE_BYTES)
        file.write(random.Random(1).randbytes(path.stat().st_size - PAGE_BYTES))


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a page of zeros": lambda path: zero_page(path, 2),
    "the schema of zeros": lambda path: zero_page(path, 0),
    "random bytes": garble,
    "all zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "cut within a page": lambda path: os.truncate(path, path.stat().st_size - 100),
    "cut to a few bytes": lambda path: os.truncate(path, 10),
    "emptied": lambda path: os.truncate(path, 0),
    "removed": lambda path: path.unlink(),
    "another file": lambda path: path.write_text("a letter, not a database\n" * 1000),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_everything_comes_back(home: AgentHome, damage: str) -> None:
    """
    1. An agent has done its images and ended. The disk damages the database.
    2. An agent starts.
    Result: the same records, the same files, nothing classified again, the old file kept, one event.
    """
    before, files = records(home), images(home)
    DAMAGES[damage](home.database)
    left = home.database.read_bytes() if home.database.exists() else None
    home.run_once()
    assert records(home) == before
    assert images(home) == files
    assert home.classified == []
    [folder] = aside(home)
    if left is not None and damage != "emptied":
        assert (folder / DATABASE_NAME).read_bytes() == left
    [event] = events(home)
    assert event.code == "database_rebuilt"
    assert f"state/{folder.name}" in event.message
    assert f"{len(before)} records" in event.message
    check(home)

    home.run_once()
    assert (len(aside(home)), len(events(home)), home.classified) == (1, 1, [])
    drop(home.inbox, "new.png", image_bytes(99))
    drop(home.inbox, "copy of an old one.png", image_bytes(3))
    home.run_once()
    assert len(home.classified) == 1, "what was classified before the damage is still known"
    assert [row["id"] for row in home.rows()] == sorted({row["id"] for row in home.rows()})
    check(home)


def test_whatever_page_is_damaged_no_record_is_lost_or_changed(home: AgentHome) -> None:
    """
    1. One page after the other is overwritten with zeros, each in a fresh copy of the home.
    Result: either the page held nothing that counts, or the database is built again: the records are the same.
    """
    before = records(home)
    kept = home.home.with_name("kept")
    shutil.copytree(home.home, kept)
    pages = home.database.stat().st_size // PAGE_BYTES
    rebuilt = 0
    for number in range(pages):
        shutil.rmtree(home.home)
        shutil.copytree(kept, home.home)
        zero_page(home.database, number)
        ledger = Ledger(home.home, home.inbox, "move")
        ledger.recover()
        ledger.close(sync_timeout_s=10)
        assert records(home) == before, f"page {number}"
        rebuilt += bool(aside(home))
    assert rebuilt >= pages - 3, f"{rebuilt} of {pages}"


def test_damage_in_the_journal_is_damage(home: AgentHome) -> None:
    """
    1. An agent was killed: the newest records stand in the journal alone, which the disk loses.
    2. An agent starts.
    Result: ``results/`` give those records back; their images are not classified again.
    """
    old = home.database.read_bytes()
    for seed in range(60, 63):
        drop(home.inbox, f"late/{seed}.png", image_bytes(seed))
    home.run_once()
    before, files = records(home), images(home)
    home.classified.clear()
    home.database.write_bytes(old)
    home.run_once()
    assert (records(home), images(home), home.classified) == (before, files, [])
    [event] = events(home)
    assert "3 came back from results/" in event.message
    assert aside(home) == []
    check(home)


class TestLines:
    """Lines of ``predictions.jsonl`` that hold no record."""

    def damage(self, home: AgentHome, *, with_sidecars: bool) -> None:
        jsonl = home.home / "results" / "predictions.jsonl"
        lines = jsonl.read_bytes().splitlines(keepends=True)
        found = [json.loads(line) for line in lines]
        number = {record["path"]: number for number, record in enumerate(found)}
        first = next(record["duplicate_of"] for record in found if record["duplicate_of"])
        edited, spoiled, zeroed = (
            number["3.png"],
            number["sub/deep.png"],
            next(n for n, record in enumerate(found) if record["id"] == first),
        )
        gone = [found[number]["id"] for number in (edited, spoiled, zeroed, -1)]
        lines[edited] = lines[edited].replace(b'"path"', b'"Path"')
        lines[spoiled] = b"\xff\xfe" + lines[spoiled]
        lines[zeroed] = bytes(len(lines[zeroed]) - 1) + b"\n"
        lines[-1] = lines[-1][:60]
        jsonl.write_bytes(b"".join(lines))
        if not with_sidecars:
            for sidecar in (home.home / "results").rglob("*.json"):
                if json.loads(sidecar.read_bytes())["id"] in gone:
                    sidecar.unlink()
        home.database.write_bytes(b"no database")

    def test_sidecars_give_what_lines_lost(self, home: AgentHome) -> None:
        """
        1. The database is damaged, four lines are torn or edited; the sidecars are whole.
        Result: all records, all files as before; the changed lines are kept beside the damaged database.
        """
        before, files = records(home), images(home)
        self.damage(home, with_sidecars=True)
        changed = (home.home / "results" / "predictions.jsonl").read_bytes()
        home.run_once()
        assert (records(home), images(home), home.classified) == (before, files, [])
        [folder] = aside(home)
        assert (folder / "predictions.jsonl").read_bytes() == changed
        assert "4 lines" in events(home)[0].message
        check(home)

    def test_an_image_without_any_record_is_classified_again(self, home: AgentHome) -> None:
        """
        1. The database is damaged, four lines are torn or edited, their sidecars gone; one is of an image that has a copy.
        Result: those four images, and no others, go back to the inbox and get a record again; every image has one.
        """
        before, files = records(home), images(home)
        first_copies = [row["duplicate_of"] for row in before]
        lost = [row for row in before if row["path"] in ("3.png", "sub/deep.png") or row["id"] in first_copies] + before[-1:]
        self.damage(home, with_sidecars=False)
        home.run_once()
        after = records(home)
        assert max(row["id"] for row in before) < after[-4]["id"], "an id that was shown once is not used again"
        assert sorted(row["sha256"] for row in after) == sorted(row["sha256"] for row in before)
        assert [row for row in after if row["id"] < len(before)] == [row for row in before if row not in lost]
        assert sorted(images(home).values()) == sorted(files.values())
        assert home.files("inbox") == []
        said = events(home)[0].message
        assert "4 lines" in said
        assert "4 images had no record any more: they went back to the inbox" in said
        check(home)

    def test_nothing_in_the_inbox_is_overwritten(self, home: AgentHome) -> None:
        """
        1. An image lost its record; meanwhile somebody dropped another one of its name.
        Result: both are in ``done/``, each with its record.
        """
        with closing(sqlite3.connect(home.database)) as connection:
            [lost_id] = connection.execute("SELECT id FROM record WHERE path = '3.png'").fetchone()
        jsonl = home.home / "results" / "predictions.jsonl"
        jsonl.write_bytes(b"".join(line for line in jsonl.read_bytes().splitlines(keepends=True) if json.loads(line)["id"] != lost_id))
        (home.home / "results" / "3.png.json").unlink()
        home.database.write_bytes(b"no database")
        drop(home.inbox, "3.png", image_bytes(70))
        home.run_once()
        contents = sorted(content for name, content in images(home).items() if name.startswith("done/3"))
        assert contents == sorted([image_bytes(3), image_bytes(70)])
        assert len(home.classified) == 2


def test_an_image_that_had_not_moved_is_its_record_s(home: AgentHome) -> None:
    """
    1. The power fails after the records of four images were shown, before their files moved; the disk damages the database.
    2. An agent starts.
    Result: the files leave the inbox; none is classified again or recorded as a copy of itself.
    """
    before = records(home)
    for name, folder in (("1.png", "done"), ("sub/deep.png", "done"), ("text.jpg", "rejected"), ("sub/zero.png", "rejected")):
        (home.inbox / name).parent.mkdir(exist_ok=True)
        (home.home / folder / name).rename(home.inbox / name)
    home.database.write_bytes(b"no database")
    home.run_once()
    assert home.files("inbox") == []
    assert (records(home), home.classified) == (before, [])
    assert {"1.png", "sub/deep.png"} <= set(home.files("done"))
    assert {"text.jpg", "sub/zero.png"} <= set(home.files("rejected"))


def test_images_that_stay_in_the_inbox_are_known_again(tmp_path: Path) -> None:
    """
    1. With on_done = "keep" the images stay in the inbox. The database is damaged.
    Result: the same records; the images are read, but not classified.
    """
    home = AgentHome(tmp_path, on_done="keep")
    for name, content in IMAGES.items():
        drop(home.inbox, name, content)
    (home.inbox / "link.png").symlink_to("/etc/hostname")
    home.run_once()
    before = records(home)
    home.classified.clear()
    home.database.write_bytes(b"no database")
    home.run_once()
    assert (records(home), home.classified) == (before, [])
    home.run_once()
    assert (records(home), home.classified) == (before, [])


def test_an_inbox_on_another_disk_gets_its_images_back(tmp_path: Path, other_file_system: Path) -> None:
    """
    1. The inbox lies on another file system; an image's record is lost together with the database.
    Result: the image goes back there, and comes again.
    """
    home = AgentHome(tmp_path, inbox=other_file_system / "inbox")
    drop(home.inbox, "b.png", image_bytes(2))
    home.run_once()  # alone: an image that is older than every record that is left would stay where it is
    drop(home.inbox, "sub/a.png", image_bytes(1))
    home.run_once()
    jsonl = home.home / "results" / "predictions.jsonl"
    jsonl.write_bytes(b"".join(line for line in jsonl.read_bytes().splitlines(keepends=True) if b"sub/a.png" not in line))
    shutil.rmtree(home.home / "results" / "sub")
    home.database.write_bytes(b"no database")
    home.run_once()
    assert sorted(row["path"] for row in home.rows()) == ["b.png", "sub/a.png"]
    assert home.files("done") == ["b.png", "sub/a.png"]
    assert len(home.classified) == 3


def test_damage_that_is_met_at_work(home: AgentHome) -> None:
    """
    1. While an agent waits for images the disk damages the database under it.
    2. An image is dropped.
    Result: the agent does not end: it sets the database aside, builds it again, and classifies the image.
    """
    before = records(home)
    with home.running():
        wait_until(lambda: doing(home.home) == ("working", "") and journal_is_folded(home))
        garble(home.database)
        drop(home.inbox, "new.png", image_bytes(99))
        wait_until(lambda: aside(home) and len(home.rows()) == len(before) + 1 and "new.png" in home.files("done"))
    assert records(home)[: len(before)] == before
    assert [event.code for event in events(home)] == ["database_rebuilt"]
    assert len(home.classified) == 1
    check(home)


def journal_is_folded(home: AgentHome) -> bool:
    """Bring everything into the one file, so that damage there is met."""
    with closing(sqlite3.connect(home.database)) as connection:
        return bool(connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)


def test_an_index_that_lost_an_entry_is_found_once_it_was_met(home: AgentHome) -> None:
    """
    1. An index misses an entry: the quick check does not see that, the work does.
    2. An agent starts after that.
    Result: the thorough check finds it, and the database is built again.
    """
    before = records(home)
    with closing(sqlite3.connect(home.database, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        kept = connection.execute("SELECT name, sql FROM sqlite_schema WHERE name = 'record_path'").fetchone()
        connection.execute(
            "UPDATE sqlite_schema SET name = 'hidden', sql = replace(sql, 'record_path', 'hidden') || ' WHERE 0' WHERE name = ?", kept[:1]
        )
        connection.execute("PRAGMA schema_version = 1000")
    with closing(sqlite3.connect(home.database, isolation_level=None)) as connection:
        connection.execute("UPDATE record SET path = 'elsewhere' WHERE id = 1")
        connection.execute("UPDATE record SET path = ? WHERE id = 1", (before[0]["path"] + "x",))
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET name = ?, sql = ? WHERE name = 'hidden'", kept)
        connection.execute("PRAGMA schema_version = 1001")
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    home.run_once()
    assert aside(home) == []
    suspicion(home.database).touch()
    home.run_once()
    assert (len(aside(home)), records(home)) == (1, before)
    assert not suspicion(home.database).exists()


def test_killed_at_every_step_of_a_rebuild(home: AgentHome, quick_folder: Path) -> None:
    """
    1. The database is damaged, a line torn, a record lost, an image back in the inbox. The rebuild is killed at its nth step, for each n.
    2. An agent starts, undisturbed.
    Result: the same records and files, whatever the n.
    """
    TestLines().damage(home, with_sidecars=False)
    (home.home / "done" / "2.png").rename(home.inbox / "2.png")
    damaged = quick_folder / "damaged"
    shutil.copytree(home.home, damaged)
    home.run_once()
    wanted = {row["sha256"]: row["status"] for row in records(home)}
    count = len(home.rows())
    contents = sorted(images(home).values())
    nth = 1
    while True:
        shutil.rmtree(home.home)
        shutil.copytree(damaged, home.home)
        if not killed_at(home.home, home.inbox, nth):
            break
        home.run_once()
        rows = records(home)
        assert ({row["sha256"]: row["status"] for row in rows}, len(rows)) == (wanted, count), f"step {nth}"
        assert sorted(images(home).values()) == contents, f"step {nth}"
        assert home.files("inbox") == [], f"step {nth}"
        assert len(aside(home)) == 1, f"step {nth}"
        assert (aside(home)[0] / DATABASE_NAME).read_bytes() == b"no database", f"step {nth}"
        assert not list((home.home / "state").glob("rebuilding*")), f"step {nth}"
        check(home)
        nth += 1
    assert nth > 40, f"only {nth} steps were seen"
