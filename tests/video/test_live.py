"""Cameras and streams: only the newest frame counts."""

from __future__ import annotations

import itertools
import re
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from support.videos import make_video, serve_camera, serve_stream
from triptych.errors import ImageError
from triptych.video.frames import Frame, Shot
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
    source = Live("camera", lambda: Camera("camera", camera))
    frames = source.read(100)
    threading.Timer(0.05, camera.advance, (1,)).start()
    assert next(frames).number == 100
    camera.advance(5)
    camera.seen.acquire()  # the fifth is kept by now
    newest = next(frames)
    assert newest.number == 105
    assert isinstance(newest.picture, np.ndarray)
    assert newest.picture[0, 0, 0] == 5
    assert newest.time_s is not None
    assert abs(newest.time_s - time.time()) < 60  # noqa: TID251
    camera.seen.release()
    camera.advance(3)
    camera.advance(1)  # there is no tenth
    assert next(frames).number == 108
    with pytest.raises(ImageError, match=r"^camera gives no more pictures$"):
        next(frames)
    source.close()


def test_a_picture_that_a_camera_cannot_decode_is_a_frame_with_an_error() -> None:
    camera = FakeCamera(3)
    for _ in range(4):
        camera.grabs.release()
    shots = [
        shot.frame(number, 0.0, None)
        for number, shot in enumerate(itertools.islice(Camera("camera", camera).shots(), 3))
    ]
    assert [bool(frame.error) for frame in shots] == [False, False, True]


def test_a_camera_that_is_not_there_is_refused() -> None:
    with pytest.raises(ImageError, match="camera 3 cannot be opened"):
        Camera("camera 3", FakeCamera(0))


class Flaky:
    """A camera that gives two frames and is lost, again and again; it can be opened only where `opens` says so."""

    frames_per_s = 25.0

    def __init__(self, opens: list[bool]) -> None:
        self.opens = iter([True, *opens])
        self.closed = 0

    def connect(self) -> Flaky:
        if not next(self.opens):
            raise ImageError("flaky cannot be opened")
        return self

    def shots(self) -> Iterator[Shot]:
        for grey in range(2):
            yield Shot(None, partial(np.full, (4, 6, 3), grey, np.uint8))
        raise ImageError("flaky is gone")

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triptych.video.live.PAUSE_S", 0.0)


@pytest.mark.usefixtures("no_pause")
def test_a_camera_that_comes_back_goes_on() -> None:
    stop, heard = threading.Event(), list[str]()

    def hear(sentence: str) -> None:
        heard.append(sentence)
        if len(heard) == 3:  # the second loss
            stop.set()

    source = Live("flaky", Flaky([False, False, True]).connect, retry_s=60.0, stop=stop, say=hear)
    numbers = [frame.number for frame in source.read(0)]
    source.close()
    assert numbers[-1] == 3
    assert heard[0] == "flaky is gone; trying again for 60 s"
    assert re.fullmatch(r"flaky is back, after \d\.\d s", heard[1])


@pytest.mark.usefixtures("no_pause")
def test_a_camera_that_stays_away_is_an_error() -> None:
    camera = Flaky([False] * 100_000)
    source = Live("flaky", camera.connect, retry_s=0.05)
    with pytest.raises(ImageError, match=r"^flaky is gone, and did not come back within 0\.05 s$"):
        list(source.read(0))
    source.close()
    assert camera.closed == 1


def test_a_stop_ends_the_waiting_for_a_camera_without_an_error() -> None:
    stop = threading.Event()
    source = Live("flaky", Flaky([]).connect, retry_s=60.0, stop=stop, say=lambda _: stop.set())
    assert [frame.number for frame in source.read(0)][-1] == 1
    source.close()


class Silent(Flaky):
    """A camera whose driver never comes back once it has given two frames."""

    def __init__(self) -> None:
        super().__init__([])
        self.end = threading.Event()

    def shots(self) -> Iterator[Shot]:
        yield Shot(None, partial(np.full, (4, 6, 3), 1, np.uint8))
        self.end.wait(60)


@pytest.mark.usefixtures("no_pause")
def test_a_camera_whose_driver_hangs_is_lost_and_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triptych.video.live.STUCK_S", 0.2)
    monkeypatch.setattr("triptych.video.live.CLOSE_S", 0.1)
    camera = Silent()
    source = Live("silent", camera.connect, retry_s=60.0)
    with pytest.raises(ImageError, match=r"^silent is stuck: for 0\.2 s it gave neither a frame nor an error$"):
        list(source.read(0))
    began_s = time.perf_counter()
    source.close()
    assert time.perf_counter() - began_s < 30
    assert camera.closed == 0, "its driver works on it"
    camera.end.set()


@pytest.mark.usefixtures("no_pause")
def test_a_stop_ends_the_waiting_for_a_silent_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triptych.video.live.CLOSE_S", 0.1)
    camera, stop = Silent(), threading.Event()
    source = Live("silent", camera.connect, stop=stop)
    frames = source.read(0)
    assert next(frames).number == 0
    threading.Timer(0.05, stop.set).start()
    assert list(frames) == []
    source.close()
    camera.end.set()


def test_a_stream_over_http_is_live_and_its_end_is_a_loss() -> None:
    jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 90, np.uint8))[1].tobytes()
    frames: list[Frame] = []
    with serve_camera(30 * [jpeg], 1000) as url:
        source = open_source(url)
        with pytest.raises(ImageError, match=r"camera\.mjpg.* cannot be read further: it was closed$"):
            frames.extend(source.read(0))
        source.close()
    assert source.live
    assert frames[0].width == 64
    assert not frames[-1].error
    assert source.identity == url.replace("user:secret@", "").removesuffix("?token=secret")


def test_a_whole_video_over_http_has_an_end(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mkv", 20).read_bytes()
    with serve_stream("video/x-matroska", [video]) as url:
        source = open_source(f"{url}/a.mkv")
        frames = list(source.read(0))
        source.close()
    assert not frames[-1].error
    assert frames[-1].number == 19
