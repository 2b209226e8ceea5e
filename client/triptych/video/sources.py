"""Where frames come from: a video file, a directory of pictures, a camera or a stream.

A file is read as fast as the work goes on, and no frame of it is left out. A camera does not wait: only its newest
frame is kept, and those that nobody took in time are counted.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from triptych.errors import ImageError
from triptych.opencv import cv2
from triptych.video.decoding import Decoder, Video
from triptych.video.frames import DEFAULT_FRAMES_PER_S, Frame, Source, file_identity
from triptych.video.live import Camera, Capture, Live
from triptych.vision.decode import image_files, read_header
from triptych.vision.inputs import encode_image

_STREAM = re.compile(r"(rtsps?|rtmps?|https?|udp|tcp|srt)://", re.IGNORECASE)


def open_source(
    name: str,
    *,
    retry_s: float = 0.0,
    stop: threading.Event | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Source:
    """Open what a name means: a directory, a camera's number, the address of a stream, else a video file.

    Args:
        name: what to open.
        retry_s: how long to try again to reach a camera or a stream that is lost.
        stop: once it is set, nothing is tried again.
        say: hears that a camera or a stream is lost, and that it is back.

    Raises:
        ImageError: it is not there, or cannot be read.
    """
    shown, path = shown_name(name), Path(name)
    if _is_stream(name):
        connect: Callable[[], Capture] = partial(Decoder, name, stream=True, shown=shown)
    elif _is_camera(name):
        connect = partial(_open_camera, shown, int(name))
    else:
        return Pictures(path) if path.is_dir() else Video(path)
    return Live(shown, connect, retry_s=retry_s, stop=stop, say=say)


def shown_name(name: str) -> str:
    """Return what a source is called in messages, which is no secret."""
    return f"camera {name}" if _is_camera(name) else without_secrets(name)


def without_secrets(name: str) -> str:
    """Return the address of a stream without the user, the password and the query; all else as it is."""
    if not _is_stream(name):
        return name
    parts = urlsplit(name)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def file_stem(name: str) -> str:
    """Return what a file about a source is called, without its suffix."""
    if _is_stream(name) or _is_camera(name):
        shown = shown_name(name)
        return re.sub(r"\W+", "-", shown.partition("://")[2] or shown).strip("-")
    path = Path(name).resolve()
    return path.name if path.is_dir() else path.stem


def _is_stream(name: str) -> bool:
    return _STREAM.match(name) is not None


def _is_camera(name: str) -> bool:
    return name.isdecimal() and not Path(name).exists()


def _open_camera(shown: str, number: int) -> Camera:
    return Camera(shown, cv2.VideoCapture(number))


class Pictures:
    """The pictures of a directory in the order of their names; they travel as they are, without a second encoding."""

    live = False
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
        self.identity = file_identity(self._paths[0])
        self.frames: int | None = len(self._paths)

    def read(self, first: int) -> Iterator[Frame]:
        """Read its pictures; one that cannot be read is a frame with an error."""
        for number in range(first, len(self._paths)):
            yield _picture(number, self._paths[number])

    def close(self) -> None:
        """Do nothing: no file stays open."""


def _picture(number: int, path: Path) -> Frame:
    began_s = time.perf_counter()
    try:
        encoded = encode_image(path).data
        header = read_header(encoded)
    except ImageError as error:
        message = str(error) if str(path) in str(error) else f"{path}: {error}"
        return Frame(number, began_s, time.perf_counter() - began_s, None, None, None, b"", message)
    return Frame(number, began_s, time.perf_counter() - began_s, None, *header.upright, encoded)
