"""Cameras and streams: they do not wait, so only their newest frame is kept, and those that nobody took are counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from triptych.errors import ImageError
from triptych.video.frames import Frame, Shot, sensible_rate


class Capture(Protocol):
    """What gives frames as they come: a `Camera`, or a `Decoder` of a stream.

    Attributes:
        frames_per_s: its rate.
    """

    frames_per_s: float

    def shots(self) -> Iterator[Shot]:
        """Give each frame when it is there."""

    def close(self) -> None:
        """Disconnect."""


class Camera:
    """A camera of this machine, read by OpenCV."""

    def __init__(self, name: str, capture: Any) -> None:
        """Take over an open capture.

        Args:
            name: what it is called in messages.
            capture: a `cv2.VideoCapture`, or what looks like one.

        Raises:
            ImageError: it is not open.
        """
        self._capture = capture
        if not capture.isOpened():
            capture.release()
            raise ImageError(f"{name} cannot be opened: it is not there, or another program has it")
        self.frames_per_s = sensible_rate(float(capture.get(cv2.CAP_PROP_FPS)))

    def shots(self) -> Iterator[Shot]:
        """Give each frame when it is there; until the next one is asked for, its pixels can be fetched."""
        while self._capture.grab():
            yield Shot(None, self._pixels)

    def _pixels(self) -> NDArray[np.uint8]:
        decoded, picture = self._capture.retrieve()
        if not decoded:
            raise ImageError("the camera's picture cannot be decoded")
        return np.asarray(picture, np.uint8)

    def close(self) -> None:
        """Let go of the camera."""
        self._capture.release()


class Live:
    """A camera or a stream: a thread keeps its newest frame, whatever becomes of those before."""

    live = True
    frames: int | None = None

    def __init__(self, name: str, capture: Capture) -> None:
        """Take frames from a capture.

        Args:
            name: what it is called in messages.
            capture: where they come from.
        """
        self.name = name
        self.dropped = 0
        self.frames_per_s = capture.frames_per_s
        self._capture = capture
        self._fresh = threading.Condition()
        self._newest: Frame | None = None
        self._ended = False
        self._thread: threading.Thread | None = None

    def read(self, first: int) -> Iterator[Frame]:
        """Give the newest frame each time; its number counts those that were dropped as well."""
        self._thread = threading.Thread(target=self._watch, args=(first,), daemon=True)
        self._thread.start()
        while True:
            with self._fresh:
                self._fresh.wait_for(lambda: self._newest or self._ended)
                frame, self._newest = self._newest, None
            if frame is None:
                return
            yield frame

    def _watch(self, first: int) -> None:
        for number, shot in enumerate(self._capture.shots(), first):
            frame = shot.frame(number, time.perf_counter(), time.time())
            with self._fresh:
                if self._ended:
                    break
                self.dropped += self._newest is not None
                self._newest = frame
                self._fresh.notify()
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
        self._capture.close()
