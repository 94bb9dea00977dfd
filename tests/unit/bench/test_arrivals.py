"""The whole benchmark with the bundle that ships, shortened to the least that still measures something."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.bench.arrivals import AgentFailedError, RunningAgent, distinct_jpeg
from edge_agent.bench.images import draw_jpeg
from edge_agent.bench.result import read_result
from edge_agent.cli import main
from edge_agent.inference.bundle import default_bundle_path

SHORT = ["--seconds", "0.2", "--threads", "1", "--runtime", "ai_edge_litert"]
STAGES = ["import", "load", "first_invoke", "warm_invoke", "decode", "preprocess", "invoke", "head", "image", "commit", "drop_to_record"]


def test_every_stage_of_the_shipped_bundle_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "here.json"
    assert main(["bench", *SHORT, "--format", "json", "--out", str(out)]) == 0
    printed, progress = capsys.readouterr()
    assert printed.encode() == out.read_bytes()
    assert "measuring: a running agent" in progress
    result = read_result(out)
    assert (result.model.name, result.model.kind) == ("cxr-pneumonia", "bundle")
    assert result.model.size_bytes == (default_bundle_path() / "model.tflite").stat().st_size
    assert [row.stage for row in result.rows] == STAGES
    latency = {row.stage: row.latency_ms for row in result.rows}
    assert all(value is not None and 0 < value.min <= value.median <= value.p90 <= value.p99 <= value.max for value in latency.values())
    image, decode, drop = latency["image"], latency["decode"], latency["drop_to_record"]
    assert image is not None
    assert decode is not None
    assert drop is not None
    assert image.min > decode.min
    assert drop.min > decode.min


def test_images_of_a_folder_are_used_and_others_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "one.jpg").write_bytes(draw_jpeg(1))
    (folder / "notes.txt").write_text("no film")
    assert main(["bench", *SHORT, "--images", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "folder films: 1" in out
    assert "caution: of 2 files in the image folder 1 were used" in out


def test_a_folder_without_images_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    assert main(["bench", *SHORT, "--images", str(folder)]) == 10
    assert "holds no image that can be decoded" in capsys.readouterr().err


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(tmp_path)]) == 20
    assert str(tmp_path) in capsys.readouterr().err


def test_a_bare_model_has_no_image_rows(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", str(default_bundle_path() / "model.tflite"), *SHORT]) == 0
    out = capsys.readouterr().out
    assert "warm_invoke" in out
    assert "drop_to_record" not in out
    assert "none: random values" in out


def test_an_agent_that_does_not_start_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    with RunningAgent(tmp_path / "no-bundle") as agent, pytest.raises(AgentFailedError, match=r"exit code 20: error: .*no-bundle"):
        agent.wait_for_record("never.jpg")
    assert not agent.home.exists()


def test_the_same_picture_becomes_another_file_each_time() -> None:
    original = draw_jpeg(1)
    one, other = distinct_jpeg(original, 1), distinct_jpeg(original, 2)
    assert len({original, one, other}) == 3
    assert original[2:] in one
    assert one.startswith(b"\xff\xd8\xff\xfe")
