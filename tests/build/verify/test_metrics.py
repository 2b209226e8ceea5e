"""Accuracy on cases small enough for a pencil."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from triptych.errors import BuildError
from triptych_build.verify.metrics import Predictions, accuracy, as_truth


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


def predicted(*rows: tuple[list[float], float, int]) -> Predictions:
    """Return predictions of one image: xyxy, score, label."""
    return Predictions(
        np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int32),
    )


SQUARE = [0.0, 0.0, 100.0, 100.0]


def test_all_found() -> None:
    measured = accuracy(
        truth((1, 0, SQUARE), (2, 1, SQUARE)), [predicted((SQUARE, 0.9, 0)), predicted((SQUARE, 0.6, 1))]
    )
    assert (measured.map50_95, measured.map50, measured.precision, measured.recall) == pytest.approx((1, 1, 1, 1))
    assert measured.class_ap == pytest.approx({0: 1, 1: 1})


def test_a_loose_box_counts_up_to_its_overlap() -> None:
    # 100 x 77 of 100 x 100: IoU 0.77 is enough at 0.50, 0.55, ..., 0.75, which are 6 of 10.
    measured = accuracy(truth((1, 0, SQUARE), images=1), [predicted(([0, 0, 100, 77], 0.9, 0))])
    assert measured.map50 == pytest.approx(1)
    assert measured.map50_95 == pytest.approx(0.6)


def test_a_class_without_truth_is_not_measured() -> None:
    measured = accuracy(truth((1, 0, SQUARE), images=1), [predicted((SQUARE, 0.5, 0), (SQUARE, 0.9, 1))])
    assert measured.class_ap == pytest.approx({0: 1})
    assert measured.map50_95 == pytest.approx(1)


def test_two_classes_of_one_name_stay_two() -> None:
    document = truth((1, 0, SQUARE), (2, 1, SQUARE)) | {"categories": [{"id": n, "name": "same"} for n in (0, 1)]}
    assert accuracy(document, [predicted((SQUARE, 0.9, 0)), predicted()]).class_ap == pytest.approx({0: 1, 1: 0})


def test_precision_and_recall_at_the_best_score_for_all_classes() -> None:
    """Four cats of which three are found, the third behind a false one: 3 of 4 right and 3 of 4 found is best."""
    boxes = [[200.0 * number, 0.0, 100.0, 100.0] for number in range(4)]
    corners = [[x, y, x + w, y + h] for x, y, w, h in boxes]
    rows: list[tuple[list[float], float, int]] = [
        (corners[0], 0.9, 0),
        (corners[1], 0.8, 0),
        ([0, 500, 50, 550], 0.7, 0),
        (corners[2], 0.6, 0),
    ]
    rows += [([0, 600 + 60 * number, 50, 650 + 60 * number], 0.1, 0) for number in range(5)]
    measured = accuracy(truth(*((1, 0, box) for box in boxes), images=1), [predicted(*rows)])
    assert (measured.precision, measured.recall) == pytest.approx((0.75, 0.75))
    # Precision is 1 up to recall 0.50, which is 51 of 101 steps, then 0.75 up to recall 0.75, which is 25 more.
    assert measured.map50 == pytest.approx((51 + 25 * 0.75) / 101)


def test_crowds_count_neither_way() -> None:
    document = truth((1, 0, SQUARE), (1, 0, [200, 0, 300, 300]), images=1, crowd=(2,))
    measured = accuracy(document, [predicted(([210, 10, 290, 90], 0.9, 0), (SQUARE, 0.8, 0))])
    assert measured.map50_95 == pytest.approx(1)


def test_nothing_found() -> None:
    measured = accuracy(truth((1, 0, SQUARE)), [predicted(), predicted()])
    assert (measured.map50_95, measured.map50, measured.precision, measured.recall) == (0, 0, 0, 0)
    assert measured.class_ap == {0: 0}


def test_the_truth_is_left_as_it_is() -> None:
    document = truth((1, 0, SQUARE))
    accuracy(document, [predicted((SQUARE, 0.9, 0)), predicted()])
    assert document == truth((1, 0, SQUARE))


def test_results_of_other_images() -> None:
    with pytest.raises(BuildError, match="the truth has 2 images, but detections of 1 came"):
        accuracy(truth((1, 0, SQUARE)), [predicted()])


def test_detections_as_truth() -> None:
    rows = [predicted((SQUARE, 0.9, 0), ([0, 0, 10, 10], 0.2, 1)), predicted(([5, 5, 25, 45], 0.5, 1))]
    document = as_truth(rows, ("cat", "dog"), 0.5)
    assert [(row["image_id"], row["category_id"], row["bbox"]) for row in document["annotations"]] == [
        (1, 0, SQUARE),
        (2, 1, [5, 5, 20, 40]),
    ]
    assert accuracy(document, rows).map50_95 == pytest.approx(1)
