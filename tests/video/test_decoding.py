"""Videos as FFmpeg decodes them: every frame, upright, when it is shown, and what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from support import ROOT
from support.videos import make_video
from triptych.errors import ImageError
from triptych.video.decoding import Header, Progress, Video
from triptych.video.frames import Frame

CASES = ROOT.parent / "shared" / "cases" / "video"

needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"needs the videos in {CASES}, which are not here")


def read(path: Path, first: int = 0) -> list[Frame]:
    video = Video(path)
    try:
        return list(video.read(first))
    finally:
        video.close()


def pixels(frame: Frame) -> NDArray[np.uint8]:
    assert isinstance(frame.picture, np.ndarray)
    return frame.picture


@pytest.mark.parametrize(
    ("name", "codec", "frames"), [("a.avi", "mjpeg", 20), ("a.mp4", "mpeg4", 20), ("a.mkv", "libx264", None)]
)
def test_a_video_is_read_to_its_end_and_from_any_frame_on(
    tmp_path: Path, name: str, codec: str, frames: int | None
) -> None:
    path = make_video(tmp_path / name, 20, codec)
    video = Video(path)
    assert (video.frames, video.frames_per_s, video.live) == (frames, 25, False)
    whole = list(video.read(0))
    video.close()
    assert [frame.number for frame in whole] == list(range(20))
    assert [frame.time_s for frame in whole] == pytest.approx([number / 25 for number in range(20)])
    assert [pixels(frame)[47, 63, 0] for frame in whole] == pytest.approx([4 * n for n in range(20)], abs=9)
    assert not any(frame.error for frame in whole)
    rest = read(path, 15)
    assert [frame.number for frame in rest] == list(range(15, 20))
    assert all(np.array_equal(pixels(one), pixels(other)) for one, other in zip(rest, whole[15:], strict=True))
    assert read(path, 25) == []


def test_a_cover_is_not_the_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        cover, video = container.add_stream("mjpeg", rate=1), container.add_stream("mpeg4", rate=25)
        for stream, side, pixel_format in ((cover, 32, "yuvj420p"), (video, 64, "yuv420p")):
            stream.width, stream.height, stream.pix_fmt = side, side, pixel_format
        for stream, count in ((cover, 1), (video, 10)):
            for number in range(count):
                picture = np.zeros((stream.height, stream.width, 3), np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, "bgr24").reformat(format=stream.pix_fmt)
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    assert [(frame.width, frame.error) for frame in read(path)] == [(64, "")] * 10


def test_a_colon_in_a_name_is_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "a.avi", 2).rename(tmp_path / "tcp:a.avi")
    monkeypatch.chdir(tmp_path)
    assert len(read(Path("tcp:a.avi"))) == 2


def test_times_are_the_video_s_own(tmp_path: Path) -> None:
    times = [0, 1, 2, 10, 50, 51]
    path = make_video(tmp_path / "a.mkv", 6, "libx264", times)
    assert [frame.time_s for frame in read(path)] == pytest.approx([time / 25 for time in times])


def test_times_count_from_the_beginning_of_the_video(tmp_path: Path) -> None:
    """A broadcast's clock runs on from something else than 0."""
    path = make_video(tmp_path / "a.ts", 60, "mpeg2video")
    with av.open(str(path)) as container:
        assert container.start_time > 0
    assert [frame.time_s for frame in read(path)] == pytest.approx([number / 25 for number in range(60)], abs=1e-4)


def test_a_video_without_timestamps_has_no_times(tmp_path: Path) -> None:
    frames = read(make_video(tmp_path / "a.h264", 5, "libx264"))
    assert [frame.time_s for frame in frames] == [None] * 5


def test_a_video_that_only_knows_when_to_decode_has_no_times(tmp_path: Path) -> None:
    """AVI has no presentation times, and H.264 decodes in another order than it shows."""
    frames = read(make_video(tmp_path / "a.avi", 30, "libx264"))
    assert [frame.time_s for frame in frames] == [None] * 30
    assert not any(frame.error for frame in frames)


def turned(path: Path, out: Path, degrees: int) -> Path:
    """Copy a video, with a rotation (clockwise, as a player shows it) in its metadata."""
    data = bytearray(path.read_bytes())
    # The matrix of the track's header: a, b, u, c, d, v, x, y, w of 16.16 and 2.30 bits; the identity in a new file.
    identity = b"".join(int(v).to_bytes(4, "big", signed=True) for v in (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30))
    cos, sin = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    values = (65536 * cos, 65536 * sin, 0, -65536 * sin, 65536 * cos, 0, 0, 0, 1 << 30)
    at = data.index(identity, data.index(b"tkhd"))
    data[at : at + len(identity)] = b"".join(v.to_bytes(4, "big", signed=True) for v in values)
    out.write_bytes(data)
    return out


@pytest.mark.parametrize(
    ("degrees", "size", "bright"),
    [(0, (64, 48), (0, 0)), (90, (48, 64), (0, -1)), (180, (64, 48), (-1, -1)), (270, (48, 64), (-1, 0))],
)
def test_a_rotation_in_the_metadata_is_applied(
    tmp_path: Path, degrees: int, size: tuple[int, int], bright: tuple[int, int]
) -> None:
    path = turned(make_video(tmp_path / "a.mp4", 3, "mpeg4"), tmp_path / "b.mp4", degrees)
    frame = read(path)[0]
    assert (frame.width, frame.height) == size
    corners = {(y, x): int(pixels(frame)[y, x, 0]) for y in (0, -1) for x in (0, -1)}
    assert max(corners, key=lambda corner: corners[corner]) == bright


def halve(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


@pytest.mark.parametrize(
    ("name", "codec", "words"),
    [
        ("a.avi", "mjpeg", r"it ends after \d+ of 60 frames"),
        ("a.mkv", "mjpeg", r"it ends at 1\.\d of 2\.4 s"),
    ],
)
def test_a_video_that_was_cut_off_ends_with_an_error(tmp_path: Path, name: str, codec: str, words: str) -> None:
    path = make_video(tmp_path / name, 60, codec)
    halve(path)
    frames = read(path)
    assert 20 < len(frames) < 40
    assert [frame.number for frame in frames] == list(range(len(frames)))
    assert frames[0].error == ""
    assert path.name in frames[-1].error
    with pytest.raises(ImageError, match=words):
        raise ImageError(frames[-1].error)
    assert read(path, len(frames)) == []


def test_a_damaged_packet_is_a_frame_that_failed_and_the_others_are_read(tmp_path: Path) -> None:
    path = make_video(tmp_path / "a.avi", 10)
    data = bytearray(path.read_bytes())
    start = data.index(b"\xff\xd8\xff", len(data) // 2)  # of a picture
    table = data.index(b"\xff\xc4", start)
    data[table + 5 : table + 21] = bytes([255] * 16)  # more codes of each length than there can be
    path.write_bytes(data)
    frames = read(path)
    assert len(frames) == 10
    bad = [frame for frame in frames if frame.error]
    assert len(bad) == 1
    assert bad[0].error.startswith("the frame cannot be decoded: ")
    assert (bad[0].width, bad[0].picture) == (None, b"")
    assert bad[0].time_s == pytest.approx(bad[0].number / 25)


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(ImageError, match="there are no pictures in it"):
        Video(path)


@pytest.mark.parametrize(
    ("progress", "header", "missing"),
    [
        (Progress(), Header(None, None, False), "no frame of it can be decoded"),
        (Progress(60, 60, 2.4), Header(60, 2.4, False), ""),
        (Progress(60, 60, 1.5), Header(None, 2.4, False), ""),
        (Progress(60, 60, 1.3), Header(None, 2.4, False), "it ends at 1.3 of 2.4 s"),
        (Progress(30, 30, 2.4), Header(60, 2.4, False), "it ends after 30 of 60 frames"),
        (Progress(30, 30, 2.4), Header(60, 2.4, True), ""),
        (Progress(30, 30, 2.4, True), Header(None, 2.4, False), "its last frame lacks a part"),
        (Progress(30, 30, None), Header(None, 2.4, False), ""),
        (Progress(30, 30, None), Header(None, None, False), ""),
    ],
)
def test_what_is_missing_at_the_end(progress: Progress, header: Header, missing: str) -> None:
    assert progress.missing(header) == missing


@needs_cases
@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("rot90.mp4", lambda frames: {(frame.width, frame.height) for frame in frames} == {(320, 480)}),
        ("vfr.mkv", lambda frames: (len(frames), frames[-1].time_s) == (40, 5.76)),
        ("raw.h264", lambda frames: (len(frames), {frame.time_s for frame in frames}) == (40, {None})),
        ("cut.mkv", lambda frames: "no frame of it can be decoded" in frames[-1].error),
    ],
)
def test_cases_from_the_field(name: str, check: Callable[[list[Frame]], bool]) -> None:
    frames = read(CASES / name)
    assert check(frames)
    assert not any(frame.error for frame in frames[:-1])
