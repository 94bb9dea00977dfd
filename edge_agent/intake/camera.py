"""A camera as a source of images: each still scene becomes one lossless file in the inbox, and goes the way of every image from there."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_agent.config import CameraConfig
from edge_agent.errors import CameraGoneError, ConfigError, EdgeAgentError, SourceGoneError, StorageError
from edge_agent.files.atomic import storage_error, sync_folder
from edge_agent.intake.capture import (
    Capture,
    CaptureEnd,
    FrameReader,
    TimedFrame,
    open_capture,
    prepare_opencv,
    source_kind,
    without_password,
)
from edge_agent.intake.stillness import StillScene

_log = logging.getLogger(__name__)

_FILE_NAME = re.compile(r"camera-\d{8}T\d{6}\.\d{3}Z-\d{3}\.png")
_STOP_CHECK_S = 0.1
FROZEN_S = 60.0
"""A camera that gives the same picture for this long is opened again. Some that died repeat their last picture for ever and report success.
A sensor's noise never gives the same picture twice, but a stream of a scene at rest may, from one key frame to the next."""
_MAX_HUNG_READERS = 8
"""Each reader that hangs for ever keeps a thread and perhaps the device. Only a new process gets them back."""


def is_camera_file(name: str) -> bool:
    """Tell whether a path of the inbox is a frame that a camera stored, also in an earlier run."""
    return _FILE_NAME.fullmatch(name) is not None


class CameraSource:
    """Watches a camera and stores a frame of every new scene that stands still.

    A device or URL is opened again, with growing pauses, whenever it fails, hangs or freezes. A video file is read once, as fast as it
    decodes, by its own timestamps.

    Parameters
    ----------
    config : CameraConfig
        ``source`` must not be empty.
    inbox : Path
        The folder that the agent watches. A frame is written as ``.NAME.part``, synced, and renamed.
    opening : callable, optional
        ``opening(source, timeout_s)`` opens the capture; OpenCV's by default.

    Attributes
    ----------
    failure : EdgeAgentError or None
        Why the source stopped for good, once it has: :class:`StorageError`, :class:`SourceGoneError` (the inbox),
        :class:`CameraGoneError` or :class:`ConfigError`. None after a clean end.
    frames_taken : int
        Files stored since :meth:`start`.
    """

    def __init__(self, config: CameraConfig, inbox: Path, *, opening: Callable[[str, float], Capture] = open_capture) -> None:
        self._config = config
        self._inbox = inbox
        self._opening = opening
        self._kind = source_kind(config.source)
        self._label = without_password(config.source)
        self._scene = StillScene(config.still_s, config.motion_threshold, config.difference_threshold)
        self._hung: list[FrameReader] = []
        self._stopping = threading.Event()
        self._finished = threading.Event()
        self._thread: threading.Thread | None = None
        self.failure: EdgeAgentError | None = None
        self.frames_taken = 0

    def start(self) -> None:
        """Start watching, in a thread.

        Raises
        ------
        ConfigError
            If OpenCV is not installed, or the source is a file that does not exist.
        """
        prepare_opencv()
        if self._kind == "file" and not Path(self._config.source).is_file():
            raise ConfigError(f"camera.source: there is no video file {self._label}; give a V4L2 index (such as 0), a URL or a video file")
        for left_over in self._inbox.glob(".camera-*.png.part"):
            left_over.unlink(missing_ok=True)
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Stop watching; True once no further file can appear. A frame that is being stored is finished first."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout_s)
        return self._thread is None or not self._thread.is_alive()

    def wait_finished(self, timeout_s: float | None = None) -> bool:
        """Wait until the source has ended: a video file was read to its end, :attr:`failure` is set, or :meth:`stop` was called."""
        return self._finished.wait(timeout_s)

    def _run(self) -> None:
        failure: EdgeAgentError | None = CameraGoneError(
            f"the camera {self._label} stopped; the log says why. Restart the agent; under systemd it starts again by itself"
        )
        try:
            if self._kind == "file":
                self._read_file()
            else:
                self._watch_live()
            failure = None
        except EdgeAgentError as fault:
            failure = fault
            _log.error("camera_stopped source=%s reason=%s", self._label, fault)
        finally:
            self.failure = failure
            self._finished.set()

    def _read_file(self) -> None:
        reader = self._start_reader()
        frames = 0
        try:
            while (item := self._next(reader)) is not None:
                if isinstance(item, CaptureEnd):
                    if not frames:
                        raise ConfigError(f"camera.source: {self._label} is not a video that OpenCV can read")
                    _log.info("camera_finished source=%s frames=%d stored=%d", self._label, frames, self.frames_taken)
                    return
                frames += 1
                self._consider(item)
            if not self._stopping.is_set():
                raise CameraGoneError(f"{self._label} gave no frame for {self._config.stall_timeout_s:g} s: is its disk still there?")
        finally:
            reader.abandon()

    def _watch_live(self) -> None:
        pause_s = self._config.reopen_after_s
        while not self._stopping.is_set():
            opened_s = time.monotonic()
            reader = self._start_reader()
            try:
                reason = self._watch_reader(reader)
            finally:
                reader.abandon()
            if self._stopping.is_set():
                break
            self._count_hung(reader)
            if time.monotonic() - opened_s > pause_s + self._config.stall_timeout_s:
                pause_s = self._config.reopen_after_s  # it has worked for a while: this is a new fault, not the same one again
            _log.warning("camera_lost source=%s reason=%r retry_s=%g", self._label, reason, pause_s)
            self._stopping.wait(pause_s)
            pause_s = min(pause_s * 2, self._config.reopen_max_s)

    def _watch_reader(self, reader: FrameReader) -> str:
        """Take frames until the capture ends, hangs or freezes; return why it is given up."""
        last_pixels: NDArray[Any] | None = None
        last_news_s = time.monotonic()
        while (item := self._next(reader)) is not None:
            if isinstance(item, CaptureEnd):
                return item.reason
            if last_pixels is None:
                _log.info("camera_opened source=%s rows=%d columns=%d", self._label, *item.pixels.shape[:2])
            if last_pixels is None or not np.array_equal(item.pixels, last_pixels):
                last_pixels, last_news_s = item.pixels, item.at_s
            elif item.at_s - last_news_s > FROZEN_S:
                return "the picture is frozen"
            self._consider(item)
        return f"no frame came for {self._config.stall_timeout_s:g} s"

    def _start_reader(self) -> FrameReader:
        source, timeout_s, opening = self._config.source, self._config.stall_timeout_s, self._opening
        reader = FrameReader(lambda: opening(source, timeout_s), self._kind)
        reader.start()
        return reader

    def _next(self, reader: FrameReader) -> TimedFrame | CaptureEnd | None:
        """Return the next frame or the end; None where the read timed out or the source is being stopped."""
        deadline_s = time.monotonic() + self._config.stall_timeout_s
        while not self._stopping.is_set() and time.monotonic() < deadline_s:
            if (item := reader.next_frame(_STOP_CHECK_S)) is not None:
                return item
        return None

    def _count_hung(self, reader: FrameReader) -> None:
        reader.join(_STOP_CHECK_S)
        self._hung = [each for each in [*self._hung, reader] if each.is_alive()]
        if len(self._hung) >= _MAX_HUNG_READERS:
            raise CameraGoneError(
                f"the camera {self._label} hung {len(self._hung)} times: check its cable and power, then restart the agent; "
                "under systemd it starts again by itself"
            )

    def _consider(self, frame: TimedFrame) -> None:
        if self._scene.offer(frame.pixels, frame.at_s):
            path = store_frame(frame.pixels, self._inbox, datetime.now(UTC))
            self.frames_taken += 1
            rows, columns = frame.pixels.shape[:2]
            _log.info("frame_taken file=%s rows=%d columns=%d", path.name, rows, columns)


def store_frame(pixels: NDArray[Any], inbox: Path, taken_at: datetime) -> Path:
    """Write a frame losslessly into the inbox, whole or not at all.

    Parameters
    ----------
    pixels : ndarray, uint8 or uint16, shape (rows, columns) or (rows, columns, 3)
        Grey, or blue, green, red as OpenCV has it.
    inbox : Path
        An existing folder.
    taken_at : datetime
        In UTC; becomes part of the name.

    Returns
    -------
    Path
        ``camera-YYYYMMDDTHHMMSS.mmmZ-NNN.png``, durable. A file that was there before keeps its content: NNN counts on.

    Raises
    ------
    DiskFullError
        If no space is left.
    SourceGoneError
        If the inbox is gone.
    StorageError
        If the inbox cannot be written, or a thousand frames bear the same millisecond.
    """
    import cv2

    success, png = cv2.imencode(".png", pixels)
    if not success:
        raise StorageError("a camera frame could not be encoded as PNG")
    stem = f"camera-{taken_at:%Y%m%dT%H%M%S}.{taken_at.microsecond // 1000:03d}Z"
    try:
        for number in range(1000):
            path = inbox / f"{stem}-{number:03d}.png"
            if _write_new(path, png.tobytes()):
                return path
    except FileNotFoundError as fault:
        raise SourceGoneError(f"the inbox {inbox} is gone: camera frames cannot be stored") from fault
    except OSError as fault:
        raise storage_error(fault, f"store a camera frame in {inbox}") from fault
    raise StorageError(f"{inbox} holds a thousand frames called {stem}: is the clock standing still?")


def _write_new(path: Path, content: bytes) -> bool:
    """Write, sync and rename; False where the name is taken. The temporary name reserves the final one among cameras."""
    part = path.with_name(f".{path.name}.part")
    try:
        file = part.open("xb")
    except FileExistsError:
        return False
    try:
        with file:
            if path.exists():
                return False
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    sync_folder(path.parent)
    return True
