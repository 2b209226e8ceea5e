"""COCO's 80 classes, and their ids up to 90.

Most detectors count them from 0 to 79. DETR and its descendants have a column for each id, which leave gaps.
"""

from __future__ import annotations

COCO = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

COLUMNS = 91
"""Columns of a head by COCO's ids, 0 to 90."""

_UNUSED = frozenset({0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83})


def coco_by_id() -> dict[int, str]:
    """Return COCO's names by their ids."""
    return dict(zip((number for number in range(COLUMNS) if number not in _UNUSED), COCO, strict=True))
