"""The plain reference against the fast pre- and postprocess: two ways to the same pixels and boxes."""

from __future__ import annotations

import io
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from triptych.contract import DEFAULT_ROWS, DetectorSpec, Placement
from triptych.errors import BuildError
from triptych.vision.boxes import postprocess
from triptych.vision.letterbox import preprocess
from triptych_build.verify.reference import reference_boxes, reference_pixels


def encoded(width: int, height: int, image_format: str = "PNG", mode: str = "RGB", orientation: int = 1) -> bytes:
    rng = np.random.default_rng([width, height])
    coarse = rng.integers(0, 256, (7, 9, 3)).astype(np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, image_format, exif=exif)
    return file.getvalue()


@pytest.mark.parametrize("placement", get_args(Placement))
@pytest.mark.parametrize("size", [(64, 48), (333, 101), (101, 333), (20, 31), (1, 500), (96, 64)])
def test_pixels_of_both_ways_are_the_same(placement: Placement, size: tuple[int, int]) -> None:
    spec = DetectorSpec(96, 64, ("any",), placement=placement, pad_value=7)
    pixels, geometry = reference_pixels(encoded(*size), spec)
    ours = preprocess([encoded(*size)], spec)
    np.testing.assert_array_equal(pixels, ours.pixels[0])
    np.testing.assert_array_equal(geometry, ours.geometry[0])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("image_format", "mode"), [("JPEG", "RGB"), ("JPEG", "L"), ("PNG", "RGBA"), ("PNG", "P")])
def test_decoders_agree_within_rounding(orientation: int, image_format: str, mode: str) -> None:
    spec = DetectorSpec(96, 64, ("any",))
    image = encoded(150, 90, image_format, mode, orientation)
    pixels, geometry = reference_pixels(image, spec)
    ours = preprocess([image], spec)
    assert ours.errors == [""]
    np.testing.assert_array_equal(geometry, ours.geometry[0])
    assert np.abs(pixels.astype(int) - ours.pixels[0]).max() <= 3


def test_what_is_no_image() -> None:
    with pytest.raises(BuildError, match=r"a validation image cannot be read .* take it out of the set"):
        reference_pixels(b"no image", DetectorSpec(96, 64, ("any",)))


def candidates(seed: int, count: int) -> NDArray[np.float32]:
    """Crowded boxes of three classes in letterbox pixels, some beyond its edges, best first."""
    rng = np.random.default_rng(seed)
    center, side = rng.uniform(-20, 660, (count, 2)), rng.uniform(2, 250, (count, 2))
    scores = np.sort(rng.uniform(0, 1, count))[::-1, None]
    rows = np.hstack([center - side / 2, center + side / 2, scores, rng.integers(0, 3, (count, 1))])
    return rows.astype(np.float32)


@pytest.mark.parametrize("iou_threshold", [0.3, 0.45, 0.7, 1.0])
@pytest.mark.parametrize("count", [0, 1, 40, 300])
def test_boxes_of_both_ways_are_the_same(count: int, iou_threshold: float) -> None:
    rows = candidates(count, count)
    if count > 5:
        rows[3, 0] = np.nan
        rows[-1, 4] = 0
    geometry = np.array([0.5, 0.5, 0, 80, 1280, 960], np.float32)
    theirs = reference_boxes(rows, geometry, 0.05, iou_threshold)
    boxes, scores, labels, counts, _ = postprocess(
        rows[None], geometry[None], score_threshold=0.05, iou_threshold=iou_threshold
    )
    kept = counts[0, 0]
    np.testing.assert_array_equal(theirs.scores, scores[0, :kept])
    np.testing.assert_array_equal(theirs.labels, labels[0, :kept])
    np.testing.assert_allclose(theirs.boxes_xyxy, boxes[0, :kept], atol=1e-3)
    assert len(theirs.scores) <= DEFAULT_ROWS
