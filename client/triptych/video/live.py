"""Cameras and streams: they do not wait, so only their newest frame is kept, and those that nobody took are counted."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from triptych.errors import ImageError
from triptych.opencv import cv2
from triptych.video.frames import Frame, Shot, sensible_rate

PAUSE_S = 0.5
"""The pause between two tries to reach a camera or a stream that is lost."""

STUCK_S = 40.0
"""After so long without a sign of life a source counts as stuck. FFmpeg ends a silence by itself, after 30 s."""

CLOSE_S = 2.0
"""How long `close` waits for the thread that reads; one that is stuck in a driver is left behind."""


class Capture(Protocol):
    """What gives frames as they come: a `Camera`, or a `Decoder` of a stream.

    Attributes:
        frames_per_s: its rate.
    """

    frames_per_s: float

    def shots(self) -> Iterator[Shot]:
        """Give each frame when it is there, until the end of a stream that has one.

        Raises:
            ImageError: the camera or the stream is lost.
        """

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
        self._name, self._capture = name, capture
        if not capture.isOpened():
            capture.release()
            raise ImageError(f"{name} cannot be opened: it is not there, or another program has it")
        self.frames_per_s = sensible_rate(float(capture.get(cv2.CAP_PROP_FPS)))

    def shots(self) -> Iterator[Shot]:
        """Give each frame when it is there; until the next one is asked for, its pixels can be fetched.

        Raises:
            ImageError: there are no more.
        """
        while self._capture.grab():
            yield Shot(None, self._pixels)
        raise ImageError(f"{self._name} gives no more pictures")

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

    def __init__(
        self,
        name: str,
        connect: Callable[[], Capture],
        identity: str = "",
        *,
        retry_s: float = 0.0,
        stop: threading.Event | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Connect to it.

        Args:
            name: what it is called in messages.
            connect: opens the camera or the stream, for the first time or again.
            identity: the same for the same camera or stream; the name if empty.
            retry_s: how long to try again when it is lost.
            stop: once it is set, nothing is tried again.
            say: hears once that it is lost, and once that it is back.

        Raises:
            ImageError: it cannot be opened.
        """
        self.name = name
        self.identity = identity or name
        self._connect = connect
        self._capture: Capture | None = connect()
        self.frames_per_s = self._capture.frames_per_s
        self._retry_s, self._say = retry_s, say
        self._stop = stop or threading.Event()
        self._fresh = threading.Condition()
        self._newest: Frame | None = None
        self._ended = False
        self._lost_s: float | None = None
        self._alive_s = 0.0
        self._failure: ImageError | None = None
        self._thread: threading.Thread | None = None

    def read(self, first: int) -> Iterator[Frame]:
        """Give the newest frame each time; its number counts those that were dropped as well.

        Raises:
            ImageError: it is lost and did not come back in time, or it is stuck.
        """
        self._alive_s = time.perf_counter()
        self._thread = threading.Thread(target=self._watch, args=(first,), daemon=True)
        self._thread.start()
        while True:
            with self._fresh:
                self._wait()
                frame, self._newest = self._newest, None
            if frame is not None:
                yield frame
            elif self._failure and not self._stop.is_set():
                raise self._failure
            else:
                return

    def _wait(self) -> None:
        """Wait for a frame, the end, or a stop; end what is stuck."""
        while not (self._newest or self._ended or self._stop.is_set()):
            self._fresh.wait(PAUSE_S)
            if time.perf_counter() - self._alive_s > STUCK_S:
                self._failure = ImageError(
                    f"{self.name} is stuck: for {STUCK_S:g} s it gave neither a frame nor an error"
                )
                self._ended = True

    def _watch(self, first: int) -> None:
        """Take frames until the stream's end, a loss that lasts, or `close`; then disconnect."""
        try:
            for number, shot in enumerate(self._shots(), first):
                self._alive_s = time.perf_counter()
                frame = shot.frame(number, time.perf_counter(), time.time())  # noqa: TID251  # a date
                with self._fresh:
                    if self._ended:
                        return
                    self._newest = frame
                    self._fresh.notify()
        except ImageError as error:
            self._failure = self._failure or error
        finally:
            if self._capture is not None:
                self._capture.close()
            with self._fresh:
                self._ended = True
                self._fresh.notify()

    def _shots(self) -> Iterator[Shot]:
        """Give the frames of all connections, one after the other.

        Raises:
            ImageError: there is none any more.
        """
        while self._capture is not None:
            try:
                for shot in self._capture.shots():
                    if self._lost_s is not None:
                        self._say(f"{self.name} is back, after {time.perf_counter() - self._lost_s:.1f} s")
                        self._lost_s = None
                    yield shot
            except ImageError as error:  # noqa: PERF203  (once a connection)
                self._reconnect(error)
            else:
                return

    def _reconnect(self, reason: ImageError) -> None:
        """Connect again.

        Raises:
            ImageError: it did not come back in time; this says why it was lost.
        """
        if self._capture is not None:
            self._capture.close()
            self._capture = None
        if self._lost_s is None:
            self._lost_s = time.perf_counter()
            if self._retry_s:
                self._say(f"{reason}; trying again for {self._retry_s:g} s")
        while self._capture is None:
            if time.perf_counter() - self._lost_s >= self._retry_s or self._stop.wait(PAUSE_S) or self._ended:
                tried = f", and did not come back within {self._retry_s:g} s" if self._retry_s else ""
                raise ImageError(f"{reason}{tried}")
            self._alive_s = time.perf_counter()
            with contextlib.suppress(ImageError):
                self._capture = self._connect()
            self._alive_s = time.perf_counter()

    def close(self) -> None:
        """Disconnect."""
        with self._fresh:
            self._ended = True
            self._fresh.notify()
        if self._thread is not None:
            self._thread.join(CLOSE_S)
        elif self._capture is not None:
            self._capture.close()
