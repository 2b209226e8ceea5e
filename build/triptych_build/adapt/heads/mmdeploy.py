"""The head of MMDeploy: dets [N, K, 5] x1, y1, x2, y2 in pixels, score, and labels [N, K]; suppression is inside."""

from __future__ import annotations

from triptych_build.adapt.heads.end_to_end import best_rows_tail, no_class_count
from triptych_build.adapt.heads.head import ONCE, Head, Normalization, Output, Source, Tail


def _is_dets_and_labels(source: Source) -> bool:
    if len(source.outputs) != 2:
        return False
    dets, labels = _dets_and_labels(source)
    return len(dets.shape) == 3 and dets.shape[2] == 5 and len(labels.shape) == 2


def _dets_and_labels(source: Source) -> tuple[Output, Output]:
    dets, labels = sorted(source.outputs, key=lambda output: -len(output.shape))
    return dets, labels


def _dets_and_labels_tail(source: Source, candidates: int) -> Tail:
    dets, labels = _dets_and_labels(source)
    raw_dets, raw_labels = (f"raw{source.outputs.index(output)}" for output in (dets, labels))
    statements = f"""
        class_row = Cast <to = 1> ({raw_labels})
        class = Unsqueeze (class_row, axis2)
        table = Concat <axis = 2> ({raw_dets}, class)
    """
    return best_rows_tail(statements, "table", dets.shape[1], candidates)


MMDEPLOY = Head(
    name="mmdeploy",
    description="dets [N, boxes, 5] and labels [N, boxes] (RTMDet and other MMDeploy exports)",
    matches=_is_dets_and_labels,
    class_count=no_class_count,
    tail=_dets_and_labels_tail,
    normalization=Normalization(order="bgr", scale=1.0, mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395)),
    placement="top_left",
    iou_threshold=1.0,
    candidates=ONCE,
)
