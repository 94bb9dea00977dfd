"""A video through the camera and the whole agent: each still scene becomes one record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_agent.agent.agent import Agent
from edge_agent.config import CameraConfig, Config, IntakeConfig
from edge_agent.errors import ConfigError
from edge_agent.imaging.preprocess import InputContract
from edge_agent.records import Frame, ModelIdentity, Verdict

FRAMES_PER_S = 10
STILL_FRAMES = 13
MOVE_FRAMES = 4


class BrightnessClassifier:
    """Says how bright an image is: enough to see that each record is about its own scene."""

    identity = ModelIdentity("brightness", "1", "0" * 64)
    input = InputContract(rows=32, columns=32)

    def classify(self, frame: Frame) -> Verdict:
        bright = float(frame.pixels.mean()) / 255
        return Verdict(
            scores={"dark": 1 - bright, "bright": bright},
            label="dark",
            findings=[],
            decision="negative",
            reason=None,
            novelty=0.0,
            quality=[],
            preprocess_ms=0.0,
            invoke_ms=0.0,
            head_ms=0.0,
        )


def load(_config: Config, count: int) -> Sequence[BrightnessClassifier]:
    return [BrightnessClassifier() for _ in range(count)]


def scenes_video(path: Path, scenes: int) -> Path:
    """Films laid on a light box one after the other: a bright rectangle that grows from scene to scene, pulled away in between."""
    generator = np.random.default_rng(3)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FRAMES_PER_S, (160, 120))
    for scene in range(scenes):
        for step in [0] * STILL_FRAMES + [12 * step for step in range(1, MOVE_FRAMES + 1)]:
            picture = np.full((120, 160, 3), 15, np.float64)
            picture[20 : 40 + 8 * scene, 20 + step : 100 + step] = 200
            noisy = picture + generator.normal(0, 3, picture.shape)
            writer.write(np.clip(noisy, 0, 255).round().astype(np.uint8))
    writer.release()
    return path


def config(tmp_path: Path, source: Path) -> Config:
    return Config(home=tmp_path / "home", intake=IntakeConfig(settle_time_s=0.1), camera=CameraConfig(source=str(source), still_s=1.0))


def test_ten_still_scenes_give_ten_predictions(tmp_path: Path) -> None:
    agent = Agent(config(tmp_path, scenes_video(tmp_path / "films.avi", 10)), once=True, load=load)
    agent.run()

    home = tmp_path / "home"
    records = [json.loads(line) for line in (home / "results" / "predictions.jsonl").read_text().splitlines()]
    assert len(records) == 10
    assert {record["status"] for record in records} == {"done"}
    assert {record["source"] for record in records} == {"camera"}
    assert all(record["duplicate_of"] is None for record in records)
    by_time = sorted(records, key=lambda record: record["path"])
    brightness = [record["scores"]["bright"] for record in by_time]
    assert brightness == sorted(brightness)
    assert len(set(brightness)) == 10
    assert sorted(path.name for path in (home / "done").iterdir()) == [record["path"] for record in by_time]
    assert list((home / "inbox").iterdir()) == []


def test_a_camera_that_cannot_be_used_stops_the_agent_with_its_error(tmp_path: Path) -> None:
    text = tmp_path / "films.avi"
    text.write_text("not a video")
    with pytest.raises(ConfigError, match=r"films\.avi is not a video"):
        Agent(config(tmp_path, text), once=True, load=load).run()
