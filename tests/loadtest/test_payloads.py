"""What users send: images in sizes and batches."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from triptych.errors import ContractError, ImageError
from triptych.vision.decode import decode
from triptych_loadtest.payloads import Payload, Payloads, check_sizes, parse_sizes, payloads, read_images


def encoded(width: int, height: int) -> bytes:
    return cv2.imencode(".png", np.full((height, width, 3), 99, np.uint8))[1].tobytes()


def drawn(made: Payloads, count: int, seed: int = 1) -> list[Payload]:
    return list(itertools.islice(made.draw(random.Random(seed)), count))


def test_sizes_are_real_and_in_the_name() -> None:
    made = drawn(payloads([encoded(100, 80), encoded(60, 90)], sizes_wh=[(640, 480), (32, 16)]), 8)
    assert Counter(payload.name for payload in made) == {"detect 640x480": 4, "detect 32x16": 4}
    for payload in made:
        (image,) = payload.images
        height, width, _ = decode(image).shape
        assert payload.name == f"detect {width}x{height}"


def test_images_are_sent_as_they_are_without_sizes() -> None:
    images = [encoded(4, 4), b"whatever it is"]
    made = drawn(payloads(images), 2)
    assert {payload.name for payload in made} == {"detect"}
    assert sorted(payload.images for payload in made) == sorted((image,) for image in images)


def test_images_come_at_random_each_as_often_and_with_a_seed_as_before() -> None:
    made = payloads([bytes([number]) for number in range(10)])
    sent = [payload.images for payload in drawn(made, 1000)]
    assert set(Counter(sent).values()) == {100}
    assert sent == [payload.images for payload in drawn(made, 1000)]
    assert sent[:10] != [payload.images for payload in drawn(made, 10, seed=2)]
    assert len({tuple(sent[first : first + 10]) for first in range(0, 1000, 10)}) == 100, "in another order each time"


def test_the_images_of_a_batch_are_drawn_too() -> None:
    made = drawn(payloads([b"a", b"b", b"c"], batch=2), 60)
    assert {payload.name for payload in made} == {"detect x2"}
    assert set(Counter(image for payload in made for image in payload.images).values()) == {40}
    assert len({payload.images for payload in made}) > 4, "not always the same ones together"
    assert drawn(payloads([b"a"], batch=3), 1)[0].images == (b"a", b"a", b"a")
    assert drawn(payloads([encoded(9, 9)], 2, [(8, 4)]), 1)[0].name == "detect 8x4 x2"


@pytest.mark.parametrize(
    "text", ["640x", "x480", "0x10", "10x0", "-1x5", "640x480x3", "６x４", "large", "1x2,", "1x2 3x4"]
)
def test_a_word_that_is_not_a_size(text: str) -> None:
    with pytest.raises(ContractError, match="a size must be WIDTHxHEIGHT in pixels, such as 1920x1080, but got '"):
        parse_sizes(text)


def test_a_size_with_too_many_pixels() -> None:
    with pytest.raises(ContractError, match=r"an image may have .* pixels, but 9999x9999 is 99,980,001"):
        parse_sizes("640x480,9999x9999")
    with pytest.raises(ContractError, match="9999x9999"):
        check_sizes([(9999, 9999)])


@pytest.mark.parametrize(
    ("text", "sizes"), [("", ()), (" ", ()), ("1x2", ((1, 2),)), ("1x2, 3x4", ((1, 2), (3, 4))), ("640", ((640, 640),))]
)
def test_sizes_come_with_commas(text: str, sizes: tuple[tuple[int, int], ...]) -> None:
    assert parse_sizes(text) == sizes


@pytest.mark.parametrize("batch", [0, -1, 17])
def test_a_batch_that_the_server_does_not_take(batch: int) -> None:
    with pytest.raises(ContractError, match=f"a batch must be of 1 to 16 images, but is of {batch}"):
        payloads([b"a"], batch)


def test_an_image_that_cannot_be_scaled_is_named() -> None:
    with pytest.raises(ImageError, match="image 2 of 2, by name, cannot be scaled"):
        payloads([encoded(4, 4), b"no image"], sizes_wh=[(8, 8)])


def test_a_directory_without_images(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="there are no images in"):
        read_images(tmp_path)
    with pytest.raises(ImageError, match="there is no directory"):
        read_images(tmp_path / "missing")
