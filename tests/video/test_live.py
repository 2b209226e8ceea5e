"""Cameras and streams: only the newest frame counts."""

from __future__ import annotations

import http.server
import threading
import time

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from triptych.errors import ImageError
from triptych.video.live import Camera, Live
from triptych.video.sources import open_source


class FakeCamera:
    """Looks like a `cv2.VideoCapture` of so many frames; each is grabbed when the test says so."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self.at = -1
        self.grabs = threading.Semaphore(0)
        self.seen = threading.Semaphore(0)

    def isOpened(self) -> bool:  # noqa: N802
        return self.frames > 0

    def get(self, _property: int) -> float:
        return 0.0

    def grab(self) -> bool:
        self.seen.release()
        self.grabs.acquire()
        self.at += 1
        return self.at < self.frames

    def retrieve(self) -> tuple[bool, NDArray[np.uint8] | None]:
        return (False, None) if self.at == 2 else (True, np.full((4, 6, 3), self.at, np.uint8))

    def release(self) -> None:
        pass

    def advance(self, frames: int) -> None:
        """Let it grab so many frames, and wait until the last of them is kept: it asks for another then."""
        for _ in range(frames):
            self.seen.acquire()
            self.grabs.release()


def test_of_a_camera_only_the_newest_frame_is_taken() -> None:
    camera = FakeCamera(9)
    source = Live("camera", Camera("camera", camera))
    frames = source.read(100)
    threading.Timer(0.05, camera.advance, (1,)).start()
    assert next(frames).number == 100
    camera.advance(5)
    camera.seen.acquire()  # the fifth is kept by now
    newest = next(frames)
    assert newest.number == 105
    assert isinstance(newest.picture, np.ndarray)
    assert newest.picture[0, 0, 0] == 5
    assert source.dropped == 4
    assert newest.time_s is not None
    assert abs(newest.time_s - time.time()) < 60
    camera.seen.release()
    camera.advance(3)
    camera.advance(1)  # there is no tenth
    assert [frame.number for frame in frames] == [108]
    source.close()


def test_a_picture_that_a_camera_cannot_decode_is_a_frame_with_an_error() -> None:
    camera = FakeCamera(3)
    for _ in range(4):
        camera.grabs.release()
    shots = [shot.frame(number, 0.0, None) for number, shot in enumerate(Camera("camera", camera).shots())]
    assert [bool(frame.error) for frame in shots] == [False, False, True]


def test_a_camera_that_is_not_there_is_refused() -> None:
    with pytest.raises(ImageError, match="camera 3 cannot be opened"):
        Camera("camera 3", FakeCamera(0))


def test_a_stream_over_http_is_live() -> None:
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()

    class Stream(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for _ in range(30):
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                self.wfile.write(head.encode() + jpeg + b"\r\n")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stream) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            source = open_source(f"http://127.0.0.1:{web.server_port}/camera.mjpg")
            frames = list(source.read(0))
            source.close()
        finally:
            web.shutdown()
            thread.join()
    assert source.live
    assert frames[0].width == 64
    assert not frames[-1].error
    assert frames[-1].number + 1 == len(frames) + source.dropped
