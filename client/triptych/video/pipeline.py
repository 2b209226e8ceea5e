"""The pipeline: one thread reads and encodes, some wait for detections, and the caller's tracks and writes, in order.

    read, encode ──> predict (some in flight) ──> track, write

While one frame is tracked the next ones are with the server, and those after them are being read.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

from triptych.opencv import cv2
from triptych.video.detecting import Answer
from triptych.video.frames import Frame, Source
from triptych.video.journal import Line
from triptych.video.stages import STAGES, Times
from triptych.video.tracker import Tracker

READ_AHEAD = 1
"""Frames that are read and encoded before a thread is free to send them."""

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Tracked:
    """A frame that is done.

    Attributes:
        line: as it was written.
        request_id: the name of its request.
        encoded: what was sent; empty if the frame could not be read.
        times: where its latency went.
        truncated: whether its answer was cut off, so that objects may be missing.
    """

    line: Line
    request_id: str
    encoded: bytes
    times: Times
    truncated: bool = False


@dataclass(frozen=True)
class _Encoded:
    frame: Frame
    data: bytes
    ready_s: float
    encode_s: float


def run(
    source: Source,
    first: int,
    detect: Callable[[bytes, str], Answer],
    tracker: Tracker,
    write: Callable[[Line], None],
    *,
    score_threshold: float,
    in_flight: int,
    quality: int,
    prefix: str,
) -> Generator[Tracked, None, None]:
    """Track the frames of a source; yield each when its line is written.

    Args:
        source: where the frames come from.
        first: the number of the first one.
        detect: sends an encoded image, under the name of a request; called by several threads at once.
        tracker: gives the objects their tracks.
        write: takes the line of each frame, in order.
        score_threshold: what scores below is written only where it continues a track.
        in_flight: requests at a time.
        quality: of the JPEGs that are sent, 1..100; what is encoded already is sent as it is.
        prefix: of the requests' names; a frame's number follows.

    Raises:
        RequestError: the server refuses, or is gone; all frames before that are written.
    """

    def ask(encoded: _Encoded) -> Answer:
        if encoded.frame.error:
            now = time.perf_counter()
            return Answer(None, encoded.frame.error, now, now)
        return detect(encoded.data, f"{prefix}{encoded.frame.number}")

    with (
        closing(_encode(frame, quality) for frame in source.read(first)) as frames,
        # A camera's next frame is not taken before there is a place for it, or it would be stale when its turn comes.
        closing(in_order(ask, frames, in_flight, 0 if source.live else READ_AHEAD)) as answers,
    ):
        for encoded, answer in answers:
            track_s = time.perf_counter()
            line = _line(encoded.frame, answer, tracker, score_threshold)
            write_s = time.perf_counter()
            write(line)
            times = _times(encoded, answer, track_s, write_s, time.perf_counter())
            truncated = answer.detections is not None and bool(answer.detections.truncated)
            yield Tracked(line, f"{prefix}{encoded.frame.number}", encoded.data, times, truncated)


def in_order(
    function: Callable[[T], U], items: Iterator[T], workers: int, ahead: int
) -> Generator[tuple[T, U], None, None]:
    """Yield each item with what the function makes of it, in the order of the items.

    One thread makes the items, and `workers` threads call the function. As soon as one result is out, the next item
    goes in, so that no thread is idle while the caller is at work.

    Args:
        function: called by several threads at once.
        items: made `ahead` of the function; with 0 an item is not asked for before there is a thread for it.
        workers: calls of the function at a time.
        ahead: items that are made before a thread can take them.
    """
    end = object()

    def work(made: Future[T | object]) -> tuple[T, U] | None:
        item = made.result()
        return None if item is end else (item, function(item))  # type: ignore[return-value, arg-type]

    maker, pool = ThreadPoolExecutor(1), ThreadPoolExecutor(workers)
    try:
        making = deque(maker.submit(next, items, end) for _ in range(workers + ahead))
        working = deque(pool.submit(work, making.popleft()) for _ in range(workers))
        while (done := working.popleft().result()) is not None:
            making.append(maker.submit(next, items, end))
            working.append(pool.submit(work, making.popleft()))
            yield done
    finally:
        maker.shutdown(wait=False, cancel_futures=True)
        pool.shutdown(cancel_futures=True)
        maker.shutdown()


def _encode(frame: Frame, quality: int) -> _Encoded:
    if isinstance(frame.picture, bytes):
        return _Encoded(frame, frame.picture, time.perf_counter(), 0.0)
    began_s = time.perf_counter()
    data = cv2.imencode(".jpg", frame.picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    ready_s = time.perf_counter()
    return _Encoded(frame, data, ready_s, ready_s - began_s)


def _line(frame: Frame, answer: Answer, tracker: Tracker, score_threshold: float) -> Line:
    """Return the frame's line; the tracker sees every frame, also one that could not be read."""
    objects = tuple(answer.detections or ())
    kept = [
        (detection, track_id)
        for detection, track_id in zip(objects, tracker.update(objects), strict=True)
        if track_id is not None or detection.score >= score_threshold
    ]
    return Line(
        frame.number,
        frame.time_s,
        frame.width,
        frame.height,
        tuple(detection for detection, _ in kept),
        tuple(track_id for _, track_id in kept),
        answer.error or None,
    )


def _times(encoded: _Encoded, answer: Answer, track_s: float, write_s: float, done_s: float) -> Times:
    seconds = {
        "read": encoded.frame.read_s,
        "encode": encoded.encode_s,
        "predict": answer.answered_s - answer.sent_s,
        "track": write_s - track_s,
        "write": done_s - write_s,
    }
    seconds["wait"] = done_s - encoded.frame.began_s - sum(seconds.values())
    return Times(encoded.frame.began_s, {name: seconds[name] * 1000 for name in STAGES})
