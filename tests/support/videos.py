"""Small videos and pictures, made on the spot."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from triptych.detections import Detection


def make_pictures(directory: Path, count: int) -> Path:
    """Write pictures of 60x40 pixels: 000.png, 001.png and so on."""
    directory.mkdir(exist_ok=True)
    for number in range(count):
        picture = np.full((40, 60, 3), number, np.uint8)
        (directory / f"{number:03}.png").write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    return directory


def make_video(path: Path, count: int, codec: str = "mjpeg", times: list[int] | None = None) -> Path:
    """Write a video of 64x48 pixels at 25 frames/s; frame k is a grey of about 4 k.

    Args:
        path: its suffix says the format.
        count: of frames.
        codec: as FFmpeg calls it; every frame of `mjpeg` stands alone.
        times: when each frame is shown, in 1/25 s; one after the other if not given.
    """
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        for number in range(count):
            picture = np.full((48, 64, 3), 4 * number, np.uint8)
            picture[:24, :32] += 40  # the upper left corner is brighter, so that a turn shows
            frame = av.VideoFrame.from_ndarray(picture, "bgr24").reformat(format=pixel_format)
            frame.pts = times[number] if times else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of tracks."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def detection(x: float, score: float = 0.9) -> Detection:
    """Return a person of 40x40 pixels whose left edge is at x."""
    return Detection("person", 0, score, (x, 10.0, x + 40.0, 50.0))


@contextmanager
def serve_stream(content_type: str, parts: list[bytes], pause_s: float = 0.0) -> Iterator[str]:
    """Send every client these parts with a pause after each, and close the connection; yield the URL's beginning."""
    ended = threading.Event()

    class Stream(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            for part in parts:
                if ended.is_set():
                    return
                try:
                    self.wfile.write(part)
                except OSError:
                    return  # the client is gone
                time.sleep(pause_s)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stream) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        try:
            yield f"http://user:secret@127.0.0.1:{web.server_port}"
        finally:
            ended.set()
            web.shutdown()
            thread.join()


@contextmanager
def serve_camera(jpegs: list[bytes], frames_per_s: float) -> Iterator[str]:
    """Serve what a network camera sends (motion JPEG), frame by frame, and hang up; yield its URL."""
    head = "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"
    parts = [head.format(len(jpeg)).encode() + jpeg + b"\r\n" for jpeg in jpegs]
    with serve_stream("multipart/x-mixed-replace; boundary=frame", parts, 1 / frames_per_s) as url:
        yield f"{url}/camera.mjpg?token=secret"
