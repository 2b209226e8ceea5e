"""The anchor-free head [N, 4 + C, A]: rows cx, cy, w, h in pixels, then C class scores after their sigmoid."""

from __future__ import annotations

from triptych.errors import BuildError
from triptych_build.adapt.heads.head import CORNERS, HALF, Head, Source, Tail, constants_of, ints, reduce_max


def _is_raw(source: Source) -> bool:
    if len(source.outputs) != 1 or len(source.outputs[0].shape) != 3:
        return False
    _, rows, anchors = source.outputs[0].shape
    return rows is not None and rows > 4 and (anchors is None or anchors > rows)


def _raw_class_count(source: Source) -> int:
    return (source.outputs[0].shape[1] or 0) - 4


def _raw_tail(source: Source, candidates: int) -> Tail:
    _, rows, anchors = source.outputs[0].shape
    assert rows is not None
    if anchors is None:
        raise BuildError(
            f"{source.outputs[0]} has no fixed number of anchors; export the model with a fixed input size"
        )
    k = min(candidates, anchors)
    statements = f"""
        all_scores = Slice (raw0, at4, at{rows}, axis1)
        {reduce_max("best", "all_scores", 1, source.opset)}
        score, anchor = TopK <axis = 1, sorted = 1> (best, k)
        anchor_row = Unsqueeze (anchor, axis1)
        anchor_rows = Expand (anchor_row, every_row)
        kept = GatherElements <axis = 2> (raw0, anchor_rows)
        center = Slice (kept, at0, at2, axis1)
        size = Slice (kept, at2, at4, axis1)
        {CORNERS}
        kept_scores = Slice (kept, at4, at{rows}, axis1)
        class_id = ArgMax <axis = 1, keepdims = 1> (kept_scores)
        class = Cast <to = 1> (class_id)
        score_row = Unsqueeze (score, axis1)
        columns = Concat <axis = 1> (top_left, bottom_right, score_row, class)
        candidates = Transpose <perm = [0, 2, 1]> (columns)
    """
    constants = constants_of(0, 2, 4, rows, k=ints(k), every_row=ints(1, rows, 1), one_half=HALF)
    return Tail(statements, constants, k)


RAW = Head(
    name="raw",
    description="[N, 4 + classes, anchors] (YOLOv8, v9, 11, 12)",
    matches=_is_raw,
    class_count=_raw_class_count,
    tail=_raw_tail,
    iou_threshold=0.7,
)
