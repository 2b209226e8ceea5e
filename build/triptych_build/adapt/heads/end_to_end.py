"""The head [N, K, 6] of detectors with suppression inside: columns x1, y1, x2, y2 in pixels, score, class."""

from __future__ import annotations

from triptych_build.adapt.heads.head import ONCE, Head, Source, Tail, constants_of, ints


def _is_end_to_end(source: Source) -> bool:
    return len(source.outputs) == 1 and len(source.outputs[0].shape) == 3 and source.outputs[0].shape[2] == 6


def _end_to_end_tail(source: Source, candidates: int) -> Tail:
    return best_rows_tail("", "raw0", source.outputs[0].shape[1], candidates)


def best_rows_tail(statements: str, table: str, count: int | None, candidates: int) -> Tail:
    """Return the best rows of a table [N, count, 6]; where only running tells the count, empty rows are added first."""
    k = candidates if count is None else min(candidates, count)
    filling = """
        shape = Shape ({table})
        batch = Slice (shape, at0, at1, axis0)
        empty_shape = Concat <axis = 0> (batch, empty_rows)
        empty = ConstantOfShape (empty_shape)
        rows = Concat <axis = 1> ({table}, empty)"""
    statements = f"""
        {statements}
        {filling.format(table=table) if count is None else f"rows = Identity ({table})"}
        score_column = Slice (rows, at4, at5, axis2)
        scores = Squeeze (score_column, axis2)
        score, best = TopK <axis = 1, sorted = 1> (scores, k)
        best_column = Unsqueeze (best, axis2)
        best_columns = Expand (best_column, every_column)
        candidates = GatherElements <axis = 1> (rows, best_columns)
    """
    constants = constants_of(0, 1, 4, 5, k=ints(k), every_column=ints(1, 1, 6))
    return Tail(statements, constants | {"axis0": ints(0), "empty_rows": ints(k, 6)}, k)


def no_class_count(_source: Source) -> None:
    """Return None: the head carries class ids and does not say how many classes there are."""


END_TO_END = Head(
    name="end-to-end",
    description="[N, boxes, 6] (YOLOv10, YOLO26, exports with suppression inside)",
    matches=_is_end_to_end,
    class_count=no_class_count,
    tail=_end_to_end_tail,
    iou_threshold=1.0,
    candidates=ONCE,
)
