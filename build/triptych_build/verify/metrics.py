"""Accuracy of detections against a COCO document: mAP, each class, precision and recall; by faster-coco-eval."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from triptych.errors import BuildError

Floats = NDArray[np.float32]

USUAL_DETECTIONS = 100
"""How many detections of a class in an image COCO counts; more where an image of the set shows more objects."""


class Predictions(NamedTuple):
    """What a detector predicts in one image.

    Attributes:
        boxes_xyxy: float32 [n, 4], in the original image's pixels.
        scores: float32 [n].
        labels: int32 [n], class ids.
    """

    boxes_xyxy: Floats
    scores: Floats
    labels: NDArray[np.int32]


@dataclass(frozen=True)
class Accuracy:
    """Accuracy over a set of images, all in 0..1.

    Attributes:
        map50_95: mean AP over IoU 0.50 to 0.95 and over the classes that have ground truth.
        map50: mean AP at IoU 0.5.
        precision: at IoU 0.5, mean over classes, at the score where the mean F1 over classes is best.
        recall: at that score too, the mean over classes.
        class_ap: AP over IoU 0.50 to 0.95 by class id, of the classes that have ground truth.
    """

    map50_95: float
    map50: float
    precision: float
    recall: float
    class_ap: dict[int, float]

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Accuracy:
        """Return the accuracy that JSON keeps, whose keys are text."""
        return cls(**{**document, "class_ap": {int(label): ap for label, ap in document["class_ap"].items()}})


def accuracy(truth: dict[str, Any], predictions: Sequence[Predictions]) -> Accuracy:
    """Score detections.

    Args:
        truth: a COCO document, see `truth.Dataset`.
        predictions: one for each image, in the order of truth["images"].

    Raises:
        BuildError: there are more or fewer results than images.
    """
    if len(predictions) != len(truth["images"]):
        raise BuildError(f"the truth has {len(truth['images'])} images, but detections of {len(predictions)} came")
    evaluated = _evaluate(truth, _rows(truth, predictions))
    precision = np.asarray(evaluated["precision"])[:, :, :, 0, -1]  # [IoU, recall, class], all areas, most boxes
    scores = np.asarray(evaluated["scores"])[:, :, :, 0, -1]
    ids = sorted(category["id"] for category in truth["categories"])
    measured = [number for number in range(len(ids)) if precision[0, 0, number] > -1]
    at_best = _at_best_f1(precision[0][:, measured], scores[0][:, measured])
    return Accuracy(
        map50_95=_mean(precision[:, :, measured]),
        map50=_mean(precision[0][:, measured]),
        precision=at_best[0],
        recall=at_best[1],
        class_ap={ids[number]: _mean(precision[:, :, number]) for number in measured},
    )


def as_truth(predictions: Sequence[Predictions], class_names: Sequence[str], score_threshold: float) -> dict[str, Any]:
    """Return the predictions with at least a score as a COCO document that others can be scored against.

    Args:
        predictions: one for each image; the images get the ids 1..n.
        class_names: names by class id.
        score_threshold: 0..1.
    """
    images = [{"id": number, "file_name": str(number)} for number in range(1, len(predictions) + 1)]
    rows = [row for row in _rows({"images": images}, predictions) if row["score"] >= score_threshold]
    return {
        "images": images,
        "annotations": [
            {**row, "id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
            for number, row in enumerate(rows, 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(class_names)],
    }


def most_detections(truth: dict[str, Any]) -> int:
    """Return how many detections of a class in an image count."""
    crowded = max(Counter(row["image_id"] for row in truth["annotations"]).values(), default=0)
    return max(USUAL_DETECTIONS, crowded)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else 0.0


def _rows(truth: dict[str, Any], predictions: Sequence[Predictions]) -> list[dict[str, Any]]:
    """Return predictions as COCO's results."""
    rows = []
    for image, (boxes_xyxy, scores, labels) in zip(truth["images"], predictions, strict=True):
        for box, score, label in zip(boxes_xyxy.tolist(), scores.tolist(), labels.tolist(), strict=True):
            bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            rows.append({"image_id": image["id"], "category_id": int(label), "bbox": bbox, "score": score})
    return rows


def _evaluate(truth: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    from faster_coco_eval import COCO, COCOeval_faster

    reference = COCO(truth, use_deepcopy=True)
    evaluation = COCOeval_faster(reference, reference.loadRes(rows), "bbox", print_function=lambda *_: None)
    evaluation.params.maxDets = [1, 10, most_detections(truth)]
    evaluation.evaluate()
    evaluation.accumulate()
    result: dict[str, Any] = evaluation.eval
    return result


def _at_best_f1(precision: NDArray[np.float64], scores: NDArray[np.float64]) -> tuple[float, float]:
    """Return mean precision and recall over classes, at the one score for all of them where their mean F1 is best.

    Both are read from COCO's own curve, so recall comes in steps of 0.01.

    Args:
        precision: [R, C] at R steps of recall from 0 to 1, 0 where that recall is not reached.
        scores: [R, C], the score at which that recall is reached, falling.
    """
    if not precision.size:
        return 0.0, 0.0
    recalls = np.linspace(0, 1, len(precision))
    best = (-1.0, 0.0, 0.0)
    for score in np.unique(scores[precision > 0]):
        reached = ((scores >= score) & (precision > 0)).sum(0)
        last = np.maximum(reached - 1, 0)
        at = np.where(reached > 0, np.take_along_axis(precision, last[None], 0)[0], 0.0)
        recall = np.where(reached > 0, recalls[last], 0.0)
        f1 = float((2 * at * recall / np.maximum(at + recall, 1e-9)).mean())
        if f1 > best[0]:
            best = (f1, float(at.mean()), float(recall.mean()))
    return best[1], best[2]
