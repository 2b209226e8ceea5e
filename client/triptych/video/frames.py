"""A frame of a video, and what every source of frames has in common."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triptych.errors import ImageError

DEFAULT_FRAMES_PER_S = 30.0
"""Taken for a source that does not say its own rate."""

_END_BYTES = 1_000_000
"""So much of the beginning and of the end of a file says which file it is."""


@dataclass(frozen=True)
class Frame:
    """One frame as it was read.

    Attributes:
        number: from 0, in the order of the source.
        began_s: when its reading began, by `time.perf_counter`.
        read_s: how long it took to read.
        time_s: its place in the video in seconds; of a live source, seconds since 1970 (UTC); None where unknown.
        width: in pixels; None where it could not be read.
        height: in pixels; None where it could not be read.
        picture: uint8 [height, width, 3] in BGR, or the bytes of an image file.
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


@dataclass(frozen=True)
class Shot:
    """One frame as a decoder or a camera hands it over.

    Attributes:
        time_s: its place in the video in seconds; None where the video does not say.
        pixels: gives uint8 [height, width, 3] in BGR, or raises an `ImageError` that says why there are none.
    """

    time_s: float | None
    pixels: Callable[[], NDArray[np.uint8]]

    @classmethod
    def failed(cls, message: str, time_s: float | None = None) -> Shot:
        """Return a frame that cannot be read."""

        def pixels() -> NDArray[np.uint8]:
            raise ImageError(message)

        return cls(time_s, pixels)

    def frame(self, number: int, began_s: float, time_s: float | None) -> Frame:
        """Fetch the pixels; return the frame, with an error where there are none."""
        try:
            picture = self.pixels()
        except ImageError as error:
            return Frame(number, began_s, time.perf_counter() - began_s, time_s, None, None, b"", str(error))
        height, width = picture.shape[:2]
        return Frame(number, began_s, time.perf_counter() - began_s, time_s, width, height, picture)


class Source(Protocol):
    """Frames, one after the other.

    Attributes:
        name: what it is called in messages.
        identity: the same for the same video, wherever its file lies, and hardly ever for another.
        frames: how many there are; None where that is not known before the end.
        frames_per_s: its rate.
        live: whether it goes on while nobody looks; the numbers of its frames count what was missed.
    """

    name: str
    identity: str
    frames: int | None
    frames_per_s: float
    live: bool

    def read(self, first: int) -> Iterator[Frame]:
        """Read its frames from number `first` on; those of a live source are only counted from there."""

    def close(self) -> None:
        """Let go of the file or the camera."""


def sensible_rate(frames_per_s: float | None) -> float:
    """Return a rate as a source says it, or the default where that makes no sense."""
    return frames_per_s if frames_per_s and 0 < frames_per_s <= 1000 else DEFAULT_FRAMES_PER_S


def file_identity(path: Path) -> str:
    """Return a hash of a file's size, its first and its last megabyte; the path of what is not a file.

    Raises:
        ImageError: it cannot be read.
    """
    if not path.is_file():
        return str(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            digest = hashlib.sha256(f"{size} ".encode() + file.read(_END_BYTES))
            file.seek(max(0, size - _END_BYTES))
            digest.update(file.read(_END_BYTES))
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}") from error
    return f"sha256:{digest.hexdigest()}"
