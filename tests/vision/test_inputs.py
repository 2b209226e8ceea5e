"""What may be given as an image, and the errors for what may not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from support.fake_server import FakeServer
from triptych.client import DetectionClient
from triptych.errors import (
    ContractError,
    ImageError,
)
from triptych.vision import inputs
from triptych.vision.inputs import encode_image


def test_bytes_are_not_copied() -> None:
    image = b"jpeg"
    assert encode_image(image).data is image


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_other_bytes(kind: Callable[[bytes], Any]) -> None:
    assert encode_image(kind(b"jpeg")) == (b"jpeg", None)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1), (7, 5, 3), (7, 5)])
def test_arrays_travel_without_loss(shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for view in (pixels, pixels[::-1], pixels[:, ::-1], np.asfortranarray(pixels)):
        expected = view if view.ndim == 3 else np.repeat(view[:, :, None], 3, axis=2)
        for compress in (True, False):
            encoded = encode_image(view, compress=compress).data
            decoded = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
            np.testing.assert_array_equal(decoded, expected)


def test_an_array_that_is_too_large_as_it_is_becomes_a_png() -> None:
    assert encode_image(np.zeros((2000, 3333, 3), np.uint8), compress=False).data.startswith(b"P6\n3333 2000\n255\n")
    assert encode_image(np.zeros((2000, 3334, 3), np.uint8), compress=False).data.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (np.zeros((4, 4, 3), np.float32), r"float32 \[4, 4, 3\]"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \[4, 4, 4\]"),
        (np.zeros((1, 4, 4, 3), np.uint8), r"uint8 \[1, 4, 4, 3\]"),
        (np.zeros(4, np.uint8), r"uint8 \[4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
        (None, "NoneType"),
        ([1, 2], "list"),
    ],
)
def test_what_is_no_image(client: DetectionClient, image: Any, got: str) -> None:
    with pytest.raises(ContractError, match=rf"uint8 array \[height, width, 3\] .* but got {got}"):
        client.detect(image)
    with pytest.raises(ContractError, match=got):
        client.detect_batch([b"fine", image])


def test_paths(client: DetectionClient, server: FakeServer, tmp_path: Path) -> None:
    path = tmp_path / "street.jpg"
    path.write_bytes(b"jpeg")
    assert client.detect(path).source == client.detect(str(path)).source == str(path)
    assert client.detect(b"jpeg").source is None
    assert server.batches == [[b"jpeg"]] * 3


def unreadable_files(folder: Path) -> dict[str, tuple[Path, str]]:
    (folder / "empty.jpg").touch()
    with (folder / "huge.jpg").open("wb") as huge:
        huge.truncate(20_000_001)
    pipe = folder / "pipe.jpg"
    os.mkfifo(pipe)
    return {
        "missing": (folder / "none.jpg", f"there is no file {folder / 'none.jpg'}"),
        "directory": (folder, f"{folder} is a directory"),
        "empty": (folder / "empty.jpg", f"{folder / 'empty.jpg'} is empty"),
        "huge": (folder / "huge.jpg", f"{folder / 'huge.jpg'} has 20,000,001 bytes, and at most 20,000,000"),
        "zero byte": (Path("a\0b"), "embedded null byte"),
        "named pipe": (pipe, f"{pipe} is not a regular file; read it yourself, and give its bytes"),
        "device": (Path("/dev/zero"), "/dev/zero is not a regular file"),
        "under a file": (folder / "empty.jpg" / "x", "Not a directory"),
    }


@pytest.mark.parametrize(
    "case", ["missing", "directory", "empty", "huge", "zero byte", "named pipe", "device", "under a file"]
)
def test_files_that_cannot_be_read(client: DetectionClient, server: FakeServer, tmp_path: Path, case: str) -> None:
    path, words = unreadable_files(tmp_path)[case]
    with pytest.raises(ImageError) as caught:
        client.detect(path)
    assert words in str(caught.value)
    [failed, fine] = client.detect_batch([path, b"ab"])
    assert words in failed.error
    assert failed.source == str(path)
    assert (len(failed), len(fine), fine.error) == (0, 2, "")
    assert server.batches == [[b"ab"]]


def test_a_file_that_comes_slowly_is_given_up(tmp_path: Path) -> None:
    """The time is looked at between the pieces of a file."""
    path = tmp_path / "slow.jpg"
    path.write_bytes(bytes(3_000_000))
    looks: list[None] = []

    def check_time() -> None:
        looks.append(None)
        if len(looks) == 3:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        encode_image(path, check_time)
    assert len(encode_image(path).data) == 3_000_000


def test_bytes_that_are_too_many_or_too_few(client: DetectionClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_ENCODED_BYTES", 10)
    with pytest.raises(ImageError, match="the image has 11 bytes, and at most 10 are accepted"):
        client.detect(bytes(11))
    with pytest.raises(ImageError, match="the image is empty"):
        client.detect(b"")
