"""Boxes as arrays: overlap, suppression, the letterbox and its inverse, and the postprocess made of them.

Names carry the format: `xyxy` is x1, y1, x2, y2, with the corners in pixels and x to the right, y down.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from triptych.contract import (
    CANDIDATE_FIELDS,
    GEOMETRY_FIELDS,
    IOU_THRESHOLD,
    MAX_DETECTIONS,
    SCORE_THRESHOLD,
    check_threshold,
)
from triptych.errors import ContractError

__all__ = ["Detected", "iou_xyxy", "letterbox_xyxy", "nms_xyxy", "postprocess", "unletterbox_xyxy"]

_MAX_LABEL = 2**31 - 1


class Detected(NamedTuple):
    """What was found in a batch of n images; rows past `count` are zero.

    Attributes:
        boxes: float32 [n, 100, 4], xyxy in the original images' pixels, inside them; best first.
        scores: float32 [n, 100], in 0..1.
        labels: int32 [n, 100], class ids.
        count: int32 [n, 1], how many rows are filled.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int32]
    count: NDArray[np.int32]  # type: ignore[assignment]  # hides tuple.count, which nobody needs here


def iou_xyxy(a_xyxy: ArrayLike, b_xyxy: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of every box of `a` with every box of `b`; 0 where both have no area.

    Args:
        a_xyxy: [N, 4], finite.
        b_xyxy: [M, 4], finite.

    Returns:
        float64 [N, M], in 0..1.

    >>> iou_xyxy([[0, 0, 2, 2]], [[0, 0, 2, 2], [1, 0, 3, 2]]).round(3)
    array([[1.   , 0.333]])
    """
    a, b = _boxes("a_xyxy", a_xyxy), _boxes("b_xyxy", b_xyxy)
    overlap = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    np.maximum(overlap, 0, out=overlap)
    shared = overlap[..., 0] * overlap[..., 1]
    union = _areas(a)[:, None] + _areas(b)[None, :] - shared
    iou: NDArray[np.float64] = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def nms_xyxy(boxes_xyxy: ArrayLike, scores: ArrayLike, labels: ArrayLike, iou_threshold: float) -> NDArray[np.int64]:
    """Greedy non-maximum suppression within each class.

    The best box is kept and takes with it every box of its class that overlaps it by more than `iou_threshold`;
    then the best of the rest, and so on. Of equal scores the earlier box counts as the better.

    Args:
        boxes_xyxy: [N, 4], finite.
        scores: [N].
        labels: [N], class ids.
        iou_threshold: in 0..1; at 1 nothing is suppressed.

    Returns:
        int64 [M], the indices of the kept boxes, best first.
    """
    boxes = _boxes("boxes_xyxy", boxes_xyxy)
    order: NDArray[np.int64] = np.argsort(-np.asarray(scores, np.float64), kind="stable").astype(np.int64, copy=False)
    if iou_threshold >= 1 or len(order) < 2:
        return order
    boxes, labels = boxes[order], np.asarray(labels)[order]
    clashes = iou_xyxy(boxes, boxes) > iou_threshold
    clashes &= labels[:, None] == labels[None, :]
    alive = np.ones(len(order), bool)
    # A box without a clash besides itself neither suppresses nor is suppressed; most boxes are such.
    for index in np.flatnonzero(np.count_nonzero(clashes, axis=1) > 1).tolist():
        if alive[index]:
            alive[index + 1 :] &= ~clashes[index, index + 1 :]
    kept: NDArray[np.int64] = order[alive]
    return kept


def letterbox_xyxy(boxes_xyxy: ArrayLike, geometry: ArrayLike) -> NDArray[np.float64]:
    """Map boxes from the original image into its letterbox.

    Args:
        boxes_xyxy: [N, 4] in the original's pixels.
        geometry: [6], an `images.Geometry` or a row of `geometry`.

    Returns:
        float64 [N, 4] in letterbox pixels.
    """
    scale, pad, _ = _placement(geometry)
    return _boxes("boxes_xyxy", boxes_xyxy) * scale + pad


def unletterbox_xyxy(boxes_xyxy: ArrayLike, geometry: ArrayLike) -> NDArray[np.float64]:
    """Map boxes from a letterbox into the original image, and clip them to it.

    Args:
        boxes_xyxy: [N, 4] in letterbox pixels.
        geometry: [6], an `images.Geometry` or a row of `geometry`, of an image that was read.

    Returns:
        float64 [N, 4] in the original's pixels, within [0, width] and [0, height].
    """
    scale, pad, limit = _placement(geometry)
    # Written out, since np.clip costs three times as much on so few boxes.
    return np.minimum(np.maximum((_boxes("boxes_xyxy", boxes_xyxy) - pad) / scale, 0), limit)


def postprocess(
    candidates: NDArray[np.float32],
    geometry: NDArray[np.float32],
    *,
    score_threshold: float,
    iou_threshold: float,
) -> Detected:
    """Turn a detector's candidates into detections in the original images' pixels.

    Candidates below `score_threshold`, with a score of 0 (rows that only fill up), with values that are not finite,
    and boxes without area inside the image are left out. Suppression runs on the letterbox's pixels.

    Args:
        candidates: float32 [n, K, 6] as in `contract.CANDIDATE_FIELDS`, with the corners in letterbox pixels.
        geometry: float32 [n, 6] as in `contract.GEOMETRY_FIELDS`; an image whose row is zero gives no detections.
        score_threshold: in 0..1.
        iou_threshold: in 0..1; at 1 nothing is suppressed.

    Raises:
        ContractError: an array has the wrong shape, or a threshold is not in 0..1.
    """
    if candidates.ndim != 3 or candidates.shape[2] != len(CANDIDATE_FIELDS):
        raise ContractError(f"candidates must be shape (n, K, {len(CANDIDATE_FIELDS)}), but got {candidates.shape}")
    images = len(candidates)
    if geometry.shape != (images, len(GEOMETRY_FIELDS)):
        raise ContractError(f"geometry must be shape ({images}, {len(GEOMETRY_FIELDS)}), but got {geometry.shape}")
    score_threshold = check_threshold(SCORE_THRESHOLD, score_threshold)
    iou_threshold = check_threshold(IOU_THRESHOLD, iou_threshold)

    detected = Detected(
        boxes=np.zeros((images, MAX_DETECTIONS, 4), np.float32),
        scores=np.zeros((images, MAX_DETECTIONS), np.float32),
        labels=np.zeros((images, MAX_DETECTIONS), np.int32),
        count=np.zeros((images, 1), np.int32),
    )
    for row, (found, placement) in enumerate(zip(candidates, geometry, strict=True)):
        if not (placement[0] > 0 and placement[1] > 0):
            continue
        scores, labels = found[:, 4], found[:, 5]
        likely = (scores >= score_threshold) & (scores > 0)
        # float64 leaves room for the area of a box as wide as float32 allows.
        survivors = found[likely].astype(np.float64)
        boxes = unletterbox_xyxy(survivors[:, :4], placement)
        sound = (boxes[:, 2:] > boxes[:, :2]).all(axis=1) & np.isfinite(survivors).all(axis=1)
        sound &= (survivors[:, 5] >= 0) & (survivors[:, 5] <= _MAX_LABEL)
        survivors, boxes = survivors[sound], boxes[sound]
        scores, labels = survivors[:, 4], survivors[:, 5]
        kept = nms_xyxy(survivors[:, :4], scores, labels, iou_threshold)[:MAX_DETECTIONS]
        count = len(kept)
        detected.boxes[row, :count] = boxes[kept]
        detected.scores[row, :count] = scores[kept]
        detected.labels[row, :count] = labels[kept]
        detected.count[row] = count
    return detected


def _boxes(name: str, boxes_xyxy: ArrayLike) -> NDArray[np.float64]:
    """As float64 [N, 4]; the empty list counts as no boxes."""
    boxes: NDArray[np.float64] = np.asarray(boxes_xyxy, np.float64)
    if boxes.shape == (0,):
        return boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ContractError(f"{name} must be shape (N, 4), but got {boxes.shape}")
    return boxes


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    areas: NDArray[np.float64] = sides[:, 0] * sides[:, 1]
    return areas


def _placement(geometry: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Scale, padding and the original's size, each float64 [4] for x1, y1, x2, y2."""
    row: NDArray[np.float64] = np.asarray(geometry, np.float64)
    if row.shape != (len(GEOMETRY_FIELDS),):
        raise ContractError(f"geometry must be shape ({len(GEOMETRY_FIELDS)},), but got {row.shape}")
    return row[[0, 1, 0, 1]], row[[2, 3, 2, 3]], row[[4, 5, 4, 5]]
