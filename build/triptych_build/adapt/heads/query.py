"""The head of DETR's descendants: boxes [N, Q, 4] cx, cy, w, h in 0..1 of the image, and class logits [N, Q, C]."""

from __future__ import annotations

import numpy as np

from triptych_build.adapt.heads.head import CORNERS, HALF, ONCE, Head, Output, Source, Tail, constants_of, ints


def _is_query(source: Source) -> bool:
    if len(source.outputs) != 2 or any(len(output.shape) != 3 for output in source.outputs):
        return False
    boxes, logits = _query_outputs(source)
    return boxes.shape[2] == 4 and logits.shape[2] is not None and boxes.shape[1] == logits.shape[1] is not None


def _query_outputs(source: Source) -> tuple[Output, Output]:
    """Return boxes and logits, whichever comes first; of two tables of four columns, the boxes are called so."""
    first, second = source.outputs
    if second.shape[2] == 4 and (first.shape[2] != 4 or "box" in second.name):
        return second, first
    return first, second


def _query_class_count(source: Source) -> int:
    return _query_outputs(source)[1].shape[2] or 0


def _query_tail(source: Source, candidates: int) -> Tail:
    boxes, logits = _query_outputs(source)
    queries, classes = logits.shape[1:]
    assert queries is not None
    assert classes is not None
    k = min(candidates, queries * classes)
    raw_boxes, raw_logits = (f"raw{source.outputs.index(output)}" for output in (boxes, logits))
    statements = f"""
        flat = Reshape ({raw_logits}, flat_shape)
        top_logit, index = TopK <axis = 1, sorted = 1> (flat, k)
        score = {"Identity" if logits.producer in ("Sigmoid", "Softmax") else "Sigmoid"} (top_logit)
        query = Div (index, classes)
        first_of_query = Mul (query, classes)
        class_id = Sub (index, first_of_query)
        query_column = Unsqueeze (query, axis2)
        query_columns = Expand (query_column, every_column)
        kept = GatherElements <axis = 1> ({raw_boxes}, query_columns)
        pixels_kept = Mul (kept, image_size)
        center = Slice (pixels_kept, at0, at2, axis2)
        size = Slice (pixels_kept, at2, at4, axis2)
        {CORNERS}
        class_float = Cast <to = 1> (class_id)
        class = Unsqueeze (class_float, axis2)
        score_column = Unsqueeze (score, axis2)
        candidates = Concat <axis = 2> (top_left, bottom_right, score_column, class)
    """
    constants = constants_of(
        *(0, 2, 4),
        k=ints(k),
        classes=np.array(classes, dtype=np.int64),
        flat_shape=ints(0, queries * classes),
        every_column=ints(1, 1, 4),
        image_size=np.array([source.width, source.height] * 2, dtype=np.float32),
        one_half=HALF,
    )
    return Tail(statements, constants, k)


QUERY = Head(
    name="query",
    description="[N, queries, 4] and [N, queries, classes] (RT-DETR, D-FINE, RF-DETR)",
    matches=_is_query,
    class_count=_query_class_count,
    tail=_query_tail,
    placement="stretch",
    iou_threshold=1.0,
    candidates=ONCE,
)
