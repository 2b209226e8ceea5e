"""Heads of one table [N, anchors, columns], or its transpose: a box, then objectness or not, then class scores.

YOLOX does not decode its grid, unless it was exported with its decode; its tail does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triptych.errors import BuildError
from triptych_build.adapt.heads.head import (
    ONCE,
    Constants,
    Habits,
    Head,
    Normalization,
    Reading,
    Source,
    Tail,
    activated,
    corners,
    ints,
    positions,
    reduce_max,
)
from triptych_build.adapt.heads.values import are_scores, box_reading

GRIDS = tuple(
    (strides, each)
    for strides in ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32), (8, 16, 32, 64, 128), (16, 32), (8, 16), (4, 8, 16))
    for each in (1, 3, 6, 9)
) + tuple(((stride,), each) for stride in (8, 16, 32, 4) for each in (1, 3))
"""Strides of the grids that detectors predict from, and anchors in each cell; the usual ones first."""


LARGEST_LOG_SIZE = 8.0
"""The exponential of more, times the smallest stride, is larger than any image."""


@dataclass(frozen=True)
class Table:
    """A table of a box for each anchor.

    Attributes:
        axis: that of the columns, 1 or 2.
        anchors: how many boxes.
        columns: how many numbers a box has.
        strides: of the grids that it predicts from; empty if it is none that is known.
        each: anchors in a cell of the grids; 0 where they are not known.
    """

    axis: int
    anchors: int
    columns: int
    strides: tuple[int, ...]
    each: int

    def rows(self, source: Source) -> NDArray[np.float64]:
        """Return the rows [M, columns] on sample images."""
        return source.outputs[0].rows(self.axis)

    def boxes(self, source: Source) -> list[NDArray[np.float64]]:
        """Return the boxes [M, 4] on each sample image."""
        return [rows[:, :4] for rows in source.outputs[0].tables(self.axis)]


def cells(source: Source, strides: tuple[int, ...]) -> int:
    """Return how many cells the grids of a source have."""
    return sum((source.width // stride) * (source.height // stride) for stride in strides)


def table_of(source: Source) -> Table | None:
    """Return the one table of a source; None if it has none, or its size is open."""
    if len(source.outputs) != 1 or len(source.outputs[0].shape) != 3:
        return None
    _, first, second = source.outputs[0].shape
    if first is None or second is None or min(first, second) < 5:
        return None
    for strides, each in GRIDS:
        anchors = each * cells(source, strides)
        for axis, count, columns in ((2, first, second), (1, second, first)):
            if count == anchors and count != columns:
                return Table(axis, count, columns, strides, each)
    by_names = [axis for axis, columns in ((1, first), (2, second)) if _columns_fit(columns, source.classes)]
    if len(by_names) == 1:
        return Table(by_names[0], *((second, first) if by_names[0] == 1 else (first, second)), (), 0)
    return Table(2, first, second, (), 0) if first > second else Table(1, second, first, (), 0)


def _columns_fit(columns: int, classes: frozenset[int]) -> bool:
    return any(columns - count in (4, 5) for count in classes)


def _rows_have_labels(table: Table, source: Source) -> bool:
    """Return whether one of six columns is a label: whole numbers in every row."""
    rows = table.rows(source)
    return table.columns == 6 and bool((rows[:, 4:] == np.round(rows[:, 4:])).all(0).any() or not len(rows))


def _is_decoded(table: Table, source: Source) -> bool:
    """Return whether boxes are in pixels: their centres follow the cells, or no exponential could bear their sizes."""
    boxes = table.rows(source)[:, :4]
    if not len(boxes) or boxes[:, 2:].max() > LARGEST_LOG_SIZE:
        return True
    cells = grid(source, table.strides)
    centers = (cells[:, :2] + 0.5) * cells[:, 2:]
    if len(boxes) % len(centers):
        return True
    expected = np.tile(centers, (len(boxes) // len(centers), 1))
    spread = [float(np.std(boxes[:, axis]) * np.std(expected[:, axis])) for axis in (0, 1)]
    apart = (boxes[:, :2] - boxes[:, :2].mean(0)) * (expected - expected.mean(0))
    return all(both > 0.5 * alone > 0 for both, alone in zip(apart.mean(0), spread, strict=True))


def _fits_raw(source: Source) -> bool:
    return table_of(source) is not None


def _fits_objectness(source: Source) -> bool:
    table = table_of(source)
    return table is not None and table.columns > 5


def _fits_yolox(source: Source) -> bool:
    table = table_of(source)
    return table is not None and table.columns > 5 and table.each == 1 and len(table.strides) > 2


def _is_plain(source: Source) -> bool:
    table = table_of(source)
    return table is not None and not _rows_have_labels(table, source)


def _is_yolox(source: Source) -> bool:
    """Return whether there is one anchor a cell, with objectness, and the grid is not decoded or by an exponential."""
    table = table_of(source)
    if table is None or not _fits_yolox(source) or not _is_plain(source):
        return False
    if _first_class_by_names(table, source) == 4:
        return False
    return not _is_decoded(table, source) or ("Exp" in source.operators and _has_objectness(source))


def _first_class_by_names(table: Table, source: Source) -> int:
    """Return the first column of class scores, 4 or 5, as the number of names tells; 0 if it does not."""
    fitting = [first for first in (4, 5) if table.columns - first in source.classes]
    return fitting[0] if len(fitting) == 1 else 0


def _has_objectness(source: Source) -> bool:
    """Return whether the fifth column is objectness.

    Raises:
        BuildError: nothing tells.
    """
    table = table_of(source)
    if table is None or table.columns < 6 or not _is_plain(source):
        return False
    if by_names := _first_class_by_names(table, source):
        return by_names == 5
    rows = table.rows(source)
    if table.each in (3, 9) or (len(rows) and bool((rows[:, 4] == 1).all())):  # YOLOv6 writes 1
        return True
    if not table.each or (table.axis == 1 and "Exp" not in source.operators):
        return False  # no grid with objectness; or as YOLOv8 exports it
    if "Exp" in source.operators:
        return True
    raise BuildError(
        f"the output {source.outputs[0]} may be {table.columns - 4} classes, or objectness and {table.columns - 5} "
        "classes, and the model has no class names that would tell; say which with --head raw or --head objectness, "
        "or name the classes with --names FILE"
    )


def _is_objectness(source: Source) -> bool:
    return _fits_objectness(source) and _has_objectness(source)


def _read(source: Source) -> Reading:
    table = table_of(source)
    assert table is not None
    return Reading(*box_reading(table.boxes(source), ("centers", "pixels"), source.size))


def _read_yolox(source: Source) -> Reading:
    table = table_of(source)
    assert table is not None
    return _read(source) if _is_decoded(table, source) else Reading("centers", "pixels")


def _columns(source: Source) -> int:
    table = table_of(source)
    assert table is not None
    return table.columns


def _habits(_source: Source, reading: Reading) -> Habits:
    """Return those of the YOLO family; fractions are of DETR's descendants, which see an object once."""
    if reading.unit == "fractions":
        return Habits(iou_threshold=1.0, candidates=ONCE, placement="stretch")
    return Habits(iou_threshold=0.7)


def _yolox_habits(_source: Source, _reading: Reading) -> Habits:
    return Habits(iou_threshold=0.45, normalization=Normalization(order="bgr", scale=1.0), placement="top_left")


def _objectness_habits(_source: Source, _reading: Reading) -> Habits:
    return Habits(iou_threshold=0.45)


def grid(source: Source, strides: tuple[int, ...]) -> NDArray[np.float32]:
    """Return column, row and stride of each anchor, float32 [A, 3], in the order of YOLOX's output."""
    levels = []
    for stride in strides:
        row, column = np.mgrid[: source.height // stride, : source.width // stride].reshape(2, -1)
        levels.append(np.stack([column, row, np.full_like(row, stride)], axis=1))
    return np.concatenate(levels, dtype=np.float32)


GRID_DECODE = """
        cell = Gather <axis = 0> (grid, anchor)
        offset = Slice (kept, at0, at2, axis2)
        log_size = Slice (kept, at2, at4, axis2)
        corner = Slice (cell, at0, at2, axis2)
        stride = Slice (cell, at2, at3, axis2)
        center_cells = Add (offset, corner)
        center_decoded = Mul (center_cells, stride)
        size_cells = Exp (log_size)
        size_decoded = Mul (size_cells, stride)
        box = Concat <axis = 2> (center_decoded, size_decoded)"""

DECODED = "box = Slice (kept, at0, at4, axis2)"


def table_tail(
    source: Source,
    reading: Reading,
    candidates: int,
    table: Table,
    *,
    first_class: int = 4,
    before: str = "table = Identity (raw0)",
    grid: NDArray[np.float32] | None = None,
) -> Tail:
    """Return the tail of a table: the best class of each anchor, the best anchors, and only then their boxes.

    Args:
        source: what is adapted.
        reading: how its numbers are read.
        candidates: how many may leave.
        table: where its anchors and columns are.
        first_class: the first column of class scores, 4 or 5; the one before 5 is objectness.
        before: the statements that make `table`.
        grid: what boxes are decoded with; None if they are boxes already.
    """
    axis, other, columns = table.axis, 3 - table.axis, table.columns
    k = min(candidates, table.anchors)
    start, end = first_class + (reading.no_object == "first"), columns - (reading.no_object == "last")
    constants: Constants = positions(0, 2, 3, 4, 5, start, end)
    constants |= {"k": ints(k), "every_column": ints(1, columns, 1) if axis == 1 else ints(1, 1, columns)}
    box_statements, box_constants = corners("xyxy", "box", reading, source)
    if grid is not None:
        constants["grid"] = grid
    objectness = f"""
        objectness = Slice (table, at4, at5, axis{axis})
        objectness_row = Squeeze (objectness, axis{axis})
        objectness_score = {"Sigmoid" if reading.activation == "sigmoid" else "Identity"} (objectness_row)
        best = Mul (best_score, objectness_score)"""
    statements = f"""
        {before}
        all_scores = Slice (table, at{start}, at{end}, axis{axis})
        {reduce_max("best_class", "all_scores", axis, source.opset)}
        {activated("best_score", "best_class", reading.activation)}
        {objectness if first_class == 5 else "best = Identity (best_score)"}
        score, anchor = TopK <axis = 1, sorted = 1> (best, k)
        anchor_place = Unsqueeze (anchor, axis{axis})
        anchor_places = Expand (anchor_place, every_column)
        kept_table = GatherElements <axis = {other}> (table, anchor_places)
        kept = {"Transpose <perm = [0, 2, 1]>" if axis == 1 else "Identity"} (kept_table)
        {DECODED if grid is None else GRID_DECODE}
        {box_statements}
        kept_scores = Slice (kept, at{start}, at{end}, axis2)
        class_id = ArgMax <axis = 2, keepdims = 1> (kept_scores)
        class = Cast <to = 1> (class_id)
        score_column = Unsqueeze (score, axis2)
        candidates = Concat <axis = 2> (xyxy, score_column, class)
    """
    return Tail(statements, constants | box_constants, k)


def _tail_from(first_class: int) -> Callable[[Source, Reading, int], Tail]:
    def tail(source: Source, reading: Reading, candidates: int) -> Tail:
        table = table_of(source)
        assert table is not None
        check_scores(table.rows(source)[:, 4:], source, reading)
        return table_tail(source, reading, candidates, table, first_class=first_class)

    return tail


def _yolox_tail(source: Source, reading: Reading, candidates: int) -> Tail:
    table = table_of(source)
    assert table is not None
    decode = None if _is_decoded(table, source) else grid(source, table.strides)
    return table_tail(source, reading, candidates, table, first_class=5, grid=decode)


def check_scores(scores: NDArray[np.float64], source: Source, reading: Reading) -> None:
    """Refuse a table whose score columns are none, unless the user has said what makes scores of them.

    Raises:
        BuildError: they lie outside 0..1; the message says what such a model may be.
    """
    if reading.activation != "none" or are_scores(scores):
        return
    outside = int((~((scores >= -1e-3) & (scores <= 1 + 1e-3)).all(0)).sum())
    are_logits = outside == scores.shape[1] and float(np.abs(scores).max()) < 50
    raise BuildError(
        f"{outside} of the {scores.shape[1]} columns behind the boxes of {source.outputs[0]} hold no scores: "
        f"on sample images they are {scores.min():.3g} to {scores.max():.3g}; "
        + (
            "if they are logits, say so with --activation sigmoid"
            if are_logits
            else "this looks like a pose model (key points), oriented boxes (an angle) or segmentation (mask "
            "coefficients); Triptych serves boxes: export a detection model"
        )
    )


RAW = Head(
    name="raw",
    description="[N, 4 + classes, anchors] or its transpose (YOLOv8, v9, 11, 12)",
    fits=_fits_raw,
    matches=_is_plain,
    read=_read,
    class_count=lambda source, _reading: _columns(source) - 4,
    tail=_tail_from(4),
    habits=_habits,
)

OBJECTNESS = Head(
    name="objectness",
    description="[N, anchors, 5 + classes] or its transpose (YOLOv5, YOLOv6, YOLOv7)",
    fits=_fits_objectness,
    matches=_is_objectness,
    read=_read,
    class_count=lambda source, _reading: _columns(source) - 5,
    tail=_tail_from(5),
    habits=_objectness_habits,
)

YOLOX = Head(
    name="yolox",
    description="[N, anchors, 5 + classes], before or after its grid decode (YOLOX)",
    fits=_fits_yolox,
    matches=_is_yolox,
    read=_read_yolox,
    class_count=lambda source, _reading: _columns(source) - 5,
    tail=_yolox_tail,
    habits=_yolox_habits,
)
