"""Candidates to detections: suppress overlapping boxes, and map the others back from the letterbox."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from triptych.contract import (
    CANDIDATE_FIELDS,
    DEFAULT_ROWS,
    GEOMETRY_FIELDS,
    IOU_THRESHOLD,
    SCORE_THRESHOLD,
    Truncated,
    check_threshold,
)
from triptych.errors import ContractError
from triptych.opencv import cv2

Floats = NDArray[np.float32]

FIRST_BLOCK, NEXT_BLOCKS = 128, 256
"""How many boxes come to suppression together: the best, and then those after them."""

TINY = float(np.finfo(np.float32).tiny)
"""The smallest number above 0 that a float32 holds in full."""


class Detected(NamedTuple):
    """A batch as it leaves postprocess; rows after an image's count are zero.

    Attributes:
        boxes_xyxy: float32 [n, rows, 4], in the original image's pixels.
        scores: float32 [n, rows], best first.
        labels: int32 [n, rows].
        counts: int32 [n, 1].
        truncated: int32 [n, 1], see `contract.Truncated`.
    """

    boxes_xyxy: Floats
    scores: Floats
    labels: NDArray[np.int32]
    counts: NDArray[np.int32]
    truncated: NDArray[np.int32]


def iou_xyxy(a_xyxy: Floats, b_xyxy: Floats) -> Floats:
    """Return the intersection over union of [N, 4] with [M, 4] as float32 [N, M]; 0 if neither box has an area."""
    _check_shape("a_xyxy", a_xyxy, "(n, 4)", 4)
    _check_shape("b_xyxy", b_xyxy, "(n, 4)", 4)
    # One coordinate at a time: planes [N, M] are several times faster than an array [N, M, 2].
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a_xyxy.T[:, :, None], b_xyxy.T
    width = np.minimum(ax2, bx2) - np.maximum(ax1, bx1)
    height = np.minimum(ay2, by2) - np.maximum(ay1, by1)
    inside = np.maximum(width, 0) * np.maximum(height, 0)
    union = _area(a_xyxy)[:, None] + _area(b_xyxy) - inside
    ratio: Floats = inside / np.maximum(union, TINY)
    return ratio


def _area(boxes_xyxy: Floats) -> Floats:
    sides: Floats = np.maximum(boxes_xyxy[:, 2:] - boxes_xyxy[:, :2], 0)
    area: Floats = sides[:, 0] * sides[:, 1]
    return area


def nms_xyxy(
    boxes_xyxy: Floats,
    scores: Floats,
    labels: NDArray[np.int32] | Floats,
    iou_threshold: float,
    limit: int | None = None,
) -> NDArray[np.int64]:
    """Suppress overlapping boxes of each class greedily.

    The boxes come in blocks, best first. A block is held against the boxes that stay so far by NumPy, which is fast
    with many boxes, and what is left of it against itself by OpenCV, which is fast with few.

    Args:
        boxes_xyxy: [N, 4]; each has an area.
        scores: [N].
        labels: [N].
        iou_threshold: of two boxes of a class that overlap more (to a millionth), the one with the lower score is
            dropped; 1 keeps every box.
        limit: the most boxes that stay; None has no limit.

    Returns:
        The indices of the boxes that stay, best first. Boxes of equal score keep their order.
    """
    order: NDArray[np.int64] = np.argsort(-scores, kind="stable")
    if iou_threshold >= 1 or len(order) < 2:
        return order[:limit]
    boxes_xyxy, labels = boxes_xyxy[order], labels[order]
    kept = order[:0]
    start, size = 0, FIRST_BLOCK
    while start < len(order) and (limit is None or len(kept) < limit):
        block = np.arange(start, min(start + size, len(order)))
        if len(kept):
            overlap = iou_xyxy(boxes_xyxy[kept], boxes_xyxy[block]) > iou_threshold
            block = block[~(overlap & (labels[kept][:, None] == labels[block])).any(0)]
        kept = np.concatenate([kept, block[_without_rivals(boxes_xyxy[block], labels[block], iou_threshold)]])
        start, size = start + size, NEXT_BLOCKS
    best: NDArray[np.int64] = order[kept[:limit]]
    return best


def _without_rivals(boxes_xyxy: Floats, labels: NDArray[np.int32] | Floats, iou_threshold: float) -> list[int]:
    """Return which of N boxes stay; both are best first."""
    boxes_xywh = boxes_xyxy.astype(np.float64)
    boxes_xywh[:, 2:] -= boxes_xywh[:, :2]
    rows = boxes_xywh.tolist()  # OpenCV takes lists several times faster than arrays
    by_class = defaultdict[float, list[int]](list)
    for place, label in enumerate(labels.tolist()):
        by_class[label].append(place)
    kept: list[int] = []
    for places in by_class.values():
        # Of boxes with equal scores, OpenCV takes the first as the best.
        stay = cv2.dnn.NMSBoxes([rows[place] for place in places], [1.0] * len(places), 0, iou_threshold)
        kept += [places[at] for at in stay]
    return sorted(kept)


def letterbox_xyxy(boxes_xyxy: Floats, geometry: Floats) -> Floats:
    """Map boxes [N, 4] from an image's pixels to those of its letterbox, by a row of `geometry` [6]."""
    scale, pad = _scale_and_pad(geometry)
    return (boxes_xyxy * scale + pad).astype(np.float32)


def unletterbox_xyxy(boxes_xyxy: Floats, geometry: Floats) -> Floats:
    """Map boxes [N, 4] from a letterbox's pixels to those of the image, and clip them: undo `letterbox_xyxy`.

    `geometry` is one row [6] for all boxes, or [N, 6] with one for each.
    """
    scale, pad = _scale_and_pad(geometry)
    boxes: Floats = (boxes_xyxy - pad) / scale
    np.maximum(boxes, 0, out=boxes)
    np.minimum(boxes, geometry.take((4, 5, 4, 5), -1), out=boxes)
    return boxes


def _scale_and_pad(geometry: Floats) -> tuple[Floats, Floats]:
    """Return the factors and the offsets of x1, y1, x2 and y2."""
    return geometry.take((0, 1, 0, 1), -1), geometry.take((2, 3, 2, 3), -1)


def postprocess(
    candidates: Floats, geometry: Floats, *, score_threshold: float, iou_threshold: float, rows: int = DEFAULT_ROWS
) -> Detected:
    """Turn the candidates of a batch into detections, in each image's own pixels.

    Args:
        candidates: float32 [n, K, 6], see `CANDIDATE_FIELDS`.
        geometry: float32 [n, 6], see `GEOMETRY_FIELDS`; a row of zeros is an image without detections.
        score_threshold: candidates with a lower score are dropped, 0..1; a score of 0 always is.
        iou_threshold: see `nms_xyxy`.
        rows: how many detections of an image the result can hold.

    Raises:
        ContractError: a shape or a threshold is wrong.
    """
    check_threshold(SCORE_THRESHOLD, score_threshold)
    check_threshold(IOU_THRESHOLD, iou_threshold)
    _check_shape("candidates", candidates, "(n, K, 6)", len(CANDIDATE_FIELDS), dimensions=3)
    _check_shape("geometry", geometry, "(n, 6)", len(GEOMETRY_FIELDS))
    if len(candidates) != len(geometry):
        raise ContractError(f"candidates of {len(candidates)} images came with geometry of {len(geometry)}")
    batch = len(candidates)
    detected = Detected(
        np.zeros((batch, rows, 4), np.float32),
        np.zeros((batch, rows), np.float32),
        np.zeros((batch, rows), np.int32),
        np.zeros((batch, 1), np.int32),
        np.zeros((batch, 1), np.int32),
    )
    confident = candidates[..., 4] >= max(score_threshold, TINY)
    confident[geometry[:, 0] == 0] = False
    if not confident.any():
        return detected
    detected.truncated[confident.all(1)] |= Truncated.CANDIDATES
    # All images at once: a call of NumPy costs about as much for the boxes of four images as for those of one.
    images, places = np.nonzero(confident)
    table = candidates[images, places]
    # A box without an area is none, and overlaps none.
    sound = np.isfinite(table).all(1) & (table[:, 2:4] > table[:, :2]).all(1)
    if not sound.all():
        images, table = images[sound], table[sound]
    boxes_xyxy = unletterbox_xyxy(table[:, :4], geometry[images])
    inside = (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(1)
    ends = np.searchsorted(images, np.arange(batch + 1)).tolist()
    for image, (start, end) in enumerate(pairwise(ends)):
        if start == end:
            continue
        # One more than there are rows shows that there are too many. A box in the border is none, but has a vote.
        limit = rows + 1 + end - start - np.count_nonzero(inside[start:end])
        kept = start + nms_xyxy(table[start:end, :4], table[start:end, 4], table[start:end, 5], iou_threshold, limit)
        kept = kept[inside[kept]]
        if len(kept) > rows:
            detected.truncated[image] |= Truncated.ROWS
            kept = kept[:rows]
        count = detected.counts[image, 0] = len(kept)
        detected.boxes_xyxy[image, :count] = boxes_xyxy[kept]
        detected.scores[image, :count] = table[kept, 4]
        detected.labels[image, :count] = table[kept, 5]
    return detected


def _check_shape(name: str, array: Floats, expected: str, columns: int, dimensions: int = 2) -> None:
    if array.ndim != dimensions or array.shape[-1] != columns:
        raise ContractError(f"{name} must be shape {expected}, but got {array.shape}")
