"""Videos decoded by FFmpeg (PyAV): upright, with the timestamps they have, and with what is wrong with them."""

from __future__ import annotations

import errno
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from triptych.errors import ImageError
from triptych.video.frames import Frame, Shot, file_identity, sensible_rate
from triptych.vision.decode import SUFFIXES

TIMEOUT_S = 30.0
"""How long a stream may take to answer, and to send its next packet."""

_ROUNDING_S = 1.0
"""A whole video may end this much before the length in its header: the last frame's own length may be missing."""


@dataclass(frozen=True)
class Header:
    """What a video's header promises.

    Attributes:
        frames: how many frames; None where it does not say.
        seconds: how long its longest stream is; None where it does not say.
        trimmed: whether its format can show fewer frames than it holds, as MP4 can.
    """

    frames: int | None
    seconds: float | None
    trimmed: bool


@dataclass
class Progress:
    """How far a video was read.

    Attributes:
        packets: of its pictures.
        frames: how many were decoded.
        end_s: where the farthest packet of any stream ends, from the beginning; None where no packet has a time.
        damaged: whether the last packet, or the last frame, lacks a part.
    """

    packets: int = 0
    frames: int = 0
    end_s: float | None = None
    damaged: bool = False

    def missing(self, header: Header) -> str:
        """Return what is missing at the end of a video that was read to its end; empty if nothing is."""
        if not self.frames:
            return "no frame of it can be decoded"
        if header.frames and not header.trimmed and self.packets < header.frames:
            return f"it ends after {self.packets} of {header.frames} frames"
        if header.seconds and self.end_s is not None and self.end_s < header.seconds - _ROUNDING_S:
            return f"it ends at {self.end_s:.1f} of {header.seconds:.1f} s"
        return "its last frame lacks a part" if self.damaged else ""


class Decoder:
    """A video file or a stream, opened.

    Attributes:
        header: what it promises.
        frames_per_s: its rate.
    """

    def __init__(self, name: str, *, stream: bool = False, shown: str = "") -> None:
        """Open it.

        Args:
            name: the path or the URL.
            shown: what it is called in messages, where the URL has a password; default the name.
            stream: whether it is a stream: it may go silent, and has no end unless its header says how long it is.

        Raises:
            ImageError: it cannot be opened, or has no pictures.
        """
        self._name, self._is_stream = shown or name, stream
        # Over UDP, packets get lost, and pictures with them.
        options = {"options": {"rtsp_transport": "tcp"}, "timeout": TIMEOUT_S} if stream else {}
        try:
            # Without the scheme, a name with a colon in it would be taken for another scheme.
            self._container = av.open(name if stream else f"file:{name}", **options)
        except av.FFmpegError as error:
            raise ImageError(
                f"{self._name} cannot be opened as a video ({error.strerror}): it is damaged, missing, or of a "
                "format that FFmpeg does not read"
            ) from error
        # The first one may be a cover, as files of phones and shops have it.
        video = self._container.streams.best("video")
        if video is None:
            self._container.close()
            raise ImageError(f"{self._name} cannot be opened as a video: there are no pictures in it")
        self._video: Any = video
        duration = self._container.duration
        self.header = Header(
            frames=self._video.frames or None,
            seconds=duration / av.time_base if duration else None,
            trimmed="mp4" in self._container.format.name,
        )
        self._is_endless = stream and not duration
        self.frames_per_s = sensible_rate(float(self._video.average_rate or self._video.guessed_rate or 0))
        self._start_s: float = (self._container.start_time or 0) / av.time_base
        # AVI knows when a frame is decoded, not when it is shown; some codecs decode in another order.
        self._has_times = not ("avi" in self._container.format.name and self._video.codec_context.has_b_frames)

    def shots(self) -> Iterator[Shot]:
        """Decode its frames in the order in which they are shown.

        A packet that cannot be decoded is a frame that failed. Where a file ends too early, or cannot be read further,
        one more frame fails and says so.

        Raises:
            ImageError: a stream without an end was closed, or cannot be read further.
        """
        progress = Progress()
        try:
            # The packets of all streams: the longest of them is as long as the header says.
            for packet in self._container.demux():
                # Packets that AVI holds out of order have only the time of their decoding.
                shown = packet.dts if packet.pts is None else packet.pts
                if packet.size and shown is not None:
                    end_s = self._place_s(shown + (packet.duration or 0), packet.time_base)
                    progress.end_s = max(progress.end_s or 0.0, end_s)
                if packet.stream is self._video:
                    if packet.size:
                        progress.packets += 1
                        progress.damaged = packet.is_corrupt
                    yield from self._decoded(packet, progress)
        except av.FFmpegError as error:
            # A stream that the other side has closed may end like this.
            if not (self._is_stream and error.errno == errno.EIO):
                message = f"{self._name} cannot be read further: {error.strerror}"
                if self._is_endless:
                    raise ImageError(message) from error
                yield Shot.failed(message)
                return
        if self._is_endless:
            raise ImageError(f"{self._name} cannot be read further: it was closed")
        if missing := progress.missing(self.header):
            yield Shot.failed(f"{self._name} is incomplete: {missing}")

    def close(self) -> None:
        """Close the file or the connection."""
        self._container.close()

    def _decoded(self, packet: Any, progress: Progress) -> Iterator[Shot]:
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            yield Shot.failed(f"the frame cannot be decoded: {error.strerror}", self._time_s(packet))
            return
        for frame in frames:
            progress.frames += 1
            progress.damaged |= frame.is_corrupt
            yield Shot(self._time_s(frame), partial(_upright, frame))

    def _time_s(self, shown: Any) -> float | None:
        """Return when a frame or a packet is shown; None where the video does not say."""
        return self._place_s(shown.pts, shown.time_base) if self._has_times and shown.pts is not None else None

    def _place_s(self, pts: int, time_base: Fraction) -> float:
        """Return the place of a timestamp in seconds from the video's beginning."""
        return round(float(pts * time_base) - self._start_s, 6)


def _upright(frame: Any) -> NDArray[np.uint8]:
    """Return the pixels, uint8 [height, width, 3] in BGR, turned as the video says, as phones need it."""
    try:
        pixels = frame.to_ndarray(format="bgr24")
    except (av.FFmpegError, ValueError) as error:
        raise ImageError(f"its pixels ({frame.format.name}) cannot be converted: {error}") from error
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


class Video:
    """A video file; its frames are read in order and none is left out."""

    live = False

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            ImageError: it is not there, or cannot be opened as a video.
        """
        self.name = str(path)
        if not path.exists():
            raise ImageError(f"there is no {path}; give a video, a directory of pictures, a camera's number or a URL")
        if path.suffix.lower() in SUFFIXES - {".gif"}:
            raise ImageError(f"{path} is one picture; give the directory it is in, or a video")
        self._decoder = Decoder(self.name)
        self.identity = file_identity(path)
        self.frames = self._decoder.header.frames
        self.frames_per_s = self._decoder.frames_per_s

    def read(self, first: int) -> Iterator[Frame]:
        """Read its frames; what comes before `first` is decoded as well, since not every format can seek exactly."""
        shots = self._decoder.shots()
        for _ in itertools.islice(shots, first):
            pass
        for number in itertools.count(first):
            began_s = time.perf_counter()
            shot = next(shots, None)
            if shot is None:
                return
            yield shot.frame(number, began_s, shot.time_s)

    def close(self) -> None:
        """Close the file."""
        self._decoder.close()
