"""Accuracy on cases small enough for a pencil; and the reference against the fast pre- and postprocess."""

from __future__ import annotations

import io
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from triptych.contract import DetectorSpec, Placement
from triptych.errors import BuildError
from triptych.vision.boxes import postprocess
from triptych.vision.letterbox import preprocess
from triptych_build.verify.metrics import Found, accuracy, as_truth
from triptych_build.verify.reference import reference_boxes, reference_pixels


def truth(*boxes: tuple[int, int, list[float]], images: int = 2, crowd: tuple[int, ...] = ()) -> dict[str, Any]:
    """A document of two classes; boxes are image, label and xywh."""
    return {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in range(1, images + 1)],
        "categories": [{"id": 0, "name": "cat"}, {"id": 1, "name": "dog"}],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": label,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(number in crowd),
            }
            for number, (image, label, box) in enumerate(boxes, 1)
        ],
    }


def found(*rows: tuple[list[float], float, int]) -> Found:
    """Detections of one image: xyxy, score, label."""
    return Found(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int32),
    )


SQUARE = [0.0, 0.0, 100.0, 100.0]


def test_all_found() -> None:
    measured = accuracy(truth((1, 0, SQUARE), (2, 1, SQUARE)), [found((SQUARE, 0.9, 0)), found((SQUARE, 0.6, 1))])
    assert (measured.map50_95, measured.map50, measured.precision, measured.recall) == pytest.approx((1, 1, 1, 1))
    assert measured.class_ap == pytest.approx({"cat": 1, "dog": 1})


def test_a_loose_box_counts_up_to_its_overlap() -> None:
    # 100 x 77 of 100 x 100: IoU 0.77 is enough at 0.50, 0.55, ..., 0.75, which are 6 of 10.
    measured = accuracy(truth((1, 0, SQUARE), images=1), [found(([0, 0, 100, 77], 0.9, 0))])
    assert measured.map50 == pytest.approx(1)
    assert measured.map50_95 == pytest.approx(0.6)


def test_a_class_without_truth_is_not_measured() -> None:
    measured = accuracy(truth((1, 0, SQUARE), images=1), [found((SQUARE, 0.5, 0), (SQUARE, 0.9, 1))])
    assert measured.class_ap == pytest.approx({"cat": 1})
    assert measured.map50_95 == pytest.approx(1)


def test_precision_and_recall_at_the_best_score_for_all_classes() -> None:
    """Four cats of which three are found, the third behind a false one: 3 of 4 right and 3 of 4 found is best."""
    boxes = [[200.0 * number, 0.0, 100.0, 100.0] for number in range(4)]
    corners = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    rows = [(corners[0], 0.9, 0), (corners[1], 0.8, 0), ([0, 500, 50, 550], 0.7, 0), (corners[2], 0.6, 0)]
    rows += [([0, 600 + 60 * number, 50, 650 + 60 * number], 0.1, 0) for number in range(5)]
    measured = accuracy(truth(*((1, 0, box) for box in boxes), images=1), [found(*rows)])
    assert (measured.precision, measured.recall) == pytest.approx((0.75, 0.75))
    # Precision is 1 up to recall 0.50, which is 51 of 101 steps, then 0.75 up to recall 0.75, which is 25 more.
    assert measured.map50 == pytest.approx((51 + 25 * 0.75) / 101)


def test_crowds_count_neither_way() -> None:
    document = truth((1, 0, SQUARE), (1, 0, [200, 0, 300, 300]), images=1, crowd=(2,))
    measured = accuracy(document, [found(([210, 10, 290, 90], 0.9, 0), (SQUARE, 0.8, 0))])
    assert measured.map50_95 == pytest.approx(1)


def test_nothing_found() -> None:
    measured = accuracy(truth((1, 0, SQUARE)), [found(), found()])
    assert (measured.map50_95, measured.map50, measured.precision, measured.recall) == (0, 0, 0, 0)
    assert measured.class_ap == {"cat": 0}


def test_the_truth_is_left_as_it_is() -> None:
    document = truth((1, 0, SQUARE))
    accuracy(document, [found((SQUARE, 0.9, 0)), found()])
    assert document == truth((1, 0, SQUARE))


def test_results_of_other_images() -> None:
    with pytest.raises(BuildError, match="the truth has 2 images, but detections of 1 came"):
        accuracy(truth((1, 0, SQUARE)), [found()])


def test_detections_as_truth() -> None:
    rows = [found((SQUARE, 0.9, 0), ([0, 0, 10, 10], 0.2, 1)), found(([5, 5, 25, 45], 0.5, 1))]
    document = as_truth(rows, ("cat", "dog"), 0.5)
    assert [(row["image_id"], row["category_id"], row["bbox"]) for row in document["annotations"]] == [
        (1, 0, SQUARE),
        (2, 1, [5, 5, 20, 40]),
    ]
    assert accuracy(document, rows).map50_95 == pytest.approx(1)


# --- The reference


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
    boxes, scores, labels, counts = postprocess(
        rows[None], geometry[None], score_threshold=0.05, iou_threshold=iou_threshold
    )
    kept = counts[0, 0]
    np.testing.assert_array_equal(theirs.scores, scores[0, :kept])
    np.testing.assert_array_equal(theirs.labels, labels[0, :kept])
    np.testing.assert_allclose(theirs.boxes_xyxy, boxes[0, :kept], atol=1e-3)
    assert len(theirs.scores) <= 100
