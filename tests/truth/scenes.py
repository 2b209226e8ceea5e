"""Scenes and detectors whose accuracy is planted: which boxes are found, how sure, how well, and what is made up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from triptych_build.verify.metrics import Predictions

Floats = npt.NDArray[np.float64]

SIDE_PX = 640
CELL_PX = 80
"""Objects lie in cells of their own, so that which detection is of which object is beyond doubt."""

CELLS = (SIDE_PX // CELL_PX) ** 2
THRESHOLD = 0.25


@dataclass(frozen=True)
class Scenes:
    """What images show.

    Attributes:
        objects: in an image, on average.
        class_shares: of the objects; they add up to 1.
        difficulty: standard deviation of how hard an image is, so that what is missed comes in bunches.
    """

    objects: float = 7.0
    class_shares: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)
    difficulty: float = 0.5


@dataclass(frozen=True)
class Detector:
    """How the source errs, and how the deployed detector errs beyond that.

    Attributes:
        recall: share of the objects that the source finds at the served threshold, on average.
        made_up: detections of nothing in an image, on average.
        loss: share of what the source finds that the deployed detector does not.
        lost_class: the class that alone is lost; None: all of them.
        gain: detections of nothing in an image that only the deployed detector has.
        score_change: added to the scores.
        noise: standard deviation of what else the scores differ by.
        grown: by which share the deployed boxes are larger.
        jitter_px: standard deviation of what the corners differ by.
    """

    recall: float = 0.9
    made_up: float = 1.0
    loss: float = 0.0
    lost_class: int | None = None
    gain: float = 0.0
    score_change: float = 0.0
    noise: float = 0.005
    grown: float = 0.0
    jitter_px: float = 0.2


@dataclass(frozen=True)
class Labelled:
    """Images, and what the two detectors say of them.

    Attributes:
        truth: the labels, as a COCO document.
        source: of the source, one for each image.
        deployed: of the deployed detector.
    """

    truth: dict[str, Any]
    source: list[Predictions]
    deployed: list[Predictions]


def draw(scenes: Scenes, detector: Detector, images: int, seed: int) -> Labelled:
    """Draw images at random, and detect in them."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    source, deployed = [], []
    for image in range(1, images + 1):
        count = min(int(rng.poisson(scenes.objects)), CELLS // 2)
        made_up, gained = (min(int(rng.poisson(mean)), CELLS // 4) for mean in (detector.made_up, detector.gain))
        cells = rng.choice(CELLS, count + made_up + gained, replace=False)
        labels = rng.choice(len(scenes.class_shares), len(cells), p=scenes.class_shares)
        boxes = _boxes(rng, cells)
        for box, label in zip(boxes[:count], labels, strict=False):
            annotations.append(_annotation(len(annotations) + 1, image, int(label), box))
        is_object = np.arange(len(cells)) < count
        is_gained = np.arange(len(cells)) >= count + made_up
        # How hard an image is moves how many of its objects are found, about the same mean.
        ease = rng.normal(0, scenes.difficulty)
        found = rng.random(len(cells)) < np.where(is_object, _at_ease(detector.recall, ease), 1.0)
        scores = np.where(is_object, rng.beta(6, 2, len(cells)), rng.beta(2, 3, len(cells)))
        scores = np.where(found, THRESHOLD + 0.05 + (0.9 - THRESHOLD) * scores, 0.01 + 0.15 * scores)
        near = boxes + rng.normal(0, 2, boxes.shape)
        source.append(_predictions(near, scores, labels, ~is_gained))
        is_exposed = is_object & (True if detector.lost_class is None else labels == detector.lost_class)
        lost = is_exposed & found & (rng.random(len(cells)) < detector.loss)
        changed = scores + detector.score_change + rng.normal(0, detector.noise, len(cells))
        theirs = _grown(near, detector.grown) + rng.normal(0, detector.jitter_px, boxes.shape)
        deployed.append(_predictions(theirs, changed.clip(0.002, 1), labels, ~lost))
    document = {
        "images": [{"id": number, "file_name": f"{number}.jpg"} for number in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": number, "name": f"class {number}"} for number in range(len(scenes.class_shares))],
    }
    return Labelled(document, source, deployed)


def _annotation(number: int, image: int, label: int, box: Floats) -> dict[str, Any]:
    left, top, right, bottom = map(float, box)
    size = {"bbox": [left, top, right - left, bottom - top], "area": (right - left) * (bottom - top), "iscrowd": 0}
    return {"id": number, "image_id": image, "category_id": label, **size}


def _boxes(rng: np.random.Generator, cells: npt.NDArray[np.int64]) -> Floats:
    """Return a box in the middle of each cell: float [n, 4]."""
    middle = CELL_PX * (np.stack([cells % (SIDE_PX // CELL_PX), cells // (SIDE_PX // CELL_PX)], 1) + 0.5)
    half = rng.uniform(12, 34, (len(cells), 2))
    return np.hstack([middle - half, middle + half])


def _at_ease(share: float, ease: float) -> float:
    """Return a share moved on the scale of log odds."""
    odds = share / (1 - share) * np.exp(ease)
    return float(odds / (1 + odds))


def _grown(boxes: Floats, by: float) -> Floats:
    middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (1 + by) * (boxes[:, 2:] - boxes[:, :2]) / 2
    return np.hstack([middle - half, middle + half])


def _predictions(
    boxes: Floats, scores: Floats, labels: npt.NDArray[np.int64], is_there: npt.NDArray[np.bool_]
) -> Predictions:
    return Predictions(
        boxes[is_there].astype(np.float32), scores[is_there].astype(np.float32), labels[is_there].astype(np.int32)
    )
