"""Heads of finished rows, one for each object: a box, its score and its label, in one output, in two or in three."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from triptych_build.adapt.heads.head import (
    ONCE,
    Habits,
    Head,
    Normalization,
    Output,
    Reading,
    Source,
    Tail,
    corners,
    ints,
    is_paddle,
    positions,
)
from triptych_build.adapt.heads.values import are_scores, box_reading


@dataclass(frozen=True)
class Columns:
    """Where a row has its box (four columns), its score and its label."""

    box: int
    score: int
    label: int


ORDERS = {
    6: (Columns(0, 4, 5), Columns(0, 5, 4), Columns(2, 1, 0)),
    7: (Columns(1, 6, 5), Columns(1, 5, 6)),
}
"""Orders of columns, by their number, the usual one first. The first of seven is the number of the image."""


def _table(source: Source) -> tuple[Output, int, int] | None:
    """Return the one table of rows, the axis of its columns and their number; None if there is none."""
    if len(source.outputs) != 1 or len(source.outputs[0].shape) != 3:
        return None
    output = source.outputs[0]
    for axis in (2, 1):
        columns = output.shape[axis]
        if columns in ORDERS and (output.shape[3 - axis] is None or output.shape[3 - axis] != columns):
            return output, axis, columns
    return None


def _usual(output: Output, columns: int) -> Columns:
    """Return the order of an exporter that is known by the output's name, or else the most usual one."""
    orders = ORDERS[columns]
    is_named = is_paddle(output.name) if columns == 6 else "flat_predictions" in output.name  # as YOLO-NAS calls it
    return orders[-1 if is_named else 0]


def _order(source: Source) -> Columns | None:
    """Return the first order in which labels are whole and scores are in 0..1; None if there is none.

    Where no image has a row, it is the exporter's.
    """
    found = _table(source)
    if found is None:
        return None
    output, axis, count = found
    rows = output.rows(axis)
    if not len(rows):
        return _usual(output, count)
    for order in ORDERS[count]:
        labels, scores = rows[:, order.label], rows[:, order.score]
        # Scores of 0 and 1 only would be labels, unless these go further: what was trained on 0..1 is sure of 0..255.
        is_whole = np.array_equal(labels, np.round(labels)) and not (labels < -1).any()
        are_ids = len(scores) > 1 and (scores == np.round(scores)).all() and not (labels > 1).any()
        if is_whole and are_scores(scores) and not are_ids:
            return order
    return None


def _read_rows(source: Source) -> Reading:
    found, order = _table(source), _order(source)
    assert found is not None
    output, axis, count = found
    at = (order or _usual(output, count)).box
    boxes = [rows[:, at : at + 4] for rows in output.tables(axis)]
    # Rows in 0..1 are of DETR's descendants (RT-DETR of Ultralytics).
    return Reading(*box_reading(boxes, ("corners", "pixels"), source.size, in_fractions="centers"))


def _rows_tail(source: Source, reading: Reading, candidates: int) -> Tail:
    found, order = _table(source), _order(source)
    assert found is not None
    output, axis, count = found
    order = order or _usual(output, count)
    statements = f"""
        table = {"Transpose <perm = [0, 2, 1]>" if axis == 1 else "Identity"} (raw0)
        box = Slice (table, at{order.box}, at{order.box + 4}, axis2)
        score_column = Slice (table, at{order.score}, at{order.score + 1}, axis2)
        class = Slice (table, at{order.label}, at{order.label + 1}, axis2)"""
    places = (place + step for place in (order.score, order.label) for step in (0, 1))
    tail = _best_rows_tail(source, reading, statements, output.shape[3 - axis], candidates)
    return Tail(tail.statements, tail.constants | positions(order.box, order.box + 4, *places), tail.candidates)


def _best_rows_tail(source: Source, reading: Reading, before: str, count: int | None, candidates: int) -> Tail:
    """Return the best of `box` [N, count, 4], `score_column` and `class` [N, count, 1].

    Where only running tells the count, empty rows are added first.
    """
    k = candidates if count is None else min(candidates, count)
    box_statements, box_constants = corners("xyxy", "box", reading, source)
    filling = """
        shape = Shape (all_rows)
        batch = Slice (shape, at0, at1, axis0)
        empty_shape = Concat <axis = 0> (batch, empty_rows)
        empty = ConstantOfShape (empty_shape)
        rows = Concat <axis = 1> (all_rows, empty)"""
    statements = f"""
        {before}
        {box_statements}
        all_rows = Concat <axis = 2> (xyxy, score_column, class)
        {filling if count is None else "rows = Identity (all_rows)"}
        scores_only = Slice (rows, at4, at5, axis2)
        scores = Squeeze (scores_only, axis2)
        score, best = TopK <axis = 1, sorted = 1> (scores, k)
        best_column = Unsqueeze (best, axis2)
        best_columns = Expand (best_column, every_column)
        candidates = GatherElements <axis = 1> (rows, best_columns)
    """
    constants = positions(0, 1, 4, 5) | {"k": ints(k), "every_column": ints(1, 1, 6), "empty_rows": ints(k, 6)}
    return Tail(statements, constants | box_constants, k)


def _no_class_count(_source: Source, _reading: Reading) -> None:
    """Return None: the head carries class ids and does not say how many classes there are."""


def _rows_habits(_source: Source, reading: Reading) -> Habits:
    return Habits(1.0, ONCE, placement="stretch" if reading.unit == "fractions" else "center")


# --- dets and labels ---------------------------------------------------------------------------------------------


def _dets_and_labels(source: Source) -> tuple[Output, Output] | None:
    if len(source.outputs) != 2:
        return None
    dets, labels = sorted(source.outputs, key=lambda output: -len(output.shape))
    return (dets, labels) if len(dets.shape) == 3 and dets.shape[2] == 5 and len(labels.shape) == 2 else None


def _read_dets(source: Source) -> Reading:
    found = _dets_and_labels(source)
    assert found is not None
    return Reading(*box_reading([rows[:, :4] for rows in found[0].tables()], ("corners", "pixels"), source.size))


def _dets_tail(source: Source, reading: Reading, candidates: int) -> Tail:
    found = _dets_and_labels(source)
    assert found is not None
    dets, labels = (f"raw{source.outputs.index(output)}" for output in found)
    statements = f"""
        class_row = Cast <to = 1> ({labels})
        class = Unsqueeze (class_row, axis2)
        box = Slice ({dets}, at0, at4, axis2)
        score_column = Slice ({dets}, at4, at5, axis2)"""
    return _best_rows_tail(source, reading, statements, found[0].shape[1], candidates)


# --- boxes, scores and labels ------------------------------------------------------------------------------------


def _boxes_scores_labels(source: Source) -> tuple[Output, Output, Output] | None:
    """Return the outputs in that order; labels are called so, or are whole numbers, by type before values."""
    if len(source.outputs) != 3:
        return None
    boxes, *others = sorted(source.outputs, key=lambda output: -len(output.shape))
    if len(boxes.shape) != 3 or boxes.shape[2] != 4 or any(len(output.shape) != 2 for output in others):
        return None
    named = [output for output in others if any(word in output.name.lower() for word in ("label", "class"))]
    typed = [output for output in others if output.is_integer]
    whole = [output for output in others if output.is_whole]
    labels = next((found for found in (named, typed) if len(found) == 1), whole)[:1]
    scores = [output for output in others if output not in labels]
    return (boxes, scores[0], labels[0]) if len(labels) == len(scores) == 1 else None


def _read_boxes(source: Source) -> Reading:
    found = _boxes_scores_labels(source)
    assert found is not None
    is_tensorflow = found[0].name.startswith("detection_boxes")  # its object detection API has y before x
    return Reading(
        *box_reading(found[0].tables(), ("corners-yx" if is_tensorflow else "corners", "pixels"), source.size)
    )


def _boxes_tail(source: Source, reading: Reading, candidates: int) -> Tail:
    found = _boxes_scores_labels(source)
    assert found is not None
    boxes, scores, labels = (f"raw{source.outputs.index(output)}" for output in found)
    statements = f"""
        class_row = Cast <to = 1> ({labels})
        class = Unsqueeze (class_row, axis2)
        box = Identity ({boxes})
        score_column = Unsqueeze ({scores}, axis2)"""
    return _best_rows_tail(source, reading, statements, found[0].shape[1], candidates)


def _boxes_habits(source: Source, reading: Reading) -> Habits:
    return Habits(1.0, ONCE, placement="stretch" if source.is_sized or reading.unit == "fractions" else "center")


END_TO_END = Head(
    name="end-to-end",
    description="[N, boxes, 6], a box, its score and its label (YOLOv10, YOLO26, exports with suppression inside)",
    fits=lambda source: _table(source) is not None,
    matches=lambda source: _order(source) is not None,
    read=_read_rows,
    class_count=_no_class_count,
    tail=_rows_tail,
    habits=_rows_habits,
)

MMDEPLOY = Head(
    name="mmdeploy",
    description="dets [N, boxes, 5] and labels [N, boxes] (RTMDet and other MMDeploy exports)",
    fits=lambda source: _dets_and_labels(source) is not None,
    matches=lambda source: _dets_and_labels(source) is not None,
    read=_read_dets,
    class_count=_no_class_count,
    tail=_dets_tail,
    habits=lambda _source, _reading: Habits(
        1.0,
        ONCE,
        Normalization(order="bgr", scale=1.0, mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395)),
        placement="top_left",
    ),
)

SEPARATE = Head(
    name="separate",
    description="boxes [N, boxes, 4], scores [N, boxes] and labels [N, boxes] (D-FINE, DEIM, RT-DETR's own exports)",
    fits=lambda source: _boxes_scores_labels(source) is not None,
    matches=lambda source: _boxes_scores_labels(source) is not None,
    read=_read_boxes,
    class_count=_no_class_count,
    tail=_boxes_tail,
    habits=_boxes_habits,
)
