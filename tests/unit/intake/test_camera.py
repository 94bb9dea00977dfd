"""The camera on generated videos, and on captures that fail in every way that real ones do."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.config import CameraConfig
from edge_agent.errors import CameraGoneError, ConfigError, DiskFullError, SourceGoneError, StorageError
from edge_agent.intake.camera import CameraSource, is_camera_file, store_frame
from edge_agent.intake.capture import source_kind, without_password
from edge_agent.intake.stillness import StillScene

Image = NDArray[np.uint8]

LIMIT_S = 120.0
"""The longest wait for anything; a busy machine takes many times what an idle one does."""
FRAMES_PER_S = 10
STILL_FRAMES = 13
MOVE_FRAMES = 5
TAKEN_AT = datetime(2026, 3, 4, 5, 6, 7, 89_000, tzinfo=UTC)


def draw_scene(number: int, shift: int = 0, rows: int = 120, columns: int = 160) -> Image:
    """A dark picture with a bright rectangle whose place and brightness depend on ``number``; ``shift`` moves it."""
    image = np.full((rows, columns, 3), 20, np.uint8)
    row, column = 10 + 7 * number % 60, (5 + 23 * number) % 90 + shift
    image[row : row + 40, column : column + 50] = 120 + 13 * number
    return image


def add_noise(image: Image, generator: np.random.Generator, deviation: float = 4.0) -> Image:
    noise: Image = np.clip(image + generator.normal(0, deviation, image.shape), 0, 255).round().astype(np.uint8)
    return noise


def scenes_video(path: Path, scenes: int) -> Path:
    """Write still scenes with movement between them and sensor noise all over."""
    generator = np.random.default_rng(5)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), FRAMES_PER_S, (160, 120))
    assert writer.isOpened()
    for number in range(scenes):
        shifts = [0] * STILL_FRAMES + [9 * step for step in range(1, MOVE_FRAMES + 1)]
        for shift in shifts:
            writer.write(add_noise(draw_scene(number, shift), generator))
    writer.release()
    return path


def decoded(path: Path) -> list[Image]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        success, frame = capture.read()
        if not success:
            return frames
        frames.append(frame)


def stored(inbox: Path) -> list[Path]:
    """Every file of the inbox, temporary ones included, in the order of their names."""
    return sorted(inbox.iterdir())


class FakeCapture:
    """A camera at about 100 frames a second that gives what it is told; None among the frames is success without a frame."""

    def __init__(self, frames: Iterable[Image | None] = (), *, opens: bool = True, retrieves: bool = True) -> None:
        self._frames: Iterator[Image | None] = iter(frames)
        self._opens = opens
        self._retrieves = retrieves
        self._frame: Image | None = None
        self.released = threading.Event()

    def isOpened(self) -> bool:
        return self._opens

    def grab(self) -> bool:
        time.sleep(0.01)
        try:
            self._frame = next(self._frames)
        except StopIteration:
            return False
        return True

    def retrieve(self) -> tuple[bool, Image | None]:
        return self._retrieves, self._frame

    def get(self, prop: int, /) -> float:
        return 0.0

    def release(self) -> None:
        self.released.set()


class HangingCapture(FakeCapture):
    """``grab`` never returns, as with a camera whose cable was pulled (opencv#22677), until the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()

    def grab(self) -> bool:
        self.let_go.wait()
        return False


def live(image: Image) -> Iterator[Image]:
    """A real sensor's endless pictures of one scene: never twice the same."""
    generator = np.random.default_rng(11)
    while True:
        yield add_noise(image, generator, 2.0)


@pytest.fixture(autouse=True)
def _whole_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edge_agent")


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


@pytest.fixture
def watch(inbox: Path) -> Iterator[Callable[..., CameraSource]]:
    """Start a camera on the given captures, one after the other; the last is opened again for ever. Stopped after the test."""
    started: list[CameraSource] = []

    def start(*captures: Callable[[], FakeCapture], **settings: Any) -> CameraSource:
        makers = itertools.chain(captures, itertools.repeat(captures[-1]))
        values = {"source": "0", "still_s": 0.25, "stall_timeout_s": 60.0, "reopen_after_s": 0.02, "reopen_max_s": 0.05} | settings
        source = CameraSource(CameraConfig(**values), inbox, opening=lambda _source, _timeout_s: next(makers)())
        started.append(source)
        source.start()
        return source

    yield start
    for source in started:
        assert source.stop(LIMIT_S)


def eventually(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "did not happen within two minutes"
        time.sleep(0.01)


def test_ten_still_scenes_of_a_video_give_ten_files_pixel_for_pixel(tmp_path: Path, inbox: Path, caplog: pytest.LogCaptureFixture) -> None:
    video = scenes_video(tmp_path / "scenes.avi", 10)
    source = CameraSource(CameraConfig(source=str(video), still_s=1.0), inbox)
    source.start()
    # At full speed this takes well under a second: time is the video's own.
    assert source.wait_finished(LIMIT_S)
    assert source.failure is None
    assert source.frames_taken == 10
    assert f"camera_finished source={video} frames=180 stored=10" in caplog.text

    files = stored(inbox)
    assert len(files) == 10
    assert all(is_camera_file(file.name) for file in files)
    frames = decoded(video)
    for number, file in enumerate(files):
        picture = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        first = number * (STILL_FRAMES + MOVE_FRAMES)
        assert any(np.array_equal(picture, frame) for frame in frames[first : first + STILL_FRAMES]), file.name


def test_a_video_without_a_still_scene_gives_nothing(tmp_path: Path, inbox: Path) -> None:
    video = scenes_video(tmp_path / "scenes.avi", 3)
    source = CameraSource(CameraConfig(source=str(video), still_s=2.0), inbox)
    source.start()
    assert source.wait_finished(LIMIT_S)
    assert source.failure is None
    assert stored(inbox) == []


def test_a_live_scene_is_taken_once_and_the_next_one_again(
    inbox: Path, watch: Callable[..., CameraSource], caplog: pytest.LogCaptureFixture
) -> None:
    pictures = [live(draw_scene(1))]

    def frames() -> Iterator[Image]:
        while True:
            yield next(pictures[0])

    source = watch(lambda: FakeCapture(frames()))
    eventually(lambda: source.frames_taken == 1)
    time.sleep(0.6)  # twice the still time: noise alone is not a new scene
    assert source.frames_taken == 1
    assert "camera_opened source=0 rows=120 columns=160" in caplog.text
    pictures[0] = live(draw_scene(4))
    eventually(lambda: source.frames_taken == 2)
    assert len(stored(inbox)) == 2


def test_a_camera_that_does_not_open_is_tried_again(watch: Callable[..., CameraSource], caplog: pytest.LogCaptureFixture) -> None:
    closed = FakeCapture(opens=False)
    opened = iter([closed, FakeCapture(opens=False)])
    let_open = threading.Event()

    def opening() -> FakeCapture:
        return FakeCapture(live(draw_scene(2))) if let_open.is_set() else next(opened, closed)

    source = watch(opening)
    eventually(lambda: "camera_lost source=0 reason='it cannot be opened'" in caplog.text)
    assert closed.released.is_set()
    let_open.set()
    eventually(lambda: source.frames_taken == 1)
    assert source.failure is None


def test_a_hanging_read_is_abandoned_and_the_camera_opened_again(watch: Callable[..., CameraSource]) -> None:
    hanging = HangingCapture()
    source = watch(lambda: hanging, lambda: FakeCapture(live(draw_scene(2))), stall_timeout_s=0.5)
    eventually(lambda: source.frames_taken == 1)
    assert not hanging.released.is_set()
    hanging.let_go.set()
    assert hanging.released.wait(LIMIT_S)


def test_a_camera_that_hangs_again_and_again_is_gone_for_good(watch: Callable[..., CameraSource]) -> None:
    hanging: list[HangingCapture] = []

    def opening() -> FakeCapture:
        hanging.append(HangingCapture())
        return hanging[-1]

    source = watch(opening, stall_timeout_s=0.05)
    assert source.wait_finished(LIMIT_S)
    assert isinstance(source.failure, CameraGoneError)
    assert "check its cable" in str(source.failure)
    assert len(hanging) == 8
    for capture in hanging:
        capture.let_go.set()


def test_opening_that_hangs_is_abandoned_too(watch: Callable[..., CameraSource]) -> None:
    let_go = threading.Event()

    def hanging_open() -> FakeCapture:
        let_go.wait()
        return FakeCapture()

    source = watch(hanging_open, lambda: FakeCapture(live(draw_scene(2))), stall_timeout_s=0.5)
    eventually(lambda: source.frames_taken == 1)
    let_go.set()


def test_success_without_a_frame_is_no_frame(inbox: Path, watch: Callable[..., CameraSource]) -> None:
    empty = FakeCapture(itertools.repeat(None))
    size_zero = FakeCapture(itertools.repeat(np.empty((0, 0, 3), np.uint8)))
    source = watch(lambda: empty, lambda: size_zero, lambda: FakeCapture(live(draw_scene(2))), stall_timeout_s=0.5)
    eventually(lambda: source.frames_taken == 1)
    assert empty.released.is_set()
    assert len(stored(inbox)) == 1


def test_a_frame_whose_flag_says_failure_is_never_used(
    inbox: Path, watch: Callable[..., CameraSource], caplog: pytest.LogCaptureFixture
) -> None:
    source = watch(lambda: FakeCapture(live(draw_scene(2)), retrieves=False))
    eventually(lambda: "camera_lost source=0 reason='a frame could not be decoded'" in caplog.text)
    time.sleep(0.5)
    assert source.frames_taken == 0
    assert stored(inbox) == []


def test_a_new_size_after_reconnecting_is_a_new_scene(inbox: Path, watch: Callable[..., CameraSource]) -> None:
    small = itertools.islice(live(draw_scene(2)), 60)
    large = draw_scene(7, rows=240, columns=320)
    source = watch(lambda: FakeCapture(small), lambda: FakeCapture(live(large)))
    eventually(lambda: source.frames_taken == 2)
    shapes = [cv2.imread(str(file), cv2.IMREAD_UNCHANGED).shape for file in stored(inbox)]
    assert shapes == [(120, 160, 3), (240, 320, 3)]


def test_a_frozen_picture_makes_the_camera_be_opened_again(watch: Callable[..., CameraSource], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.intake.camera.FROZEN_S", 0.5)
    frozen = FakeCapture(itertools.repeat(draw_scene(1)))
    source = watch(lambda: frozen, lambda: FakeCapture(live(draw_scene(4))))
    eventually(lambda: source.frames_taken == 2)
    assert frozen.released.is_set()


def test_a_picture_that_never_changes_is_taken_once(watch: Callable[..., CameraSource], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.intake.camera.FROZEN_S", 0.3)
    opened: list[FakeCapture] = []

    def opening() -> FakeCapture:
        opened.append(FakeCapture(itertools.repeat(draw_scene(1))))
        return opened[-1]

    source = watch(opening)
    eventually(lambda: len(opened) == 3)
    assert source.frames_taken == 1


def test_a_full_disk_stops_the_camera_with_its_own_error(
    inbox: Path, watch: Callable[..., CameraSource], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("edge_agent.intake.camera.os.fsync", full)
    source = watch(lambda: FakeCapture(live(draw_scene(1))))
    assert source.wait_finished(LIMIT_S)
    assert isinstance(source.failure, DiskFullError)
    assert str(inbox) in str(source.failure)
    assert f"camera_stopped source=0 reason={source.failure}" in caplog.text
    assert stored(inbox) == []


def test_an_inbox_that_is_gone_stops_the_camera(inbox: Path, watch: Callable[..., CameraSource]) -> None:
    inbox.rmdir()
    source = watch(lambda: FakeCapture(live(draw_scene(1))))
    assert source.wait_finished(LIMIT_S)
    assert isinstance(source.failure, SourceGoneError)
    inbox.mkdir()


def test_stopping_takes_no_longer_than_a_look_at_the_clock(watch: Callable[..., CameraSource]) -> None:
    hanging = HangingCapture()
    source = watch(lambda: hanging, stall_timeout_s=3600.0)
    assert source.stop(LIMIT_S)
    assert source.failure is None
    hanging.let_go.set()


def test_the_remains_of_a_killed_run_are_removed(inbox: Path, watch: Callable[..., CameraSource]) -> None:
    remains = inbox / ".camera-20260101T000000.000Z-000.png.part"
    remains.write_bytes(b"half")
    other = inbox / ".scan.png.part"
    other.write_bytes(b"somebody is copying this")
    watch(lambda: FakeCapture(opens=False))
    assert stored(inbox) == [other]


@pytest.mark.parametrize("image", [draw_scene(3), draw_scene(3)[:, :, 0], np.arange(65536, dtype=np.uint16).reshape(256, 256)])
def test_a_frame_is_stored_without_loss(inbox: Path, image: NDArray[Any]) -> None:
    path = store_frame(image, inbox, TAKEN_AT)
    assert path.name == "camera-20260304T050607.089Z-000.png"
    read = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert read.dtype == image.dtype
    assert np.array_equal(read, image)
    assert stored(inbox) == [path]


def test_a_stored_frame_never_replaces_a_file(inbox: Path) -> None:
    taken = inbox / "camera-20260304T050607.089Z-000.png"
    taken.write_bytes(b"here before")
    reserved = inbox / ".camera-20260304T050607.089Z-001.png.part"
    reserved.write_bytes(b"another camera is writing")
    assert store_frame(draw_scene(1), inbox, TAKEN_AT).name.endswith("-002.png")
    assert taken.read_bytes() == b"here before"
    assert reserved.read_bytes() == b"another camera is writing"


def test_a_read_only_inbox_is_a_storage_error(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(StorageError, match="Permission denied"):
        store_frame(draw_scene(1), inbox, TAKEN_AT)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("camera-20260304T050607.089Z-000.png", True),
        ("sub/camera-20260304T050607.089Z-000.png", False),
        ("camera-1.png", False),
        ("camera-20260304T050607.089Z-000.png.part", False),
    ],
)
def test_a_camera_file_is_known_by_its_name(name: str, expected: bool) -> None:
    assert is_camera_file(name) is expected


def test_a_missing_opencv_names_the_extra(inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ConfigError, match=r"pip install 'edge-agent\[camera\]'"):
        CameraSource(CameraConfig(source="0"), inbox).start()


def test_a_missing_video_file_is_refused_at_once(inbox: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no video file .*gone\.avi"):
        CameraSource(CameraConfig(source=str(tmp_path / "gone.avi")), inbox).start()


def test_a_file_that_is_no_video_is_refused(inbox: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.avi"
    text.write_text("not a video")
    source = CameraSource(CameraConfig(source=str(text)), inbox)
    source.start()
    assert source.wait_finished(LIMIT_S)
    assert isinstance(source.failure, ConfigError)
    assert "notes.avi is not a video" in str(source.failure)


def test_passwords_stay_out_of_the_log(watch: Callable[..., CameraSource], caplog: pytest.LogCaptureFixture) -> None:
    watch(lambda: FakeCapture(opens=False), source="rtsp://ward:secret@10.0.0.7:554/one?token=secret")
    eventually(lambda: "camera_lost source=rtsp://10.0.0.7:554/one reason=" in caplog.text)
    assert "secret" not in caplog.text
    assert without_password("clip.avi") == "clip.avi"


@pytest.mark.parametrize(
    ("source", "kind"),
    [("0", "device"), ("/dev/video2", "device"), ("rtsp://a/b", "url"), ("http://a/b.mjpg", "url"), ("a/clip.avi", "file")],
)
def test_the_source_says_what_it_is(source: str, kind: str) -> None:
    assert source_kind(source) == kind


def test_slow_movement_is_movement() -> None:
    scene = StillScene(still_s=1.0, motion_threshold=2.0, difference_threshold=6.0)
    brighter = [np.full((48, 64), 50 + frame // 2, np.uint8) for frame in range(100)]
    assert not any(scene.offer(image, frame / 10) for frame, image in enumerate(brighter))


def test_the_scene_before_last_is_a_new_one() -> None:
    scene = StillScene(still_s=0.5, motion_threshold=2.0, difference_threshold=6.0)
    a, b = draw_scene(1), draw_scene(2)
    frames = [a] * 10 + [b] * 10 + [a] * 10
    taken = [number for number, image in enumerate(frames) if scene.offer(image, number / 10)]
    assert taken == [5, 15, 25]


def test_a_short_disturbance_is_not_a_new_scene() -> None:
    scene = StillScene(still_s=0.5, motion_threshold=2.0, difference_threshold=6.0)
    a = draw_scene(1)
    frames = [a] * 10 + [draw_scene(2)] * 2 + [a] * 10
    assert sum(scene.offer(image, number / 10) for number, image in enumerate(frames)) == 1


def test_a_video_without_timestamps_counts_by_its_frames(inbox: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    video = tmp_path / "clip.avi"
    video.touch()
    config = CameraConfig(source=str(video), still_s=1.0)
    source = CameraSource(config, inbox, opening=lambda _source, _timeout_s: FakeCapture([draw_scene(1)] * 27))
    source.start()
    assert source.wait_finished(LIMIT_S)
    # 25 frames a second where the container does not say: frame 26 is the first that ends a whole still second.
    assert source.frames_taken == 1
    assert "frames=27 stored=1" in caplog.text
