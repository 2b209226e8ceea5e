"""Heads of two tables: boxes [N, Q, 4], and a number for each class [N, Q, C] or its transpose.

A few hundred queries see each object once (DETR's descendants): every pair of query and class is a candidate. Thousands
of anchors see it many times (YOLO-NAS, DAMO-YOLO): each has one class.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from triptych_build.adapt.heads.head import (
    IMAGENET,
    MOST_QUERIES,
    ONCE,
    Boxes,
    Habits,
    Head,
    Normalization,
    Output,
    Reading,
    Source,
    Tail,
    Unit,
    activated,
    corners,
    ints,
    positions,
)
from triptych_build.adapt.heads.table import Table, table_tail
from triptych_build.adapt.heads.values import box_reading, score_reading

LARGEST_LOGIT = 50.0
"""Of scores and what becomes scores; boxes in pixels reach further."""

COCO_WITH_NO_OBJECT = 92
"""Classes of DETR and YOLOS on COCO: ids up to 90, and "no object"."""


DEFORMABLE = frozenset({"GridSample", "TopK", "Log"})
"""Operators of a sigmoid's families: deformable attention, a first stage, and boxes that each layer refines. DETR and
YOLOS have none of them."""


class _Pair(NamedTuple):
    """Boxes, classes, and the axis of the classes' columns."""

    boxes: Output
    classes: Output
    axis: int


def _pair(source: Source) -> _Pair | None:
    """Return boxes and classes, whichever comes first.

    Of two tables of four columns, the boxes have numbers that no logit reaches, or else are called so.
    """
    if len(source.outputs) != 2 or any(len(output.shape) != 3 for output in source.outputs):
        return None
    first, second = source.outputs
    if second.shape[2] == 4 and (first.shape[2] != 4 or _are_boxes(second, first)):
        first, second = second, first
    if first.shape[2] != 4 or first.shape[1] is None or None in second.shape[1:]:
        return None
    for axis in (2, 1):
        if second.shape[3 - axis] == first.shape[1]:
            return _Pair(first, second, axis)
    return None


def _are_boxes(one: Output, other: Output) -> bool:
    large = [any(np.abs(rows).max(initial=0) > LARGEST_LOGIT for rows in output.tables()) for output in (one, other)]
    return large[0] if large[0] != large[1] else "box" in one.name.lower()


def _found(source: Source) -> _Pair:
    pair = _pair(source)
    assert pair is not None
    return pair


def _count(source: Source) -> int:
    return _found(source).boxes.shape[1] or 0


def _columns(source: Source) -> int:
    pair = _found(source)
    return pair.classes.shape[pair.axis] or 0


def _read(source: Source) -> Reading:
    pair = _found(source)
    # Transformers calls the boxes so.
    is_plain_detr = pair.boxes.name == "pred_boxes" and not source.operators & DEFORMABLE
    hint = is_plain_detr or _columns(source) == COCO_WITH_NO_OBJECT
    usual: tuple[Boxes, Unit] = ("corners", "pixels")
    if _count(source) <= MOST_QUERIES:
        usual = ("centers", "fractions")
    # What a sigmoid gives are centres and sizes: corners take a sum and a difference.
    tables = [] if pair.boxes.producer == "Sigmoid" else pair.boxes.tables()
    boxes, unit = box_reading(tables, usual, source.size)
    return Reading(boxes, unit, *score_reading(pair.classes.tables(pair.axis), source.classes, hint_softmax=hint))


def _class_count(source: Source, reading: Reading) -> int:
    return _columns(source) - (reading.no_object != "none")


def _query_tail(source: Source, reading: Reading, candidates: int) -> Tail:
    pair = _found(source)
    queries, columns, classes = _count(source), _columns(source), _class_count(source, reading)
    k = min(candidates, queries * classes)
    start = int(reading.no_object == "first")
    box_statements, box_constants = corners("xyxy", "kept", reading, source)
    raw_boxes, raw_classes = (f"raw{source.outputs.index(output)}" for output in pair[:2])
    # A sigmoid keeps the order, so that only the best need it; a softmax is over all classes of a query.
    is_early = reading.activation == "softmax"
    statements = f"""
        logits = {"Transpose <perm = [0, 2, 1]>" if pair.axis == 1 else "Identity"} ({raw_classes})
        {activated("all_columns", "logits", reading.activation if is_early else "none")}
        classes_only = Slice (all_columns, at{start}, at{start + classes}, axis2)
        flat = Reshape (classes_only, flat_shape)
        top, index = TopK <axis = 1, sorted = 1> (flat, k)
        {activated("score", "top", "none" if is_early else reading.activation)}
        query = Div (index, classes)
        first_of_query = Mul (query, classes)
        class_id = Sub (index, first_of_query)
        query_column = Unsqueeze (query, axis2)
        query_columns = Expand (query_column, every_column)
        kept = GatherElements <axis = 1> ({raw_boxes}, query_columns)
        {box_statements}
        class_float = Cast <to = 1> (class_id)
        class = Unsqueeze (class_float, axis2)
        score_column = Unsqueeze (score, axis2)
        candidates = Concat <axis = 2> (xyxy, score_column, class)
    """
    if classes == columns:
        statements = statements.replace(
            f"classes_only = Slice (all_columns, at{start}, at{start + classes}, axis2)",
            "classes_only = Identity (all_columns)",
        )
    constants = positions(start, start + classes) | {
        "k": ints(k),
        "classes": np.array(classes, dtype=np.int64),
        "flat_shape": ints(0, queries * classes),
        "every_column": ints(1, 1, 4),
    }
    return Tail(statements, constants | box_constants, k)


def _split_tail(source: Source, reading: Reading, candidates: int) -> Tail:
    """Return the tail of a table of boxes and classes side by side."""
    pair = _found(source)
    boxes, classes = (f"raw{source.outputs.index(output)}" for output in pair[:2])
    before = f"columns = {'Transpose <perm = [0, 2, 1]>' if pair.axis == 1 else 'Identity'} ({boxes})\n"
    activation = f"Softmax <axis = {pair.axis}>" if reading.activation == "softmax" else "Identity"
    before += f"scores_all = {activation} ({classes})\ntable = Concat <axis = {pair.axis}> (columns, scores_all)"
    if reading.activation == "softmax":
        reading = Reading(reading.boxes, reading.unit, "none", reading.no_object)
    table = Table(pair.axis, _count(source), 4 + _columns(source), (), 0)
    return table_tail(source, reading, candidates, table, before=before)


def _query_habits(source: Source, reading: Reading) -> Habits:
    """Return those of DETR's descendants: who has ImageNet's mean and deviation shows it in the graph."""
    names = {output.name for output in source.outputs}
    is_rf_detr = names == {"dets", "labels"}
    is_detr = "pred_boxes" in names and "TopK" not in source.operators
    is_imagenet = reading.no_object != "none" or is_rf_detr or is_detr
    return Habits(1.0, ONCE, IMAGENET if is_imagenet else Normalization(), placement="stretch")


def _split_habits(_source: Source, reading: Reading) -> Habits:
    return Habits(0.7, placement="stretch" if reading.unit == "fractions" else "center")


QUERY = Head(
    name="query",
    description="[N, queries, 4] and [N, queries, classes] (DETR, YOLOS, RT-DETR, D-FINE, RF-DETR)",
    fits=lambda source: _pair(source) is not None,
    matches=lambda source: _pair(source) is not None and _count(source) <= MOST_QUERIES,
    read=_read,
    class_count=_class_count,
    tail=_query_tail,
    habits=_query_habits,
)

SPLIT = Head(
    name="split",
    description="[N, anchors, 4] and [N, anchors, classes] or its transpose (YOLO-NAS, DAMO-YOLO, PP-YOLOE)",
    fits=lambda source: _pair(source) is not None,
    matches=lambda source: _pair(source) is not None,
    read=_read,
    class_count=_class_count,
    tail=_split_tail,
    habits=_split_habits,
)
