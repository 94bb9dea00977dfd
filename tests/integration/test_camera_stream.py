"""A network camera: Motion-JPEG over HTTP, from a real socket into real files, with the connection cut between two scenes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edge_agent.config import CameraConfig
from edge_agent.intake.camera import CameraSource


class FilmStream(ThreadingHTTPServer):
    """Shows one scene until it is told to show the next; ``cut`` ends the connection that is open."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), StreamHandler)
        self.scene = 0
        self.cut = threading.Event()
        self.connections = 0

    def picture(self, generator: np.random.Generator) -> bytes:
        image: NDArray[np.float64] = np.full((120, 160, 3), 20.0)
        image[20 : 50 + 15 * self.scene, 30:110] = 190
        noisy = np.clip(image + generator.normal(0, 2, image.shape), 0, 255).astype(np.uint8)
        return bytes(cv2.imencode(".jpg", noisy)[1])


class StreamHandler(BaseHTTPRequestHandler):
    server: FilmStream

    def do_GET(self) -> None:
        self.server.connections += 1
        self.server.cut.clear()
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        generator = np.random.default_rng(self.server.connections)
        while not self.server.cut.is_set():
            picture = self.server.picture(generator)
            try:
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(picture), picture))
            except OSError:
                return
            time.sleep(0.05)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def stream() -> Iterator[FilmStream]:
    with FilmStream() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.cut.set()
        server.shutdown()
        thread.join()


def eventually_taken(source: CameraSource, count: int) -> None:
    deadline_s = time.monotonic() + 120
    while source.frames_taken < count:
        assert time.monotonic() < deadline_s, source.failure
        time.sleep(0.02)


def test_scenes_of_a_stream_are_stored_across_a_lost_connection(
    tmp_path: Path, stream: FilmStream, caplog: pytest.LogCaptureFixture
) -> None:
    config = CameraConfig(source=f"http://user:secret@127.0.0.1:{stream.server_port}/films.mjpg", still_s=0.3, reopen_after_s=0.1)
    source = CameraSource(config, tmp_path)
    source.start()
    try:
        eventually_taken(source, 1)
        stream.scene = 1
        eventually_taken(source, 2)
        stream.cut.set()
        stream.scene = 2
        eventually_taken(source, 3)
    finally:
        assert source.stop(60)
    assert source.failure is None
    assert stream.connections >= 2
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    brightness = [float(cv2.imread(str(file), cv2.IMREAD_GRAYSCALE).mean()) for file in files]
    assert brightness == sorted(brightness)
    assert "camera_lost" in caplog.text
    assert "secret" not in caplog.text
