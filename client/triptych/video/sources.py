"""Where frames come from: a video file, a directory of pictures, a camera or a stream.

A file is read as fast as it is worked off, and no frame of it is left out. A camera does not wait: only its newest
frame is kept, and those that nobody came for in time are counted.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from triptych.errors import ImageError
from triptych.vision.decode import SUFFIXES, image_files, read_header
from triptych.vision.inputs import encode_image

DEFAULT_FRAMES_PER_S = 30.0
"""Taken for the rate of a source that does not tell its own."""

_STREAM = re.compile(r"(rtsps?|rtmps?|https?|udp|tcp|srt)://", re.IGNORECASE)
_FIRST_SIDEWAYS = 5
"""From this EXIF orientation on, a picture lies on its side."""


@dataclass(frozen=True)
class Frame:
    """One frame as it was read.

    Attributes:
        number: from 0, in the order of the source.
        began_s: when its reading began, by `time.perf_counter`.
        read_s: how long it took to read.
        time_s: its place in the video in seconds; of a live source, seconds since 1970 (UTC); else None.
        width: in pixels; None where it could not be read.
        height: likewise.
        picture: uint8 [height, width, 3] in BGR, or the bytes of a picture's file.
        error: why it could not be read, else empty; then `picture` is empty bytes.
    """

    number: int
    began_s: float
    read_s: float
    time_s: float | None
    width: int | None
    height: int | None
    picture: NDArray[np.uint8] | bytes
    error: str = ""


class Source(Protocol):
    """Frames, one after the other.

    Attributes:
        name: what it is called in messages.
        frames: how many there are; None if that is not known before the end.
        frames_per_s: its rate.
        live: whether it goes on while nobody looks; `dropped` counts what was missed.
        dropped: frames that nobody came for.
    """

    name: str
    frames: int | None
    frames_per_s: float
    live: bool
    dropped: int

    def read(self, first: int) -> Iterator[Frame]:
        """Its frames from number `first` on; those of a live source are only counted from there."""

    def close(self) -> None:
        """Let go of the file or the camera."""


def open_source(name: str) -> Source:
    """The source that a name means: a directory, a camera's index, the address of a stream, else a video file.

    Raises:
        ImageError: there is no such thing, or it cannot be read.
    """
    if _STREAM.match(name):
        return Live(name, lambda: cv2.VideoCapture(name))
    if name.isdecimal() and not Path(name).exists():
        return Live(f"camera {name}", lambda: cv2.VideoCapture(int(name)))
    path = Path(name)
    if path.is_dir():
        return Pictures(path)
    return Video(path)


class Pictures:
    """The pictures of a directory in the order of their names; they travel as they are, without being encoded anew."""

    live = False
    dropped = 0
    frames_per_s = DEFAULT_FRAMES_PER_S

    def __init__(self, directory: Path) -> None:
        """List them.

        Raises:
            ImageError: there are none.
        """
        self.name = str(directory)
        self._paths = image_files(directory)
        if not self._paths:
            raise ImageError(f"there are no pictures in {directory}; give a directory with JPEG or PNG files")
        self.frames: int | None = len(self._paths)

    def read(self, first: int) -> Iterator[Frame]:
        """Its pictures; one that cannot be read is a frame with an error."""
        for number in range(first, len(self._paths)):
            yield _picture(number, self._paths[number])

    def close(self) -> None:
        """There is nothing to let go of."""


def _picture(number: int, path: Path) -> Frame:
    began_s = time.perf_counter()
    try:
        encoded = encode_image(path).data
        header = read_header(encoded)
    except ImageError as error:
        message = str(error) if str(path) in str(error) else f"{path}: {error}"
        return Frame(number, began_s, time.perf_counter() - began_s, None, None, None, b"", message)
    size = (header.width, header.height)
    width, height = size[::-1] if header.orientation >= _FIRST_SIDEWAYS else size
    return Frame(number, began_s, time.perf_counter() - began_s, None, width, height, encoded)


class Video:
    """A video file; its frames are read in order and none is left out."""

    live = False
    dropped = 0

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            ImageError: it is not there, or is no video that can be read.
        """
        self.name = str(path)
        if not path.exists():
            raise ImageError(f"there is no {path}; give a video, a directory of pictures, a camera's number or a URL")
        if path.suffix.lower() in SUFFIXES - {".gif"}:
            raise ImageError(f"{path} is one picture; give the directory it is in, or a video")
        self._capture = _opened(self.name, lambda: cv2.VideoCapture(self.name))
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.frames: int | None = round(count) if count > 0 else None
        self.frames_per_s = _rate(self._capture)

    def read(self, first: int) -> Iterator[Frame]:
        """Its frames; what comes before `first` is decoded as well, since seeking is not exact in every format."""
        for _ in range(first):
            if not self._capture.grab():
                return
        number = first
        while True:
            began_s = time.perf_counter()
            if not self._capture.grab():
                return
            time_s = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000, 6)
            yield _retrieved(self._capture, number, began_s, time_s)
            number += 1

    def close(self) -> None:
        """Close the file."""
        self._capture.release()


def _retrieved(capture: Any, number: int, began_s: float, time_s: float) -> Frame:
    """The frame that was grabbed."""
    decoded, picture = capture.retrieve()
    read_s = time.perf_counter() - began_s
    if not decoded:
        return Frame(number, began_s, read_s, time_s, None, None, b"", f"frame {number} cannot be decoded")
    height, width = picture.shape[:2]
    return Frame(number, began_s, read_s, time_s, width, height, picture)


class Live:
    """A camera or a stream: a thread keeps its newest frame, whatever becomes of those before."""

    live = True
    frames: int | None = None

    def __init__(self, name: str, connect: Callable[[], Any]) -> None:
        """Connect.

        Args:
            name: what it is called in messages.
            connect: opens it as a `cv2.VideoCapture` or what looks like one.

        Raises:
            ImageError: it cannot be reached.
        """
        self.name = name
        self.dropped = 0
        self._capture = _opened(name, connect)
        self.frames_per_s = _rate(self._capture)
        self._fresh = threading.Condition()
        self._newest: Frame | None = None
        self._ended = False
        self._thread: threading.Thread | None = None

    def read(self, first: int) -> Iterator[Frame]:
        """The newest frame each time; its number counts those that were dropped as well."""
        self._thread = threading.Thread(target=self._watch, args=(first,), daemon=True)
        self._thread.start()
        while True:
            with self._fresh:
                self._fresh.wait_for(lambda: self._newest or self._ended)
                frame, self._newest = self._newest, None
            if frame is None:
                return
            yield frame

    def _watch(self, number: int) -> None:
        while not self._ended and self._capture.grab():
            began_s, time_s = time.perf_counter(), time.time()
            frame = _retrieved(self._capture, number, began_s, time_s)
            with self._fresh:
                self.dropped += self._newest is not None
                self._newest = frame
                self._fresh.notify()
            number += 1
        with self._fresh:
            self._ended = True
            self._fresh.notify()

    def close(self) -> None:
        """Disconnect."""
        with self._fresh:
            self._ended = True
            self._fresh.notify()
        if self._thread is not None:
            self._thread.join()
        self._capture.release()


def _opened(name: str, connect: Callable[[], Any]) -> Any:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # what cannot be read is reported once, by us
    capture = connect()
    if not capture.isOpened():
        capture.release()
        raise ImageError(f"{name} cannot be opened as a video: it is damaged, not there, or of a format OpenCV lacks")
    return capture


def _rate(capture: Any) -> float:
    """Frames a second as the source tells them, if it tells something sensible."""
    rate = float(capture.get(cv2.CAP_PROP_FPS))
    return rate if 0 < rate <= 1000 else DEFAULT_FRAMES_PER_S
