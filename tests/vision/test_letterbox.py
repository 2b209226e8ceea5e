"""Letterbox and preprocess, on images made here."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from support.images import PNG, gradient, png_header, save
from triptych.contract import DetectorSpec, Placement
from triptych.vision.letterbox import factor, letterbox, letterbox_geometry, preprocess

SPEC = DetectorSpec(64, 48, ("any",), pad_value=114)


@pytest.mark.parametrize(
    ("size", "placement", "expected"),
    [
        ((640, 640), "center", (1, 1, 0, 0, 640, 640)),
        ((1280, 720), "center", (0.5, 0.5, 0, 140, 1280, 720)),
        ((720, 1280), "center", (0.5, 0.5, 140, 0, 720, 1280)),
        ((1280, 721), "center", (0.5, 360 / 721, 0, 140, 1280, 721)),
        ((320, 320), "center", (2, 2, 0, 0, 320, 320)),
        ((1280, 721), "top_left", (0.5, 360 / 721, 0, 0, 1280, 721)),
        ((1000, 333), "top_left", (0.64, 213 / 333, 0, 0, 1000, 333)),
        ((1280, 720), "stretch", (0.5, 640 / 720, 0, 0, 1280, 720)),
        ((10000, 1), "center", (0.064, 1, 0, 319, 10000, 1)),
    ],
)
def test_letterbox_geometry(size: tuple[int, int], placement: Placement, expected: tuple[float, ...]) -> None:
    assert letterbox_geometry(*size, 640, 640, placement) == pytest.approx(expected)


@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from(["center", "top_left", "stretch"]),
)
def test_letterbox_writes_every_pixel_of_its_canvas(
    width: int, height: int, target_width: int, target_height: int, placement: Placement
) -> None:
    white = np.full((height, width, 3), 255, np.uint8)
    canvases = [np.full((target_height, target_width, 3), poison, np.uint8) for poison in (7, 200)]
    for canvas in canvases:
        geometry = letterbox(white, canvas, placement=placement, pad_value=50)
    np.testing.assert_array_equal(canvases[0], canvases[1])
    left, top = int(geometry.pad_left), int(geometry.pad_top)
    right, bottom = left + round(geometry.scale_x * width), top + round(geometry.scale_y * height)
    expected = np.full((target_height, target_width, 3), 50, np.uint8)
    expected[top:bottom, left:right] = 255
    np.testing.assert_array_equal(canvases[0], expected)


def test_letterbox_resizes_as_opencv_does() -> None:
    picture = gradient(300, 200)
    canvas = np.zeros((64, 96, 3), np.uint8)
    letterbox(picture, canvas)
    np.testing.assert_array_equal(canvas, cv2.resize(picture, (96, 64), interpolation=cv2.INTER_LINEAR))


@pytest.mark.parametrize(
    ("size", "placement", "expected"),
    [
        ((640, 640), "center", 1),
        ((1279, 1279), "center", 1),
        ((1280, 1280), "center", 2),
        ((1280, 720), "center", 2),
        ((720, 1280), "center", 2),
        ((2560, 100), "center", 4),
        ((3840, 2160), "center", 4),
        ((9000, 9000), "center", 8),
        ((90000, 500), "center", 8),
        ((1280, 639), "stretch", 1),
        ((5120, 1280), "stretch", 2),
        ((1, 1), "center", 1),
    ],
)
def test_a_reduced_image_has_at_least_the_pixels_of_its_place(
    size: tuple[int, int], placement: Placement, expected: int
) -> None:
    full = DetectorSpec(640, 640, ("any",), placement)
    assert factor(*size, replace(full, decode="scaled")) == expected
    assert factor(*size, full) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(512, 384), (515, 389), (601, 1999), (1001, 333)])
def test_fewer_pixels_are_decoded_to_nearly_the_same(size: tuple[int, int], orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    images = [save(Image.fromarray(gradient(*size)), "JPEG", quality=95, exif=exif)]
    full, scaled = preprocess(images, SPEC), preprocess(images, replace(SPEC, decode="scaled"))
    np.testing.assert_array_equal(scaled.geometry, full.geometry)
    difference = np.abs(scaled.pixels.astype(int) - full.pixels)
    assert difference.max() <= 8  # a gradient's step from pixel to pixel is up to 9
    assert difference.any()


def test_only_large_jpegs_are_reduced() -> None:
    small, large = Image.fromarray(gradient(100, 90)), Image.fromarray(gradient(512, 384))
    images = [save(small, "JPEG"), save(large, "PNG"), save(large, "WEBP"), save(large, "TIFF"), b"bad"]
    full, scaled = preprocess(images, SPEC), preprocess(images, replace(SPEC, decode="scaled"))
    np.testing.assert_array_equal(scaled.pixels, full.pixels)
    assert scaled.errors == full.errors


def test_half_a_large_jpeg_is_refused_as_ever() -> None:
    whole = save(Image.fromarray(gradient(512, 384)), "JPEG")
    done = preprocess([whole[: len(whole) // 2]], replace(SPEC, decode="scaled"))
    assert "ends early" in done.errors[0]


def test_preprocess_keeps_bad_images_to_their_own_rows() -> None:
    good = preprocess([PNG], SPEC)
    mixed = preprocess([b"bad", PNG, b"", PNG, png_header(60_000, 60_000)], SPEC)
    assert mixed.pixels.shape == (5, 48, 64, 3)
    for row in (1, 3):
        np.testing.assert_array_equal(mixed.pixels[row], good.pixels[0])
        np.testing.assert_array_equal(mixed.geometry[row], good.geometry[0])
        assert mixed.errors[row] == ""
    for row in (0, 2, 4):
        assert (mixed.pixels[row] == SPEC.pad_value).all()
        assert not mixed.geometry[row].any()
        assert " " in mixed.errors[row]


def test_preprocess_survives_what_nobody_thought_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object, **_kwargs: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("triptych.vision.letterbox.letterbox", fail)
    assert preprocess([PNG], SPEC).errors == ["the image cannot be processed: ZeroDivisionError('surprise')"]


def test_an_empty_batch() -> None:
    pixels, geometry, errors = preprocess([], SPEC)
    assert (pixels.shape, geometry.shape, errors) == ((0, 48, 64, 3), (0, 6), [])
