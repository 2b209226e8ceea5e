"""The plain reference against the fast pre- and postprocess: two ways to the same pixels and boxes."""

from __future__ import annotations

import io
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from support.detectors import crowd_model
from triptych.contract import DetectorSpec, Placement, Truncated
from triptych.errors import BuildError
from triptych.runtimes import open_runtime
from triptych.vision.boxes import postprocess
from triptych.vision.letterbox import preprocess
from triptych_build.adapt.adapter import Overrides, adapt_file
from triptych_build.verify.reference import reference_boxes, reference_pixels, reference_stages


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


@pytest.mark.parametrize(
    ("overrides", "objects", "truncated"),
    [
        (Overrides(), 60, Truncated(0)),
        (Overrides(candidates=300), 25, Truncated.CANDIDATES),
        (Overrides(rows=40), 40, Truncated.ROWS),
    ],
)
def test_a_crowd_is_whole_in_the_reference_and_said_to_be_cut_off_where_it_is(
    tmp_path: Path, overrides: Overrides, objects: int, truncated: Truncated
) -> None:
    adapted = tmp_path / "adapted.onnx"
    spec = adapt_file(crowd_model(tmp_path / "source.onnx"), adapted, overrides).spec
    reference = reference_stages(adapted, spec, 0.25)
    pixels, geometry = reference.preprocess(encoded(640, 640))
    assert len(reference.postprocess(reference.detector(pixels), geometry).scores) == 60

    served = postprocess(
        open_runtime("openvino", adapted, threads=1).detect(pixels[None]),
        geometry[None],
        score_threshold=0.25,
        iou_threshold=spec.iou_threshold,
        rows=spec.rows,
    )
    assert (served.counts[0, 0], served.truncated[0, 0]) == (objects, truncated)
