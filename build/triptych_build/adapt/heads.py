"""The detector heads that Triptych can serve: how each is recognised, and its tail of plain ONNX operators.

A tail turns a head's raw outputs into the contract's `candidates` float32 [N, K, 6]: x1, y1, x2, y2 in letterbox
pixels, score, class; best first. Scoring, top-k and the choice of the class thus run inside the engine, on its
own device, and 7 KB leave it in place of 2.8 MB.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from triptych.contract import MAX_CANDIDATES, Placement
from triptych.errors import BuildError

STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Output:
    """One output of the source graph.

    Attributes:
        name: its name.
        shape: its sizes; one that the graph leaves open is None.
        producer: the operator that makes it.
    """

    name: str
    shape: tuple[int | None, ...]
    producer: str = ""

    def __str__(self) -> str:
        return f"{self.name} [{', '.join('?' if size is None else str(size) for size in self.shape)}]"


@dataclass(frozen=True)
class Source:
    """What heads look at: the outputs, the size of the input image, the graph's opset and its operators."""

    outputs: tuple[Output, ...]
    width: int
    height: int
    opset: int
    operators: frozenset[str] = frozenset()

    @property
    def cells(self) -> int:
        """Cells of the grids of stride 8, 16 and 32 that most convolutional detectors predict from."""
        return sum((self.width // stride) * (self.height // stride) for stride in STRIDES)


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
        class_count: the number of classes in a source that matches, where its shape tells.
        tail: the body of an ONNX graph, in ONNX's textual form, from the outputs (named `raw0`, `raw1`, …) to
            `candidates`; with the constants that it needs.
        normalization, placement, pad_value, iou_threshold: the family's habits, each of which can be overridden.
    """

    name: str
    description: str
    matches: Callable[[Source], bool]
    class_count: Callable[[Source], int | None]
    tail: Callable[[Source], Tail]
    iou_threshold: float
    normalization: Normalization = Normalization()
    placement: Placement = "center"
    pad_value: int = 114


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


def _constants(*positions: int, **others: np.ndarray) -> dict[str, np.ndarray]:
    """Slice positions as `at0`, `at4`, …, the axes, and whatever else a tail names."""
    axes = {f"axis{axis}": _ints(axis) for axis in (1, 2)}
    return {f"at{position}": _ints(position) for position in positions} | axes | others


HALF = np.array(0.5, dtype=np.float32)

CORNERS = """
        half = Mul (size, one_half)
        top_left = Sub (center, half)
        bottom_right = Add (center, half)"""

# --- raw, anchor-free: [N, 4 + C, A], rows cx, cy, w, h in pixels, then C class scores after their sigmoid -----------


def _is_raw(source: Source) -> bool:
    if len(source.outputs) != 1 or len(source.outputs[0].shape) != 3:
        return False
    _, rows, anchors = source.outputs[0].shape
    return rows is not None and rows > 4 and (anchors is None or anchors > rows)


def _raw_class_count(source: Source) -> int:
    return (source.outputs[0].shape[1] or 0) - 4


def _raw_tail(source: Source) -> Tail:
    _, rows, anchors = source.outputs[0].shape
    assert rows is not None
    if anchors is None:
        raise BuildError(
            f"{source.outputs[0]} has no fixed number of anchors; export the model with a fixed input size"
        )
    k = min(MAX_CANDIDATES, anchors)
    statements = f"""
        all_scores = Slice (raw0, at4, at{rows}, axis1)
        {_reduce_max("best", "all_scores", 1, source.opset)}
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
    constants = _constants(0, 2, 4, rows, k=_ints(k), every_row=_ints(1, rows, 1), one_half=HALF)
    return Tail(statements, constants, k)


# --- with objectness: [N, A, 5 + C], columns cx, cy, w, h in pixels, objectness, then C class scores -----------------


def _has_objectness(source: Source) -> bool:
    if len(source.outputs) != 1 or len(source.outputs[0].shape) != 3:
        return False
    _, anchors, columns = source.outputs[0].shape
    # Three anchors a cell in YOLOv5 and v7, one in a decoded YOLOX; a single class is [N, A, 6], as end to end is too.
    return columns is not None and columns > 5 and anchors in (source.cells, 3 * source.cells)


def _is_yolox(source: Source) -> bool:
    """One anchor a cell, and no exponential in the graph: the decode is left to whoever reads the output."""
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


def _objectness_tail(source: Source, decode: str = DECODED, **constants: np.ndarray) -> Tail:
    _, anchors, columns = source.outputs[0].shape
    assert anchors is not None
    assert columns is not None
    k = min(MAX_CANDIDATES, anchors)
    statements = f"""
        objectness = Slice (raw0, at4, at5, axis2)
        all_scores = Slice (raw0, at5, at{columns}, axis2)
        {_reduce_max("best_class", "all_scores", 2, source.opset)}
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
    every_column = _ints(1, 1, columns)
    positions = (0, 2, 3, 4, 5, columns)
    return Tail(
        statements, _constants(*positions, k=_ints(k), every_column=every_column, one_half=HALF, **constants), k
    )


def yolox_grid(width: int, height: int) -> np.ndarray:
    """Column, row and stride of each anchor of YOLOX, float32 [A, 3], in the order of its output."""
    cells = []
    for stride in STRIDES:
        row, column = np.mgrid[: height // stride, : width // stride].reshape(2, -1)
        cells.append(np.stack([column, row, np.full_like(row, stride)], axis=1))
    return np.concatenate(cells).astype(np.float32)


def _yolox_tail(source: Source) -> Tail:
    return _objectness_tail(source, GRID_DECODE, grid=yolox_grid(source.width, source.height))


# --- end to end: [N, K, 6], columns x1, y1, x2, y2 in pixels, score, class; suppression is inside ---------------------


def _is_end_to_end(source: Source) -> bool:
    return len(source.outputs) == 1 and len(source.outputs[0].shape) == 3 and source.outputs[0].shape[2] == 6


def _end_to_end_tail(source: Source) -> Tail:
    return _best_rows_tail("", "raw0", source.outputs[0].shape[1])


def _best_rows_tail(statements: str, table: str, count: int | None) -> Tail:
    """The best rows of a table [N, count, 6]; where only running tells the count, empty rows are added first."""
    k = MAX_CANDIDATES if count is None else min(MAX_CANDIDATES, count)
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
    constants = _constants(0, 1, 4, 5, k=_ints(k), every_column=_ints(1, 1, 6))
    return Tail(statements, constants | {"axis0": _ints(0), "empty_rows": _ints(MAX_CANDIDATES, 6)}, k)


# --- boxes and class logits: [N, Q, 4] cx, cy, w, h in 0..1 of the image, [N, Q, C] before their sigmoid --------------


def _is_query(source: Source) -> bool:
    if len(source.outputs) != 2 or any(len(output.shape) != 3 for output in source.outputs):
        return False
    boxes, logits = _query_outputs(source)
    return boxes.shape[2] == 4 and logits.shape[2] is not None and boxes.shape[1] == logits.shape[1] is not None


def _query_outputs(source: Source) -> tuple[Output, Output]:
    """Boxes and logits, whichever the source names first; of two tables of four columns, boxes are named so."""
    first, second = source.outputs
    if second.shape[2] == 4 and (first.shape[2] != 4 or "box" in second.name):
        return second, first
    return first, second


def _query_class_count(source: Source) -> int:
    return _query_outputs(source)[1].shape[2] or 0


def _query_tail(source: Source) -> Tail:
    boxes, logits = _query_outputs(source)
    queries, classes = logits.shape[1:]
    assert queries is not None
    assert classes is not None
    k = min(MAX_CANDIDATES, queries * classes)
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
    constants = _constants(
        *(0, 2, 4),
        k=_ints(k),
        classes=np.array(classes, dtype=np.int64),
        flat_shape=_ints(0, queries * classes),
        every_column=_ints(1, 1, 4),
        image_size=np.array([source.width, source.height] * 2, dtype=np.float32),
        one_half=HALF,
    )
    return Tail(statements, constants, k)


# --- dets [N, K, 5] x1, y1, x2, y2 in pixels, score, and labels [N, K]; suppression is inside -------------------------


def _is_dets_and_labels(source: Source) -> bool:
    if len(source.outputs) != 2:
        return False
    dets, labels = _dets_and_labels(source)
    return len(dets.shape) == 3 and dets.shape[2] == 5 and len(labels.shape) == 2


def _dets_and_labels(source: Source) -> tuple[Output, Output]:
    dets, labels = sorted(source.outputs, key=lambda output: -len(output.shape))
    return dets, labels


def _dets_and_labels_tail(source: Source) -> Tail:
    dets, labels = _dets_and_labels(source)
    raw_dets, raw_labels = (f"raw{source.outputs.index(output)}" for output in (dets, labels))
    statements = f"""
        class_row = Cast <to = 1> ({raw_labels})
        class = Unsqueeze (class_row, axis2)
        table = Concat <axis = 2> ({raw_dets}, class)
    """
    return _best_rows_tail(statements, "table", dets.shape[1])


def _no_class_count(source: Source) -> None:
    """The head carries class ids and does not say how many classes there are."""


HEADS = (
    Head(
        name="yolox",
        description="[N, anchors, 5 + classes] before its grid decode (YOLOX)",
        matches=_is_yolox,
        class_count=_objectness_class_count,
        tail=_yolox_tail,
        normalization=Normalization(order="bgr", scale=1.0),
        placement="top_left",
        iou_threshold=0.45,
    ),
    Head(
        name="objectness",
        description="[N, anchors, 5 + classes] (YOLOv5, YOLOv7)",
        matches=_has_objectness,
        class_count=_objectness_class_count,
        tail=_objectness_tail,
        iou_threshold=0.45,
    ),
    Head(
        name="end-to-end",
        description="[N, boxes, 6] (YOLOv10, YOLO26, exports with suppression inside)",
        matches=_is_end_to_end,
        class_count=_no_class_count,
        tail=_end_to_end_tail,
        iou_threshold=1.0,
    ),
    Head(
        name="raw",
        description="[N, 4 + classes, anchors] (YOLOv8, v9, 11, 12)",
        matches=_is_raw,
        class_count=_raw_class_count,
        tail=_raw_tail,
        iou_threshold=0.7,
    ),
    Head(
        name="query",
        description="[N, queries, 4] and [N, queries, classes] (RT-DETR, D-FINE, RF-DETR)",
        matches=_is_query,
        class_count=_query_class_count,
        tail=_query_tail,
        placement="stretch",
        iou_threshold=1.0,
    ),
    Head(
        name="mmdeploy",
        description="dets [N, boxes, 5] and labels [N, boxes] (RTMDet and other MMDeploy exports)",
        matches=_is_dets_and_labels,
        class_count=_no_class_count,
        tail=_dets_and_labels_tail,
        normalization=Normalization(
            order="bgr", scale=1.0, mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395)
        ),
        placement="top_left",
        iou_threshold=1.0,
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
