"""Small videos and pictures, made on the spot."""

from __future__ import annotations

import json
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
