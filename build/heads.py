"""The detector heads that Triptych can serve: how each is recognised, and its tail of plain ONNX operators.

A tail turns a head's raw outputs into the contract's `candidates` float32 [N, K, 6]: x1, y1, x2, y2 in letterbox
pixels, score, class; best first. Scoring, top-k and the choice of the class thus run inside the engine, on its
own device, and 7 KB leave it in place of 2.8 MB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from triptych.contract import MAX_CANDIDATES, Placement
from triptych.errors import BuildError

YOLOX_STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Output:
    """One float output of the source graph; a size that the graph leaves open is None."""

    name: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.name} [{', '.join('?' if size is None else str(size) for size in self.shape)}]"


@dataclass(frozen=True)
class Source:
    """What recognition may look at: the outputs, and the size of the input image."""

    outputs: tuple[Output, ...]
    width: int
    height: int


@dataclass(frozen=True)
class Normalization:
    """What the source expects of its input: `(pixel * scale - mean) / std`, channels in `order`.

    Attributes:
        order: "rgb" or "bgr".
        scale: factor on the pixel values 0..255.
        mean: per channel, in `order`, after the scale.
        std: per channel, in `order`, after the scale.
    """

    order: str = "rgb"
    scale: float = 1 / 255
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class Head:
    """One family of heads.

    Attributes:
        name: what the user calls it (`--head NAME`).
        description: its output's layout, for messages.
        matches: whether a source has this head.
        class_count: the number of classes in a source that matches.
        tail: the body of an ONNX graph, in ONNX's textual form, from the outputs (named `raw0`, `raw1`, …) to
            `candidates`; with the constants that it needs.
        normalization, placement, pad_value, iou_threshold: the family's habits, each of which can be overridden.
    """

    name: str
    description: str
    matches: Callable[[Source], bool]
    class_count: Callable[[Source], int]
    tail: Callable[[Source, int], Tail]
    normalization: Normalization
    placement: Placement
    pad_value: int
    iou_threshold: float


@dataclass(frozen=True)
class Tail:
    """A tail as ONNX text: statements, and the constants that they name."""

    statements: str
    constants: dict[str, np.ndarray]
    candidates: int


def _reduce_max(result: str, source: str, axis: int, opset: int) -> str:
    """ReduceMax over one axis: its axes are an attribute up to opset 17 and an input from 18 on."""
    if opset < 18:
        return f"{result} = ReduceMax <axes = [{axis}], keepdims = 0> ({source})"
    return f"{result} = ReduceMax <keepdims = 0> ({source}, axis{axis})"


def _ints(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def _anchor_count(source: Source, strides: Sequence[int]) -> int:
    return sum((source.width // stride) * (source.height // stride) for stride in strides)


# --- raw, anchor-free: [N, 4 + C, A], rows cx, cy, w, h in pixels, then C class scores after their sigmoid -----------


def _is_raw(source: Source) -> bool:
    if len(source.outputs) != 1 or len(source.outputs[0].shape) != 3:
        return False
    _, rows, anchors = source.outputs[0].shape
    return rows is not None and rows > 4 and (anchors is None or anchors > rows)


def _raw_class_count(source: Source) -> int:
    return (source.outputs[0].shape[1] or 0) - 4


def _raw_tail(source: Source, opset: int) -> Tail:
    _, rows, anchors = source.outputs[0].shape
    assert rows is not None
    if anchors is None:
        raise BuildError(
            f"{source.outputs[0]} has no fixed number of anchors; export the model with a fixed input size"
        )
    k = min(MAX_CANDIDATES, anchors)
    statements = f"""
        all_scores = Slice (raw0, at4, at{rows}, axis1)
        {_reduce_max("best", "all_scores", 1, opset)}
        score, anchor = TopK <axis = 1, sorted = 1> (best, k)
        anchor_row = Unsqueeze (anchor, axis1)
        anchor_rows = Expand (anchor_row, every_row)
        kept = GatherElements <axis = 2> (raw0, anchor_rows)
        center = Slice (kept, at0, at2, axis1)
        size = Slice (kept, at2, at4, axis1)
        half = Mul (size, one_half)
        top_left = Sub (center, half)
        bottom_right = Add (center, half)
        kept_scores = Slice (kept, at4, at{rows}, axis1)
        class_id = ArgMax <axis = 1, keepdims = 1> (kept_scores)
        class = Cast <to = 1> (class_id)
        score_row = Unsqueeze (score, axis1)
        columns = Concat <axis = 1> (top_left, bottom_right, score_row, class)
        candidates = Transpose <perm = [0, 2, 1]> (columns)
    """
    constants = {f"at{value}": _ints(value) for value in (0, 2, 4, rows)}
    constants |= {
        "axis1": _ints(1),
        "k": _ints(k),
        "every_row": _ints(1, rows, 1),
        "one_half": np.array(0.5, dtype=np.float32),
    }
    return Tail(statements, constants, k)


# --- YOLOX: [N, A, 5 + C] without its grid decode: dx, dy, log w, log h in strides, objectness, C class scores --------


def _is_yolox(source: Source) -> bool:
    if len(source.outputs) != 1 or len(source.outputs[0].shape) != 3:
        return False
    _, anchors, columns = source.outputs[0].shape
    return anchors == _anchor_count(source, YOLOX_STRIDES) and columns is not None and 5 < columns < anchors


def _yolox_class_count(source: Source) -> int:
    return (source.outputs[0].shape[2] or 0) - 5


def yolox_grid(width: int, height: int) -> np.ndarray:
    """Column, row and stride of each anchor of YOLOX, float32 [A, 3], in the order of its output."""
    cells = []
    for stride in YOLOX_STRIDES:
        row, column = np.mgrid[: height // stride, : width // stride].reshape(2, -1)
        cells.append(np.stack([column, row, np.full_like(row, stride)], axis=1))
    return np.concatenate(cells).astype(np.float32)


def _yolox_tail(source: Source, opset: int) -> Tail:
    _, anchors, columns = source.outputs[0].shape
    assert anchors is not None
    assert columns is not None
    k = min(MAX_CANDIDATES, anchors)
    statements = f"""
        objectness = Slice (raw0, at4, at5, axis2)
        all_scores = Slice (raw0, at5, at{columns}, axis2)
        {_reduce_max("best_class", "all_scores", 2, opset)}
        objectness_row = Squeeze (objectness, axis2)
        best = Mul (best_class, objectness_row)
        score, anchor = TopK <axis = 1, sorted = 1> (best, k)
        cell = Gather <axis = 0> (grid, anchor)
        anchor_column = Unsqueeze (anchor, axis2)
        anchor_columns = Expand (anchor_column, every_column)
        kept = GatherElements <axis = 1> (raw0, anchor_columns)
        offset = Slice (kept, at0, at2, axis2)
        log_size = Slice (kept, at2, at4, axis2)
        corner = Slice (cell, at0, at2, axis2)
        stride = Slice (cell, at2, at3, axis2)
        center_cells = Add (offset, corner)
        center = Mul (center_cells, stride)
        size_cells = Exp (log_size)
        size = Mul (size_cells, stride)
        half = Mul (size, one_half)
        top_left = Sub (center, half)
        bottom_right = Add (center, half)
        kept_scores = Slice (kept, at5, at{columns}, axis2)
        class_id = ArgMax <axis = 2, keepdims = 1> (kept_scores)
        class = Cast <to = 1> (class_id)
        score_column = Unsqueeze (score, axis2)
        candidates = Concat <axis = 2> (top_left, bottom_right, score_column, class)
    """
    constants = {f"at{value}": _ints(value) for value in (0, 2, 3, 4, 5, columns)}
    constants |= {
        "axis2": _ints(2),
        "k": _ints(k),
        "every_column": _ints(1, 1, columns),
        "grid": yolox_grid(source.width, source.height),
        "one_half": np.array(0.5, dtype=np.float32),
    }
    return Tail(statements, constants, k)


HEADS = (
    Head(
        name="yolox",
        description="[N, anchors, 5 + classes] before its grid decode (YOLOX)",
        matches=_is_yolox,
        class_count=_yolox_class_count,
        tail=_yolox_tail,
        normalization=Normalization(order="bgr", scale=1.0),
        placement="top_left",
        pad_value=114,
        iou_threshold=0.45,
    ),
    Head(
        name="raw",
        description="[N, 4 + classes, anchors] (YOLOv8, v9, 11, 12)",
        matches=_is_raw,
        class_count=_raw_class_count,
        tail=_raw_tail,
        normalization=Normalization(),
        placement="center",
        pad_value=114,
        iou_threshold=0.7,
    ),
)


def head_named(name: str) -> Head:
    """The head that the user named.

    Raises:
        BuildError: there is none of that name; the message lists those there are.
    """
    for head in HEADS:
        if head.name == name:
            return head
    raise BuildError(f"there is no head {name!r}; choose one of {', '.join(head.name for head in HEADS)}")


def recognise(source: Source) -> Head:
    """The first head that fits the source's outputs.

    Raises:
        BuildError: none fits; the message says what the outputs are and what would fit.
    """
    for head in HEADS:
        if head.matches(source):
            return head
    found = "; ".join(str(output) for output in source.outputs)
    known = "; ".join(f"{head.name}: {head.description}" for head in HEADS)
    raise BuildError(f"the model's outputs ({found}) are no head that Triptych knows. It knows {known}")
