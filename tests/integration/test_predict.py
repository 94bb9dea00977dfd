"""``predict`` and ``check-config`` with the bundle that ships: records in order, nothing else on standard output, nothing written."""

from __future__ import annotations

import csv
import fcntl
import importlib.util
import io
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import termios
import threading
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from edge_agent.cli import main
from edge_agent.commands.check_config import config_toml
from edge_agent.commands.predict import find_targets
from edge_agent.config import load_config
from edge_agent.inference.bundle import default_bundle_path
from edge_agent.outbox.export import CSV_COLUMNS
from edge_agent.records import Record
from model_build.data.phantom.draw import save_phantom


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a technician leaves it: two phantoms, one of them in a sub-folder, and files that are no images."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "b" / "deeper.png").mkdir(parents=True)
    save_phantom(folder / "b" / "deeper.png" / "two.png", 2, rows=256, columns=256, opacity_count=2)
    save_phantom(folder / "one.jpg", 1, rows=256, columns=256)
    (folder / "a notes.txt").write_text("came in twice")
    (folder / "zero\nbytes 😀.dcm").touch()
    for hidden in (".one.jpg.part", "two.png.part", "._one.jpg", "Thumbs.db"):
        (folder / hidden).write_bytes(b"x")
    return folder


def predict_jsonl(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str | Path) -> list[Record]:
    assert main(["predict", *map(str, arguments), "--format", "jsonl"]) == 0
    captured = capfdbinary.readouterr()
    assert captured.err == b""
    return [msgspec.json.decode(line, type=Record) for line in captured.out.splitlines()]


def everything_below(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_a_folder_gives_a_record_for_every_file_below_it_sorted(images: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    before = everything_below(images)
    records = predict_jsonl(capfdbinary, images)
    names = ["a notes.txt", "b/deeper.png/two.png", "one.jpg", "zero\nbytes 😀.dcm"]
    assert [record.path for record in records] == [f"{images}/{name}" for name in names]
    assert [record.status for record in records] == ["rejected", "done", "done", "rejected"]
    assert [record.reason.code for record in records if record.reason and record.status == "rejected"] == ["not_an_image", "empty"]
    assert {(record.id, record.source) for record in records} == {(None, "predict")}
    assert everything_below(images) == before


def test_a_record_is_complete(images: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    (record,) = predict_jsonl(capfdbinary, images / "one.jpg")
    assert record.model is not None
    assert record.model.name == "cxr-pneumonia"
    assert sum(record.scores.values()) == pytest.approx(1)
    assert record.label in record.scores
    assert record.decision in {"positive", "negative", "review"}
    assert record.novelty is not None
    assert len(record.sha256) == 64
    timing = record.timing_ms
    assert None not in (timing.decode, timing.preprocess, timing.invoke, timing.head)
    assert (timing.queue, timing.commit, timing.total) == (None, None, None)
    assert record.finished_at >= record.received_at


def test_paths_stay_as_given_and_in_the_order_given(
    images: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images)
    records = predict_jsonl(capfdbinary, "./one.jpg", "b/", "one.jpg")
    assert [record.path for record in records] == ["./one.jpg", "b/deeper.png/two.png", "one.jpg"]
    assert records[0].scores == records[2].scores


def test_many_images_on_all_cores_keep_their_order_and_their_scores(
    tmp_path: Path, images: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for number in range(40):
        shutil.copy(images / ("one.jpg" if number % 3 else "b/deeper.png/two.png"), tmp_path / f"{number:02}.img")
    records = predict_jsonl(capfdbinary, tmp_path)
    assert [record.path for record in records] == [str(tmp_path / f"{number:02}.img") for number in range(40)]
    assert len({json.dumps(record.scores) for record in records}) == 2
    assert all((record.scores == records[0].scores) == (number % 3 == 0) for number, record in enumerate(records))


def test_csv_has_a_header_and_the_same_columns_as_everywhere(images: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["predict", str(images), "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capfdbinary.readouterr().out.decode(), newline="")))
    assert tuple(rows[0]) == CSV_COLUMNS
    assert [row["status"] for row in rows] == ["rejected", "done", "done", "rejected"]


def test_the_table_says_why_and_what_it_is_not(
    images: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # so that no cell is folded
    assert main(["predict", str(images / "one.jpg"), str(images / "a notes.txt")]) == 0
    shown = " ".join(capfdbinary.readouterr().out.decode().split())
    assert "rejected" in shown
    assert "looks like text" in shown
    assert "decision support for triage, not a diagnosis; model made for: children of 1 to 5 years" in shown


def test_a_path_that_does_not_exist_is_wrong_usage(images: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["predict", str(images / "one.jpg"), str(images / "gone.png"), "--format", "jsonl"]) == 2
    captured = capfdbinary.readouterr()
    assert captured.out == b""
    assert b"gone.png" in captured.err


def test_a_bad_bundle_is_a_model_error(images: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["predict", str(images / "one.jpg"), "--model", str(tmp_path)]) == 20
    captured = capfdbinary.readouterr()
    assert captured.out == b""
    assert captured.err.startswith(b"error: ")


def test_an_empty_folder_says_so_and_is_no_error(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["predict", str(tmp_path), "--format", "jsonl"]) == 0
    captured = capfdbinary.readouterr()
    assert (captured.out, captured.err) == (b"", f"no files in {tmp_path}\n".encode())


def test_what_cannot_be_read_gets_a_record_too(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "huge.dcm").open("wb") as file:
        file.truncate(300 * 1024**2)  # a sparse file
    (tmp_path / "dangling.png").symlink_to("nowhere")
    records = predict_jsonl(capfdbinary, tmp_path / "pipe", tmp_path)
    codes = {Path(record.path).name: record.reason.code for record in records if record.reason}
    assert codes == {"pipe": "not_a_file", "dangling.png": "read_error", "huge.dcm": "too_large"}


def test_a_name_that_is_not_unicode_is_shown_with_its_bytes(
    tmp_path: Path, images: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    shutil.copy(images / "one.jpg", os.fsencode(tmp_path) + b"/\xff.jpg")
    (record,) = predict_jsonl(capfdbinary, tmp_path)
    assert record.path == f"{tmp_path}/\\xff.jpg"
    assert record.status == "done"


def test_heatmaps_keep_the_sub_folders_and_never_overwrite_one_another(
    tmp_path: Path, images: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    folder = tmp_path / "heat" / "maps"
    records = predict_jsonl(capfdbinary, images, images / "one.jpg", "--heatmaps", folder)
    assert len(records) == 5
    drawn = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.is_file())
    assert drawn == ["b/deeper.png/two.png.heatmap.png", "one-2.jpg.heatmap.png", "one.jpg.heatmap.png"]
    with Image.open(folder / "one.jpg.heatmap.png") as picture:
        assert (picture.mode, picture.size) == ("RGB", (256, 256))


def test_heatmaps_of_an_earlier_run_are_not_classified(images: Path, tmp_path: Path) -> None:
    shutil.copytree(images, tmp_path / "in")
    (tmp_path / "in" / "maps").mkdir()
    shutil.copy(images / "one.jpg", tmp_path / "in" / "maps" / "one.jpg.heatmap.png")
    assert len(find_targets((str(tmp_path / "in"),))) == 5
    assert len(find_targets((str(tmp_path / "in"),), tmp_path / "in" / "maps")) == 4


def test_a_heatmap_folder_that_cannot_be_made_is_a_storage_error(
    tmp_path: Path, images: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "file").touch()
    assert main(["predict", str(images / "one.jpg"), "--heatmaps", str(tmp_path / "file" / "maps")]) == 40
    assert b"cannot make the folder" in capfdbinary.readouterr().err


def test_a_reader_that_goes_away_ends_it_quietly(images: Path) -> None:
    command = f"'{sys.executable}' -m edge_agent.cli predict '{images}' --format jsonl | true; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, check=False)
    assert (done.stderr, done.returncode) == ("", 1)


def test_a_bar_is_shown_on_a_terminal_and_on_standard_error_only(images: Path) -> None:
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    shown = bytearray()

    def read_terminal() -> None:
        while True:
            try:
                shown.extend(os.read(terminal, 4096))
            except OSError:  # the other end is closed
                return

    reader = threading.Thread(target=read_terminal)
    reader.start()
    command = [sys.executable, "-m", "edge_agent.cli", "predict", str(images), "--format", "jsonl"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=end, env=os.environ | {"TERM": "xterm"}, timeout=120, check=True)
    os.close(end)
    reader.join(60)
    os.close(terminal)
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 4
    assert b"/4" in shown


def test_real_radiographs_of_two_kinds_are_told_apart(real_data: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    folders = [real_data / "kermany" / "fullres" / kind for kind in ("NORMAL", "PNEUMONIA")]
    records = predict_jsonl(capfdbinary, *folders)
    # These were trained on: this shows that decoding at full size and the training agree, not how good the model is.
    right = sum(record.label == Path(record.path).parent.name for record in records)
    assert len(records) == 64
    assert right >= 60


# check-config


def test_check_config_prints_what_is_in_force_as_toml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "edge-agent.toml"
    file.write_text('home = "box"\n[intake]\nsettle_time_s = 3\n', encoding="utf-8")
    assert main(["check-config", "--config", str(file)]) == 0
    printed = capsys.readouterr().out
    assert f"# the inbox: {tmp_path / 'box' / 'inbox'}" in printed
    assert "# the model: cxr-pneumonia" in printed
    again = tmp_path / "again.toml"
    again.write_text(printed, encoding="utf-8")
    assert load_config(again) == load_config(file)
    assert not (tmp_path / "box").exists()


def test_what_is_printed_holds_every_key_also_with_odd_names(tmp_path: Path) -> None:
    config = load_config(None, home=tmp_path / 'quo"te\\ü 😀', inbox=tmp_path / "in", bundle=tmp_path / "b")
    table: dict[str, Any] = tomllib.loads(config_toml(config))
    assert table["home"] == str(config.home)
    assert table["intake"]["inbox"] == str(tmp_path / "in")
    assert table["model"] == {"bundle": str(tmp_path / "b"), "allow_unsigned": True, "threads": 0}  # named by a person


def test_check_config_tells_all_errors_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    arguments = ["--home", tmp_path / "file" / "home", "--inbox", tmp_path / "gone", "--model", tmp_path]
    assert main(["check-config", *map(str, arguments)]) == 10
    captured = capsys.readouterr()
    first, *lines = captured.err.splitlines()
    assert (captured.out, first) == ("", "error: the configuration cannot be run, 3 errors:")
    assert lines[0] == f"  home: {tmp_path / 'file'} is not a folder; name another"
    assert lines[1].startswith(f"  intake.inbox: {tmp_path / 'gone'} does not exist")
    assert lines[2].startswith("  model.bundle: ")
    assert "manifest.json" in lines[2]


def test_an_inbox_that_is_a_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["check-config", "--home", str(tmp_path / "home"), "--inbox", str(tmp_path / "file")]) == 10
    assert "is not a folder" in capsys.readouterr().err


def test_folders_without_the_right_to_write_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = os.access
    # Tests may run as root, who may write everywhere.
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK and asked(path, mode))
    (tmp_path / "inbox").mkdir()
    assert main(["check-config", "--home", str(tmp_path / "home"), "--inbox", str(tmp_path / "inbox")]) == 10
    said = capsys.readouterr().err
    assert f"may not write to {tmp_path}" in said
    assert f"may not move images out of {tmp_path / 'inbox'}" in said


def test_where_only_the_model_is_at_fault_the_exit_code_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(default_bundle_path(), bundle)
    (bundle / "head.json").write_bytes(b"{}")
    assert main(["check-config", "--home", str(tmp_path / "home"), "--model", str(bundle)]) == 20
    assert "head.json" in capsys.readouterr().err


def test_a_camera_without_its_extra_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "edge-agent.toml"
    file.write_text('home = "home"\n[camera]\nsource = "0"\n', encoding="utf-8")
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "cv2" else found(name))
    assert main(["check-config", "--config", str(file)]) == 10
    assert "edge-agent[camera]" in capsys.readouterr().err
