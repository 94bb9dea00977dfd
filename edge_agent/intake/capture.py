"""Frames from OpenCV, read where a hanging ``read`` can do no harm.

``VideoCapture.grab`` can block for ever when a camera is unplugged or a stream dies (opencv#22677), and nothing in Python can interrupt it.
So each opened capture is read by a daemon thread of its own. Whoever waits for frames waits with a deadline, and abandons the thread
when it passes: the thread releases the capture itself, should the call ever return.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol
from urllib.parse import urlsplit, urlunsplit

from edge_agent.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SourceKind = Literal["device", "url", "file"]

_LOOK_INTERVAL_S = 0.1
"""Ten frames a second tell a still scene from a moving one. Decoding all thirty would cost a small board a third of a core."""
_EMPTY_FRAME_PAUSE_S = 0.02
_USUAL_FRAME_S = 0.04


class Capture(Protocol):
    """The part of ``cv2.VideoCapture`` that is used."""

    def isOpened(self) -> bool: ...  # noqa: N802

    def grab(self) -> bool: ...

    def retrieve(self) -> tuple[bool, NDArray[Any] | None]: ...

    def get(self, prop: int, /) -> float: ...

    def release(self) -> None: ...


@dataclass(frozen=True)
class TimedFrame:
    """A frame whose success flag was true. ``at_s`` is the monotonic clock for a device or URL, the video's own time for a file."""

    pixels: NDArray[Any]
    at_s: float


@dataclass(frozen=True)
class CaptureEnd:
    """No frame follows. ``reason`` is for a person."""

    reason: str


def source_kind(source: str) -> SourceKind:
    """Tell a V4L2 index or ``/dev`` node, a URL and a video file apart, by the text alone."""
    if source.isdecimal() or source.startswith("/dev/"):
        return "device"
    return "url" if "://" in source else "file"


def without_password(source: str) -> str:
    """Return the source as it may stand in a log or on a page: a URL without user and password."""
    if source_kind(source) != "url":
        return source
    parts = urlsplit(source)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))


def prepare_opencv() -> None:
    """Load OpenCV, for use beside inference.

    Raises
    ------
    ConfigError
        If it is not installed.
    """
    try:
        import cv2
    except ImportError as fault:
        raise ConfigError(
            f"the camera needs OpenCV, which cannot be loaded ({fault}): install it with  pip install 'edge-agent[camera]'"
        ) from fault
    cv2.setNumThreads(1)  # shrinking a frame is little work; a thread on each core would only stand in the way of the classifiers


def open_capture(source: str, timeout_s: float) -> Capture:
    """Open a source with OpenCV; the caller asks ``isOpened``.

    ``timeout_s`` is passed on to FFmpeg for a URL, so that most reads that would hang return by themselves.
    """
    import cv2

    if source_kind(source) == "device":
        device: int | str = int(source) if source.isdecimal() else source
        return cv2.VideoCapture(device, cv2.CAP_V4L2)
    if source_kind(source) == "url":
        timeout_ms = int(timeout_s * 1000)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
        return cv2.VideoCapture(source, cv2.CAP_FFMPEG, limits)
    return cv2.VideoCapture(str(Path(source)))


class FrameReader(threading.Thread):
    """Reads one capture, from opening to release, and hands over its frames one at a time.

    A file hands over every frame and waits until it is fetched; a device or URL hands over the newest and forgets the ones nobody fetched.

    Parameters
    ----------
    opening : callable
        Opens the capture; called in this thread, since opening can hang as reading can.
    kind : {"device", "url", "file"}
        What is read.
    """

    def __init__(self, opening: Callable[[], Capture], kind: SourceKind) -> None:
        super().__init__(name="camera-reader", daemon=True)
        self._opening = opening
        self._is_file = kind == "file"
        self._handed: queue.Queue[TimedFrame | CaptureEnd] = queue.Queue(maxsize=1)
        self._abandoned = threading.Event()

    def next_frame(self, timeout_s: float) -> TimedFrame | CaptureEnd | None:
        """Return the next frame or the end; None where neither came within ``timeout_s``."""
        try:
            return self._handed.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def abandon(self) -> None:
        """Let the thread end at its next chance, and never wait for it."""
        self._abandoned.set()

    def run(self) -> None:
        import cv2

        capture: Capture | None = None
        try:
            capture = self._opening()
            if capture.isOpened():
                end = CaptureEnd(self._read(capture, cv2.CAP_PROP_POS_MSEC, cv2.CAP_PROP_FPS))
            else:
                end = CaptureEnd("it cannot be opened")
        except (cv2.error, OSError, ValueError) as fault:
            end = CaptureEnd(str(fault))
        finally:
            if capture is not None:
                capture.release()
        self._hand_over(end)

    def _read(self, capture: Capture, position_property: int, rate_property: int) -> str:
        import numpy as np  # here, so that a source's name can be looked at where NumPy is broken or missing

        next_look_s = at_s = float("-inf")
        while not self._abandoned.is_set():
            if not capture.grab():
                return "no frame follows"
            now_s = time.monotonic()
            if not self._is_file and now_s < next_look_s:
                continue  # grabbed all the same: a frame left in the driver's queue would be read later as if it were new
            next_look_s = now_s + _LOOK_INTERVAL_S
            success, pixels = capture.retrieve()
            if not success:
                return "a frame could not be decoded"
            at_s = _video_time_s(capture, position_property, rate_property, at_s) if self._is_file else now_s
            if pixels is None or pixels.size == 0:
                time.sleep(_EMPTY_FRAME_PAUSE_S)  # some drivers report success without a frame (opencv#14044)
                continue
            self._hand_over(TimedFrame(np.asarray(pixels), at_s))
        return "it was given up"

    def _hand_over(self, item: TimedFrame | CaptureEnd) -> None:
        while not self._abandoned.is_set():
            try:
                self._handed.put(item, timeout=0.2 if self._is_file else 0)
                return
            except queue.Full:
                if not self._is_file:
                    with contextlib.suppress(queue.Empty):  # fetched at this very moment
                        self._handed.get_nowait()


def _video_time_s(capture: Capture, position_property: int, rate_property: int, previous_s: float) -> float:
    """Return the frame's own time; where the container has none, count on by the frame rate so that time never stands still."""
    at_s = float(capture.get(position_property)) / 1000
    if at_s > previous_s:
        return at_s
    frames_per_s = float(capture.get(rate_property))
    return previous_s + (1 / frames_per_s if frames_per_s > 0 else _USUAL_FRAME_S)
