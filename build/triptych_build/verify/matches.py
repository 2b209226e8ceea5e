"""Which detections are right, image by image, and every figure of the gate over any resample of the images.

Detections are matched as COCO does. What `metrics.accuracy` says of a whole set, `average_precisions` says of as many
resamples of it as are asked for: an image that is drawn twice counts twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.vision.boxes import iou_xyxy
from triptych_build.verify.metrics import Predictions, most_detections

IOUS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)

Counts = NDArray[np.int64]
Reals = NDArray[np.float64]


@dataclass(frozen=True)
class ClassMatches:
    """The detections of one class, best first, and whether they are right.

    Attributes:
        images: int [D], the index of each detection's image.
        scores: float32 [D].
        is_right: bool [10, D], at each of `IOUS`.
        is_ignored: bool [10, D]: it lies in a crowd, and counts neither as right nor as wrong.
        boxes: int [images], boxes of the truth without crowds.
    """

    images: Counts
    scores: NDArray[np.float32]
    is_right: NDArray[np.bool_]
    is_ignored: NDArray[np.bool_]
    boxes: Counts


def match(truth: dict[str, Any], predictions: Sequence[Predictions]) -> dict[int, ClassMatches]:
    """Match detections with a COCO document, class by class; only classes with detections or boxes are there.

    Args:
        truth: see `truth.Dataset`.
        predictions: one for each image, in the order of truth["images"].
    """
    index = {image["id"]: number for number, image in enumerate(truth["images"])}
    rows = defaultdict(list)
    for row in truth["annotations"]:
        rows[row["category_id"], index[row["image_id"]]].append(row)
    most = most_detections(truth)
    parts: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    boxes: dict[int, Counts] = defaultdict(lambda: np.zeros(len(index), np.int64))
    for (label, image), there in rows.items():
        boxes[label][image] = sum(not row["iscrowd"] for row in there)
    for image, (boxes_xyxy, scores, labels) in enumerate(predictions):
        for label in np.unique(labels).tolist():
            best = np.flatnonzero(labels == label)
            best = best[np.argsort(-scores[best], kind="stable")][:most]
            right, ignored = _match_image(boxes_xyxy[best], rows.get((label, image), []))
            parts[label].append((np.full(len(best), image), scores[best], right, ignored))
    return {label: _join(parts[label], boxes[label]) for label in sorted(parts.keys() | boxes.keys())}


def _join(parts: list[tuple[Any, ...]], boxes: Counts) -> ClassMatches:
    if not parts:
        nothing = np.zeros((len(IOUS), 0), bool)
        return ClassMatches(np.zeros(0, np.int64), np.zeros(0, np.float32), nothing, nothing, boxes)
    images, scores, right, ignored = (np.concatenate([part[column] for part in parts], axis=-1) for column in range(4))
    order = np.argsort(-scores, kind="stable")
    return ClassMatches(images[order], scores[order], right[:, order], ignored[:, order], boxes)


def _match_image(
    boxes_xyxy: NDArray[np.float32], rows: Sequence[dict[str, Any]]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which detections of a class in an image, best first, are right and which lie in a crowd: bool [10, D]."""
    right = np.zeros((len(IOUS), len(boxes_xyxy)), bool)
    ignored = right.copy()
    if not rows:
        return right, ignored
    is_crowd = np.array([bool(row["iscrowd"]) for row in rows])
    x, y, w, h = np.array([row["bbox"] for row in rows], np.float64).T
    theirs = np.stack([x, y, x + w, y + h], 1)
    overlaps = _overlaps(boxes_xyxy.astype(np.float64), theirs, is_crowd)
    at_least = np.minimum(IOUS, 1 - 1e-10)
    is_taken = np.zeros((len(IOUS), len(rows)), bool)
    for number in np.flatnonzero(overlaps.max(1) >= at_least[0]):
        free = np.where(is_taken | is_crowd, -1.0, overlaps[number])
        # Of equal overlaps COCO takes the last.
        chosen = len(rows) - 1 - free[:, ::-1].argmax(1)
        fits = free[np.arange(len(IOUS)), chosen] >= at_least
        right[fits, number] = True
        is_taken[fits, chosen[fits]] = True
        if is_crowd.any():
            ignored[:, number] = ~fits & (overlaps[number, is_crowd].max() >= at_least)
    return right, ignored


def _overlaps(ours: Reals, theirs: Reals, is_crowd: NDArray[np.bool_]) -> Reals:
    """Return IoU [D, G]; of a crowd, the part of our box that lies in it."""
    corners = np.maximum(ours[:, None, :2], theirs[None, :, :2]), np.minimum(ours[:, None, 2:], theirs[None, :, 2:])
    inside = (corners[1] - corners[0]).clip(0).prod(2)
    own, other = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (ours, theirs))
    union = np.where(is_crowd, own[:, None], own[:, None] + other - inside)
    ratio: Reals = np.divide(inside, union, out=np.zeros_like(inside), where=union > 0)
    return ratio


def average_precisions(matches: ClassMatches, times: Counts) -> Reals:
    """Return AP [B, 10] at each of `IOUS`, over B resamples of the images; NaN where one holds no box of the class.

    Args:
        matches: of the class.
        times: int [B, images], how often each image was drawn.
    """
    positives = times @ matches.boxes
    drawn = times[:, matches.images]
    needed = _boxes_needed(positives)
    ap = np.full((len(times), len(IOUS)), np.nan)
    for at in range(len(IOUS)):
        right = matches.is_right[at]
        found = np.cumsum(drawn[:, right], 1)
        wrong = np.cumsum(np.where(right | matches.is_ignored[at], 0, drawn), 1)[:, right]
        precision = found / np.maximum(found + wrong, 1)
        # The best precision at this recall or a higher one, and none where it is not reached.
        envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        envelope = np.pad(envelope, [(0, 0), (0, 1)])
        # One search for all resamples: each has a range of numbers of its own.
        apart = np.arange(len(times))[:, None] * (max(found.max(initial=0), needed.max()) + 1)
        steps = np.searchsorted((found + apart).ravel(), (needed + apart).ravel()).reshape(needed.shape)
        steps -= np.arange(len(times))[:, None] * found.shape[1]
        ap[:, at] = np.take_along_axis(envelope, steps, 1).mean(1)
    ap[positives == 0] = np.nan
    return ap


def _boxes_needed(positives: Counts) -> Counts:
    """Return how many boxes must be found to reach each of `RECALLS`, int [B, 101]."""
    of = np.maximum(positives, 1)[:, None]
    needed: Counts = np.ceil(RECALLS * of).astype(np.int64)
    needed -= (needed - 1) / of >= RECALLS  # the same division as COCO's
    needed += needed / of < RECALLS
    return needed


def at_threshold(matches: dict[int, ClassMatches], score_threshold: float, times: Counts) -> tuple[Reals, Reals]:
    """Return precision and recall [B] at a score and IoU 0.5, over all detections and boxes of each resample."""
    found, given, boxes = (np.zeros(len(times)) for _ in range(3))
    for one in matches.values():
        counts = (one.scores >= score_threshold) & ~one.is_ignored[0]
        drawn = times[:, one.images[counts]]
        found += drawn[:, one.is_right[0][counts]].sum(1)
        given += drawn.sum(1)
        boxes += times @ one.boxes
    return found / np.maximum(given, 1), found / np.maximum(boxes, 1)


def score_changes(
    expected: Sequence[Predictions], detected: Sequence[Predictions], score_threshold: float
) -> dict[int, tuple[Reals, Counts]]:
    """Return, by class and for each image, the sum of what scores changed by, and of how many detections.

    The source's detections from the threshold on are compared with the best overlap of their class, from IoU 0.5 on.
    """
    changes: dict[int, tuple[Reals, Counts]] = {}
    for image, (one, other) in enumerate(zip(expected, detected, strict=True)):
        sure = one.scores >= score_threshold
        if not sure.any() or not len(other.scores):
            continue
        overlaps = iou_xyxy(one.boxes_xyxy[sure], other.boxes_xyxy) * (one.labels[sure][:, None] == other.labels)
        has_match = overlaps.max(1) >= 0.5
        change = other.scores[overlaps[has_match].argmax(1)] - one.scores[sure][has_match]
        for label, by in zip(one.labels[sure][has_match].tolist(), change.tolist(), strict=True):
            sums, counts = changes.setdefault(label, (np.zeros(len(expected)), np.zeros(len(expected), np.int64)))
            sums[image] += by
            counts[image] += 1
    return changes


def resamples(images: int, count: int, seed: int = 0) -> Counts:
    """Return how often each image is drawn, int [1 + count, images]: once in the first row, at random in the others."""
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), count)
    return np.concatenate([np.ones((1, images), np.int64), drawn])
