"""Which images a GPU decodes, and that the answer is the CPU's, with a stand-in for the GPU."""

from __future__ import annotations

import logging
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from support.gpu_card import OnCard, StandInCard, resized
from support.images import JPEG, PNG, RGB, gradient, many_scans, save
from triptych.contract import DetectorSpec, Placement
from triptych.errors import ImageFault
from triptych.vision.gpu.decoder import GpuDecoder, Request
from triptych.vision.letterbox import Preprocessed, preprocess

SPEC = DetectorSpec(64, 48, ("any",), pad_value=114)
PROGRESSIVE = save(RGB, "JPEG", progressive=True)
GREY = save(RGB.convert("L"), "JPEG")
WIDE = save(Image.fromarray(gradient(333, 77)), "JPEG", quality=90)

exif = Image.Exif()
exif[0x0112] = 6
TURNED = save(RGB, "JPEG", exif=exif)


def on_host(made: Preprocessed) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the pixels, which are the card's in every case."""
    assert isinstance(made.pixels, OnCard)
    return np.from_dlpack(made.pixels)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 200), st.integers(1, 200))
def test_the_kernels_arithmetic_is_opencvs_but_for_one_level(
    width: int, height: int, new_width: int, new_height: int
) -> None:
    noise = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = cv2.resize(noise, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    difference = np.abs(resized(noise, new_width, new_height).astype(int) - expected)
    assert difference.max() <= 1


@pytest.mark.parametrize(("width", "height"), [(1920, 1080), (1000, 700), (320, 240)])
def test_one_level_is_rare(width: int, height: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = cv2.resize(noise, (640, 448), interpolation=cv2.INTER_LINEAR)
    assert (resized(noise, 640, 448) != expected).mean() < 0.01


def test_a_picture_of_the_right_size_stays_as_it_is() -> None:
    picture = gradient(64, 48)
    np.testing.assert_array_equal(resized(picture, 64, 48), picture)


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        (JPEG, True),
        (PROGRESSIVE, True),
        (GREY, True),
        (WIDE, True),
        (JPEG + b"rest", True),
        (PNG, False),
        (b"", False),
        (b"no image", False),
        (TURNED, False),
        (save(RGB.convert("CMYK"), "JPEG"), False),
        (JPEG[:-2], False),
        (JPEG[: len(JPEG) // 2], False),
        (many_scans(120), False),
        (save(Image.new("RGB", (201, 200)), "JPEG"), False),
        (JPEG + bytes(40_000), False),
    ],
    ids=[
        "baseline",
        "progressive",
        "grey",
        "wide",
        "rest",
        "png",
        "empty",
        "text",
        "turned",
        "cmyk",
        "endless",
        "half",
        "scans",
        "pixels",
        "bytes",
    ],
)
def test_what_the_gpu_decodes(encoded: bytes, expected: bool) -> None:
    card = StandInCard(SPEC)
    counted: list[int] = []
    decoder = GpuDecoder(card, SPEC, max_bytes=40_000, max_pixels=40_000, on_decoded=counted.append)
    (made,) = decoder.preprocess([Request([encoded])])
    assert card.batches == [1] * expected
    assert sum(counted) == expected
    by_cpu = preprocess([encoded], SPEC, max_bytes=40_000, max_pixels=40_000)
    assert made.errors == by_cpu.errors
    np.testing.assert_array_equal(made.geometry, by_cpu.geometry)
    np.testing.assert_allclose(on_host(made), by_cpu.pixels, atol=1)


@pytest.mark.parametrize("placement", ["center", "top_left", "stretch"])
def test_both_ways_meet_in_one_request(placement: Placement) -> None:
    spec = replace(SPEC, placement=placement, pad_value=7)
    images = [PNG, WIDE, b"bad", JPEG, TURNED, b"", GREY]
    faults: list[tuple[ImageFault, str]] = []
    card = StandInCard(spec)
    (made,) = GpuDecoder(card, spec).preprocess(
        [Request(images, on_fault=lambda fault, error: faults.append((fault, error)))]
    )
    expected: list[tuple[ImageFault, str]] = []
    by_cpu = preprocess(images, spec, on_fault=lambda fault, error: expected.append((fault, error)))
    assert card.batches == [3]
    assert faults == expected
    assert made.errors == by_cpu.errors
    np.testing.assert_array_equal(made.geometry, by_cpu.geometry)
    np.testing.assert_allclose(on_host(made), by_cpu.pixels, atol=1)
    for row in (0, 2, 4, 5):
        np.testing.assert_array_equal(on_host(made)[row], by_cpu.pixels[row])


def test_requests_are_decoded_together_and_as_if_alone() -> None:
    card = StandInCard(SPEC)
    decoder = GpuDecoder(card, SPEC)
    requests = [Request([JPEG]), Request([PNG, PNG]), Request([]), Request([WIDE, PNG, GREY])]
    together = decoder.preprocess(requests)
    assert card.batches == [3]
    for request, made in zip(requests, together, strict=True):
        (alone,) = GpuDecoder(StandInCard(SPEC), SPEC).preprocess([request])
        np.testing.assert_array_equal(on_host(made), on_host(alone))
        np.testing.assert_array_equal(made.geometry, alone.geometry)


def test_the_cpu_decodes_what_the_gpu_cannot() -> None:
    card = StandInCard(SPEC, refused=frozenset([WIDE]))
    (made,) = GpuDecoder(card, SPEC).preprocess([Request([JPEG, WIDE])])
    np.testing.assert_array_equal(on_host(made)[1], preprocess([WIDE], SPEC).pixels[0])


def test_the_cpu_decodes_what_has_another_size_than_its_header_says(monkeypatch: pytest.MonkeyPatch) -> None:
    card = StandInCard(SPEC)
    monkeypatch.setattr(card, "decode", lambda _: StandInCard.decode(card, [WIDE]))
    (made,) = GpuDecoder(card, SPEC).preprocess([Request([JPEG])])
    np.testing.assert_array_equal(on_host(made), preprocess([JPEG], SPEC).pixels)


def test_the_cpu_decodes_all_while_the_gpu_fails_and_the_log_has_it_once(caplog: pytest.LogCaptureFixture) -> None:
    card, faults = StandInCard(SPEC, broken="decode"), []
    counted: list[int] = []
    decoder = GpuDecoder(card, SPEC, on_decoded=counted.append)
    images = [WIDE, b"bad", JPEG]
    requests = [Request(images, on_fault=lambda fault, _: faults.append(fault)), Request([PNG])]
    by_cpu = preprocess(images, SPEC)
    with caplog.at_level(logging.ERROR):
        for _ in range(2):
            made, other = decoder.preprocess(requests)
            np.testing.assert_array_equal(on_host(made), by_cpu.pixels)
            np.testing.assert_array_equal(made.geometry, by_cpu.geometry)
            assert made.errors == by_cpu.errors
            np.testing.assert_array_equal(on_host(other), preprocess([PNG], SPEC).pixels)
    assert faults == ["format"] * 2
    assert [record.message for record in caplog.records] == [
        "the GPU does not decode images at the moment, so the CPU does"
    ]
    card.broken = ""
    decoder.preprocess(requests)
    card.broken = "decode"
    decoder.preprocess(requests)
    assert len(caplog.records) == 2, "it worked in between"
    assert counted == [0, 0, 2, 0]


def test_pixels_that_the_gpu_has_no_memory_for_are_not_sent_from_the_host() -> None:
    with pytest.raises(RuntimeError, match="out of memory"):
        GpuDecoder(StandInCard(SPEC, broken="fill"), SPEC).preprocess([Request([PNG])])


def test_a_detector_that_wants_fewer_pixels_decoded_gets_them_from_the_cpu() -> None:
    spec, large = replace(SPEC, decode="scaled"), save(Image.fromarray(gradient(200, 150)), "JPEG")
    card = StandInCard(spec)
    (made,) = GpuDecoder(card, spec).preprocess([Request([large, JPEG])])
    assert card.batches == [1]
    np.testing.assert_array_equal(on_host(made)[0], preprocess([large], spec).pixels[0])
