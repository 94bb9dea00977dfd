"""The command line: exit codes, errors in words, and commands loaded when they are asked for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest
from support.agents import AgentHome, doing, drop, image_bytes, wait_until

from edge_agent import cli
from edge_agent.commands import run as run_command
from edge_agent.errors import EdgeAgentError, StorageError


def edge_agent(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "edge_agent.cli", *arguments], capture_output=True, text=True, timeout=120, **options)


def fail_with(monkeypatch: pytest.MonkeyPatch, fault: BaseException) -> None:
    @click.command()
    def command() -> None:
        raise fault

    monkeypatch.setattr(run_command, "command", command)


@pytest.mark.parametrize("name", cli.COMMAND_MODULES)
def test_each_command_is_there_and_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    assert f"edge-agent {name}" in capsys.readouterr().out


def test_the_group_lists_its_commands_and_says_what_it_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.COMMAND_MODULES)
    assert "not a certified medical device" in " ".join(shown.split())


@pytest.mark.parametrize("arguments", [["nonsense"], ["run", "--nonsense"], ["export", "--format", "xml"], ["export", "--since", "soon"]])
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == 2
    assert "Error" in capsys.readouterr().err


@pytest.mark.parametrize("fault", [EdgeAgentError, *EdgeAgentError.__subclasses__(), *StorageError.__subclasses__()])
def test_each_error_is_one_line_with_its_exit_code(
    fault: type[EdgeAgentError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, fault("what to do next"))
    assert cli.main(["run"]) == fault.exit_code
    assert capsys.readouterr().err == "error: what to do next\n"


def test_a_fault_nobody_foresaw_shows_where_and_is_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fail_with(monkeypatch, ZeroDivisionError("oh"))
    assert cli.main(["run"]) == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert "please report it" in shown


def test_what_it_shows_names_no_image(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The text of an error of the system, or of a library, may quote a file's name; under systemd it would stand in the journal."""
    fault = ValueError("DOE JOHN")
    fault.__cause__ = FileNotFoundError(2, "No such file", "/srv/inbox/DOE JOHN.png")
    fail_with(monkeypatch, fault)
    assert cli.main(["run"]) == 1
    said = capsys.readouterr().err
    assert "FileNotFoundError\nwhich led to\n" in said
    assert "ValueError\n" in said
    assert "raise fault" in said
    assert "DOE" not in said


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(monkeypatch, KeyboardInterrupt())
    assert cli.main(["run"]) == 130


@pytest.fixture
def recorded(tmp_path: Path) -> AgentHome:
    """A home with a few records: two results, a duplicate, a rejection."""
    home = AgentHome(tmp_path)
    for name, content in (("a.png", image_bytes(1)), ("b.png", image_bytes(2)), ("c.png", image_bytes(1)), ("d.png", b"")):
        drop(home.inbox, name, content)
    home.run_once()
    return home


class TestExport:
    def test_standard_output_is_nothing_but_records(self, recorded: AgentHome) -> None:
        done = edge_agent("export", "--home", recorded.home)
        assert (done.returncode, done.stderr) == (0, "")
        assert [json.loads(line) for line in done.stdout.splitlines()] == recorded.lines()
        assert len(recorded.lines()) == 4

    def test_csv_to_a_file(self, recorded: AgentHome, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out.csv"
        assert cli.main(["export", "--home", str(recorded.home), "--format", "csv", "--out", str(out)]) == 0
        assert capsys.readouterr().out == ""
        assert out.read_text().count("\n") == 5

    def test_a_span_of_time(self, recorded: AgentHome, capsys: pytest.CaptureFixture[str]) -> None:
        home = str(recorded.home)
        times = [line["finished_at"] for line in recorded.lines()]
        assert cli.main(["export", "--home", home, "--since", max(times)]) == 0
        assert len(capsys.readouterr().out.splitlines()) == times.count(max(times))
        assert cli.main(["export", "--home", home, "--until", "2020-01-01"]) == 0
        assert capsys.readouterr().out == ""
        assert cli.main(["export", "--home", home, "--since", "2020-01-01T00:00:00+02:00"]) == 0
        assert len(capsys.readouterr().out.splitlines()) == 4

    def test_an_out_folder_that_does_not_exist_is_wrong_usage(self, recorded: AgentHome, tmp_path: Path) -> None:
        assert cli.main(["export", "--home", str(recorded.home), "--out", str(tmp_path / "absent" / "out")]) == 2

    def test_a_reader_that_goes_away_is_no_fault_to_speak_of(self, recorded: AgentHome) -> None:
        read, write = os.pipe()
        os.close(read)
        with os.fdopen(write, "wb") as gone:
            done = subprocess.run(
                [sys.executable, "-m", "edge_agent.cli", "export", "--home", recorded.home], stdout=gone, stderr=subprocess.PIPE, text=True
            )
        assert (done.stderr, done.returncode) == ("", 1)

    def test_rebuild_makes_results_again(self, recorded: AgentHome, capsys: pytest.CaptureFixture[str]) -> None:
        before = recorded.lines()
        (recorded.home / "results" / "predictions.jsonl").write_text("")
        assert cli.main(["export", "--home", str(recorded.home), "--rebuild"]) == 0
        assert recorded.lines() == before
        [note] = recorded.rows("SELECT value FROM note WHERE name = 'results_synced'")
        assert json.loads(note["value"])["jsonl_bytes"] == (recorded.home / "results" / "predictions.jsonl").stat().st_size
        assert capsys.readouterr().err == f"4 records written to {recorded.home / 'results'}\n"

    def test_rebuild_does_not_meddle_with_a_running_agent(self, recorded: AgentHome, capsys: pytest.CaptureFixture[str]) -> None:
        with recorded.running():
            assert cli.main(["export", "--home", str(recorded.home)]) == 0
            assert cli.main(["export", "--home", str(recorded.home), "--rebuild"]) == 40
        assert "another agent" in capsys.readouterr().err

    def test_rebuild_goes_with_no_other_option(self, recorded: AgentHome) -> None:
        assert cli.main(["export", "--home", str(recorded.home), "--rebuild", "--format", "csv"]) == 2

    def test_without_records_there_is_no_agent(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["export", "--home", str(tmp_path)]) == 40
        assert "no agent has run on this home folder" in capsys.readouterr().err


class TestStatus:
    def read(self, home: AgentHome, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
        assert cli.main(["status", "--home", str(home.home), "--format", "json"]) == 0
        status: dict[str, object] = json.loads(capsys.readouterr().out)
        return status

    def test_what_a_program_reads(self, recorded: AgentHome, capsys: pytest.CaptureFixture[str]) -> None:
        status = self.read(recorded, capsys)
        assert (status["running"], status["pid"], status["records"]) == (False, None, 4)
        assert status["by_status"] == {"done": 3, "rejected": 1}
        assert (status["duplicates"], status["waiting"], status["undisposed"]) == (1, 0, 0)
        assert status["inbox"] == str(recorded.inbox)
        assert status["model"] == {"name": "fake", "version": "1", "digest": "d" * 64}
        drop(recorded.inbox, "new.png", image_bytes(9))
        (recorded.inbox / "half.part").touch()
        assert self.read(recorded, capsys)["waiting"] == 1

    def test_what_a_person_reads(self, recorded: AgentHome, capsys: pytest.CaptureFixture[str]) -> None:
        with recorded.running():
            assert cli.main(["status", "--home", str(recorded.home)]) == 0
        shown = capsys.readouterr().out
        assert f"running, process {os.getpid()}" in shown
        assert "4 (3 done, 1 rejected; 1 duplicates)" in shown
        assert "fake 1" in shown

    def test_an_inbox_that_is_gone(self, recorded: AgentHome, capsys: pytest.CaptureFixture[str]) -> None:
        recorded.inbox.rmdir()
        assert self.read(recorded, capsys)["waiting"] is None
        assert cli.main(["status", "--home", str(recorded.home)]) == 0
        assert "cannot be read" in capsys.readouterr().out

    def test_an_agent_whose_database_cannot_be_read_now(self, recorded: AgentHome, capsys: pytest.CaptureFixture[str]) -> None:
        """It is just being built again, as after damage: that an agent runs, and what it does, is shown all the same."""
        with recorded.running():
            wait_until(lambda: doing(recorded.home)[0] == "working")
            for path in recorded.database.parent.glob(f"{recorded.database.name}*"):
                path.rename(path.with_name(f"aside-{path.name}"))
            assert cli.main(["status", "--home", str(recorded.home)]) == 40
            for path in recorded.database.parent.glob("aside-*"):
                path.rename(path.with_name(path.name.removeprefix("aside-")))
        said = capsys.readouterr().err
        assert f"an agent runs here (process {os.getpid()}), working since 2" in said
        assert "the database is just being made" in said

    def test_no_agent_yet(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["status", "--home", str(tmp_path)]) == 40
        assert "--home" in capsys.readouterr().err
