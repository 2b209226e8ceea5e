"""What a source's name means, and the pictures of a directory."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from support.videos import make_pictures, make_video
from triptych.errors import ImageError
from triptych.video.decoding import Video
from triptych.video.sources import Pictures, file_stem, open_source, shown_name
from triptych.vision.decode import decode


def test_a_name_means_a_directory_or_a_video(tmp_path: Path) -> None:
    assert isinstance(open_source(str(make_pictures(tmp_path / "pictures", 1))), Pictures)
    assert isinstance(open_source(str(make_video(tmp_path / "a.avi", 1))), Video)


def test_pictures_travel_as_they_are(tmp_path: Path) -> None:
    directory = make_pictures(tmp_path, 2)
    (directory / "001.png").write_bytes(b"nonsense")
    good, bad = Pictures(directory).read(0)
    assert good.picture == (directory / "000.png").read_bytes()
    assert (good.width, good.height, good.time_s) == (60, 40, None)
    assert "001.png" in bad.error
    assert bad.width is None


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_of_a_picture_is_that_of_the_upright_one(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (60, 40)).save(tmp_path / f"a.{suffix}", exif=exif)
    [frame] = Pictures(tmp_path).read(0)
    assert isinstance(frame.picture, bytes)
    assert (frame.height, frame.width) == decode(frame.picture).shape[:2]


def test_what_is_no_source_is_refused_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    picture = make_pictures(tmp_path / "one", 1) / "000.png"
    for name, words in (
        (tmp_path / "none.mp4", "there is no "),
        (tmp_path / "empty", "there are no pictures in "),
        (tmp_path / "broken.mp4", "cannot be opened as a video"),
        (picture, "is one picture"),
        ("rtsp://127.0.0.1:9/none", "cannot be opened as a video"),
        ("987654", "camera 987654 cannot be opened"),
    ):
        with pytest.raises(ImageError, match=words):
            open_source(str(name))


def test_no_message_shows_a_streams_password() -> None:
    with pytest.raises(ImageError) as caught:
        open_source("rtsp://user:secret@127.0.0.1:9/none?token=secret")
    assert "rtsp://127.0.0.1:9/none cannot be opened" in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "shown", "stem"),
    [
        ("a/street.avi", "a/street.avi", "street"),
        ("0", "camera 0", "camera-0"),
        ("rtsp://user:secret@host:554/live/1.sdp?token=secret", "rtsp://host:554/live/1.sdp", "host-554-live-1-sdp"),
        ("http://host/", "http://host/", "host"),
    ],
)
def test_a_source_has_a_name_for_messages_and_one_for_files(name: str, shown: str, stem: str) -> None:
    assert (shown_name(name), file_stem(name)) == (shown, stem)


def test_a_directory_is_called_by_its_whole_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_pictures(tmp_path / "2026.11", 1)
    monkeypatch.chdir(directory)
    assert file_stem(".") == "2026.11"
