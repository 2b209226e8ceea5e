"""The heads with objectness [N, A, 5 + C]: columns cx, cy, w, h in pixels, objectness, then C class scores.

YOLOX does not decode its grid; its tail does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych_build.adapt.heads.head import (
    CORNERS,
    HALF,
    STRIDES,
    Head,
    Normalization,
    Source,
    Tail,
    constants_of,
    ints,
    reduce_max,
)


def _has_objectness(source: Source) -> bool:
    if len(source.outputs) != 1 or len(source.outputs[0].shape) != 3:
        return False
    _, anchors, columns = source.outputs[0].shape
    # Three anchors a cell in YOLOv5 and v7, one in a decoded YOLOX; a single class is [N, A, 6], as end to end is too.
    return columns is not None and columns > 5 and anchors in (source.cells, 3 * source.cells)


def _is_yolox(source: Source) -> bool:
    """Return whether there is one anchor a cell and no exponential in the graph: the grid is not decoded yet."""
    return _has_objectness(source) and source.outputs[0].shape[1] == source.cells and "Exp" not in source.operators


def _objectness_class_count(source: Source) -> int:
    return (source.outputs[0].shape[2] or 0) - 5


DECODED = """
        center = Slice (kept, at0, at2, axis2)
        size = Slice (kept, at2, at4, axis2)"""

GRID_DECODE = """
        cell = Gather <axis = 0> (grid, anchor)
        offset = Slice (kept, at0, at2, axis2)
        log_size = Slice (kept, at2, at4, axis2)
        corner = Slice (cell, at0, at2, axis2)
        stride = Slice (cell, at2, at3, axis2)
        center_cells = Add (offset, corner)
        center = Mul (center_cells, stride)
        size_cells = Exp (log_size)
        size = Mul (size_cells, stride)"""


def _objectness_tail(source: Source, candidates: int, decode: str = DECODED, **constants: NDArray[Any]) -> Tail:
    _, anchors, columns = source.outputs[0].shape
    assert anchors is not None
    assert columns is not None
    k = min(candidates, anchors)
    statements = f"""
        objectness = Slice (raw0, at4, at5, axis2)
        all_scores = Slice (raw0, at5, at{columns}, axis2)
        {reduce_max("best_class", "all_scores", 2, source.opset)}
        objectness_row = Squeeze (objectness, axis2)
        best = Mul (best_class, objectness_row)
        score, anchor = TopK <axis = 1, sorted = 1> (best, k)
        anchor_column = Unsqueeze (anchor, axis2)
        anchor_columns = Expand (anchor_column, every_column)
        kept = GatherElements <axis = 1> (raw0, anchor_columns)
        {decode}
        {CORNERS}
        kept_scores = Slice (kept, at5, at{columns}, axis2)
        class_id = ArgMax <axis = 2, keepdims = 1> (kept_scores)
        class = Cast <to = 1> (class_id)
        score_column = Unsqueeze (score, axis2)
        candidates = Concat <axis = 2> (top_left, bottom_right, score_column, class)
    """
    every_column = ints(1, 1, columns)
    positions = (0, 2, 3, 4, 5, columns)
    return Tail(
        statements, constants_of(*positions, k=ints(k), every_column=every_column, one_half=HALF, **constants), k
    )


def yolox_grid(width: int, height: int) -> NDArray[np.float32]:
    """Return column, row and stride of each anchor of YOLOX, float32 [A, 3], in the order of its output."""
    cells = []
    for stride in STRIDES:
        row, column = np.mgrid[: height // stride, : width // stride].reshape(2, -1)
        cells.append(np.stack([column, row, np.full_like(row, stride)], axis=1))
    return np.concatenate(cells, dtype=np.float32)


def _yolox_tail(source: Source, candidates: int) -> Tail:
    return _objectness_tail(source, candidates, GRID_DECODE, grid=yolox_grid(source.width, source.height))


YOLOX = Head(
    name="yolox",
    description="[N, anchors, 5 + classes] before its grid decode (YOLOX)",
    matches=_is_yolox,
    class_count=_objectness_class_count,
    tail=_yolox_tail,
    normalization=Normalization(order="bgr", scale=1.0),
    placement="top_left",
    iou_threshold=0.45,
)


OBJECTNESS = Head(
    name="objectness",
    description="[N, anchors, 5 + classes] (YOLOv5, YOLOv7)",
    matches=_has_objectness,
    class_count=_objectness_class_count,
    tail=_objectness_tail,
    iou_threshold=0.45,
)
