"""Figures over resamples of the images: each is what COCO's evaluation says of the images drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from triptych_build.verify.matches import Counts, at_threshold, average_precisions, match, resamples, score_changes
from triptych_build.verify.metrics import Predictions, accuracy

IMAGES, CLASSES = 6, 3


def scene(seed: int) -> tuple[dict[str, Any], list[Predictions]]:
    """Crowded images: boxes, some of them crowds, each found up to three times, and false detections."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    predictions = []
    for image in range(1, IMAGES + 1):
        rows = []
        for _ in range(rng.integers(0, 12)):
            left, top, width, height = *rng.uniform(0, 80, 2), *rng.uniform(5, 40, 2)
            label = int(rng.integers(CLASSES))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": label,
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": int(rng.random() < 0.15),
                }
            )
            for _ in range(rng.integers(0, 4)):
                corner = np.array([left, top]) + rng.normal(0, 3, 2)
                rows.append([*corner, *np.add(corner, (width, height)), rng.random(), label])
        for _ in range(rng.integers(0, 6)):
            corner = rng.uniform(0, 80, 2)
            rows.append([*corner, *(corner + 20), rng.random(), rng.integers(CLASSES)])
        table = np.array(rows, np.float32).reshape(-1, 6)
        predictions.append(Predictions(table[:, :4], table[:, 4], table[:, 5].astype(np.int32)))
    return document(annotations, IMAGES), predictions


def document(annotations: list[dict[str, Any]], images: int) -> dict[str, Any]:
    return {
        "images": [{"id": number, "file_name": str(number)} for number in range(1, images + 1)],
        "categories": [{"id": number, "name": "same"} for number in range(CLASSES)],
        "annotations": annotations,
    }


def repeated(
    truth: dict[str, Any], predictions: list[Predictions], times: Counts
) -> tuple[dict[str, Any], list[Predictions]]:
    """Return the set in which each image is there as often as it was drawn."""
    drawn = np.repeat(np.arange(len(times)), times)
    rows = [
        row | {"image_id": number}
        for number, image in enumerate(drawn, 1)
        for row in truth["annotations"]
        if row["image_id"] == image + 1
    ]
    rows = [row | {"id": number} for number, row in enumerate(rows, 1)]
    return document(rows, len(drawn)), [predictions[image] for image in drawn]


@pytest.mark.parametrize("seed", range(5))
def test_each_resample_is_what_coco_says_of_the_images_drawn(seed: int) -> None:
    truth, predictions = scene(seed)
    times = resamples(IMAGES, 4, seed)
    matches = match(truth, predictions)
    for row, drawn in enumerate(times):
        expected = accuracy(*repeated(truth, predictions, drawn))
        measured = {label: average_precisions(one, times)[row].mean() for label, one in matches.items()}
        assert {label: ap for label, ap in measured.items() if not np.isnan(ap)} == pytest.approx(expected.class_ap)


def test_precision_and_recall_at_a_score() -> None:
    box = np.array([[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    found = Predictions(box, np.array([0.9, 0.8, 0.2], np.float32), np.zeros(3, np.int32))
    nothing = Predictions(box[:0], np.zeros(0, np.float32), np.zeros(0, np.int32))
    rows = [
        {"id": number, "image_id": number, "category_id": 0, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}
        for number in (1, 2)
    ]
    matches = match(document(rows, 2), [found, nothing])
    precision, recall = at_threshold(matches, 0.5, np.array([[1, 1], [3, 1], [0, 2]]))
    assert precision.tolist() == pytest.approx([1 / 2, 1 / 2, 0])
    assert recall.tolist() == pytest.approx([1 / 2, 3 / 4, 0])


def test_scores_change_from_the_sources_confident_detections() -> None:
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    labels = np.array([0, 1], np.int32)
    source = Predictions(boxes, np.array([0.9, 0.1], np.float32), labels)
    served = Predictions(boxes + 1, np.array([0.6, 0.9], np.float32), labels)
    nothing = Predictions(boxes[:0], source.scores[:0], labels[:0])
    changes = score_changes([source, source], [served, nothing], 0.25)
    assert list(changes) == [0], "of a class that is not sure nothing is said"
    sums, counts = changes[0]
    assert sums.tolist() == pytest.approx([-0.3, 0])
    assert counts.tolist() == [1, 0]


def test_resamples_begin_with_the_whole_set_and_draw_as_many() -> None:
    times = resamples(7, 3)
    assert times[0].tolist() == [1] * 7
    assert times.sum(1).tolist() == [7] * 4
    assert np.array_equal(times, resamples(7, 3)), "the same figures every time"
