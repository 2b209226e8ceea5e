"""Small detectors with random weights, one for each layout that exporters give, and what each means, decoded apart.

Every detector is one convolution. Its cells become centres and sizes of boxes in the image and quiet scores, which each
family then writes in its own way. The decodes here are the long way in NumPy, and know nothing of `heads`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.parser
from numpy.typing import NDArray

Array = NDArray[Any]

SIDE = 64
CLASSES = 5
IMAGENET = {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

POOLED = {8: "cells", 16: "half_cells", 32: "quarter_cells", 64: "eighth_cells"}
"""The grids, by stride."""

BOXES = """
    columns = Transpose <perm = [0, 2, 1]> (all_cells)
    xy, wh, logits = Split <axis = 2> (columns, parts)
    near = Sigmoid (xy)
    offset = Mul (near, tenth)
    center = Add (offset, places)
    wide = Sigmoid (wh)
    size = Mul (wide, third)
    half = Mul (size, one_half)
    first = Sub (center, half)
    last = Add (center, half)
    center_px = Mul (center, side)
    size_px = Mul (size, side)
    first_px = Mul (first, side)
    last_px = Mul (last, side)
    quiet = Sub (logits, three)
    scores = Sigmoid (quiet)
    best = ReduceMax <axes = [2], keepdims = 1> (scores)
    best_id = ArgMax <axis = 2, keepdims = 1> (scores)
    label = Cast <to = 1> (best_id)
    best_row = Squeeze (best, two)
    id_row = Squeeze (best_id, two)
    rows = Concat <axis = 2> (first_px, last_px, best, label)"""


@dataclass(frozen=True)
class Family:
    """A layout, and what it means.

    Attributes:
        name: of the layout, for the test's id.
        head: what it is recognised as.
        body: from `BOXES`' tensors to the outputs, in ONNX's textual form.
        outputs: their declaration.
        decode: from the outputs of one image to rows [A, 6] of x1, y1, x2, y2, score, class, best first.
        preparation: what its pixels go through, see `prepare` in the tests.
        classes: how many numbers behind a box.
        strides: of its grids.
        each: anchors in a cell.
        batch: of its input.
        names: how many class names its metadata has; 0 for none.
        inputs: declarations of further inputs.
        gain: factor on the weights; 1/255 for a detector that takes 0..255.
        is_list: whether the outputs are lists of one image's boxes, without a batch.
    """

    name: str
    head: str
    body: str
    outputs: str
    decode: Callable[..., Array]
    preparation: dict[str, Any] = field(default_factory=lambda: {"scale": 1 / 255})
    classes: int = CLASSES
    strides: tuple[int, ...] = (8, 16, 32)
    each: int = 1
    batch: str = "N"
    names: int = CLASSES
    inputs: str = ""
    gain: float = 1.0
    is_list: bool = False

    def make(self, path: Path) -> Path:
        """Write the detector."""
        levels = [f"level{stride}" for stride in self.strides] * self.each
        pools = "\n".join(
            f"{POOLED[stride]} = AveragePool <kernel_shape = [{stride // 8}, {stride // 8}], "
            f"strides = [{stride // 8}, {stride // 8}]> (cells)\n"
            * (stride > 8)
            + f"level{stride} = Reshape ({POOLED[stride]}, flat_shape)"
            for stride in self.strides
        )
        model = onnx.parser.parse_model(
            f"""<ir_version: 8, opset_import: ["" : 17]>
            detector (float[{self.batch}, 3, {SIDE}, {SIDE}] images{self.inputs}) => ({self.outputs}) {{
                cells = Conv <strides = [8, 8]> (images, weight, bias)
                {pools}
                joined = Concat <axis = 2> ({", ".join(levels)})
                all_cells = Add (joined, slope)
                {BOXES}
                {self.body}
            }}"""
        )
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(value, name) for name, value in self._constants(len(levels)).items()
        )
        if self.names:
            entry = model.metadata_props.add()
            entry.key, entry.value = "names", str({number: f"thing {number}" for number in range(self.names)})
        onnx.save(model, path)
        return path

    def _constants(self, levels: int) -> dict[str, Array]:
        rng = np.random.default_rng(8)
        channels = 4 + self.classes
        anchors = self.each * sum((SIDE // stride) ** 2 for stride in self.strides)
        assert levels == self.each * len(self.strides)
        grid = [
            (column * stride + stride / 2, row * stride + stride / 2, stride)
            for stride in self.strides
            for row in range(SIDE // stride)
            for column in range(SIDE // stride)
        ] * self.each
        return {
            "weight": rng.normal(0, 0.12 * self.gain, (channels, 3, 8, 8)).astype(np.float32),
            "bias": rng.normal(0, 0.3, channels).astype(np.float32),
            # Cells of several anchors are the same; a slope keeps their ranks apart.
            "slope": np.linspace(0, 0.3, anchors, dtype=np.float32).reshape(1, 1, anchors),
            "flat_shape": np.array([0, channels, -1]),
            "parts": np.array([2, 2, self.classes]),
            "grid": np.array(grid, np.float32)[None],
            "places": (np.array(grid, np.float32)[None, :, :2] / SIDE) * 0.9,
            "tenth": np.array(0.1, np.float32),
            "hundredth": np.array(0.01, np.float32),
            "third": np.array(0.3, np.float32),
            "one_half": np.array(0.5, np.float32),
            "side": np.array(SIDE, np.float32),
            "three": np.array(3, np.float32),
            "unit": np.array(1, np.float32),
            "pair": np.array([1, 1]),
            "one_and_five": np.array([1, 5]),
            "two_and_one": np.array([2, 1]),
            "zero": np.array([0]),
            "one": np.array([1]),
            "two": np.array([2]),
            "twice": np.array([1, 2]),
            "loud": np.array([4.0] + [0] * (self.classes - 1), np.float32),
            "loud_last": np.array([0] * (self.classes - 1) + [4.0], np.float32),
            "image_number": np.zeros((1, anchors, 1), np.float32),
        }


def best(rows: Array) -> Array:
    """Rows [A, 6] by falling score."""
    return rows[np.argsort(-rows[:, 4], kind="stable")]


def one_class_each(boxes_xyxy: Array, scores: Array) -> Array:
    """Boxes [A, 4] and scores [A, C] to a row for each box."""
    return best(np.column_stack([boxes_xyxy, scores.max(1), scores.argmax(1)]))


def all_classes(boxes_xyxy: Array, scores: Array) -> Array:
    """Boxes [A, 4] and scores [A, C] to a row for each pair."""
    count = scores.shape[1]
    return best(np.column_stack([np.repeat(boxes_xyxy, count, 0), scores.ravel(), list(range(count)) * len(scores)]))


def from_centers(boxes: Array) -> Array:
    """cx, cy, w, h to x1, y1, x2, y2."""
    return np.hstack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2])


def softmax(logits: Array) -> Array:
    """The softmax of each row."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def _scored(table: Array) -> Array:
    return one_class_each(from_centers(table[:, :4]), table[:, 4:])


def _with_objectness(table: Array) -> Array:
    return one_class_each(from_centers(table[:, :4]), table[:, 4:5] * table[:, 5:])


def _lists(boxes: Array, scores: Array, labels: Array) -> Array:
    return best(np.column_stack([boxes, scores, labels]))


OBJECTNESS = """objectness, classes = Split <axis = 2> (scores, {parts})
    output0 = Concat <axis = 2> (center_px, size_px, objectness, classes)"""

DECODED_YOLOX = """cell_center, cell_stride = Split <axis = 2> (grid, {parts})
    shifted = Mul (near, cell_stride)
    around = Add (cell_center, shifted)
    powers = Exp (size)
    sizes = Mul (powers, cell_stride)
    output0 = Concat <axis = 2> (around, sizes, scores)"""

FAMILIES = [
    Family("raw", "raw",
           "t = Concat <axis = 2> (center_px, size_px, scores)\noutput0 = Transpose <perm = [0, 2, 1]> (t)",
           "float[N, 9, 84] output0", lambda table: _scored(table.T)),
    Family("raw, transposed", "raw", "output0 = Concat <axis = 2> (center_px, size_px, scores)",
           "float[N, 84, 9] output0", _scored),
    Family("raw, one class", "raw",
           "t = Concat <axis = 2> (center_px, size_px, scores)\noutput0 = Transpose <perm = [0, 2, 1]> (t)",
           "float[N, 5, 84] output0", lambda table: _scored(table.T), classes=1, names=1),
    Family("raw, more classes than anchors", "raw",
           "t = Concat <axis = 2> (center_px, size_px, scores)\noutput0 = Transpose <perm = [0, 2, 1]> (t)",
           "float[N, 94, 84] output0", lambda table: _scored(table.T), classes=90, names=0),
    Family("raw, strides to 64", "raw",
           "t = Concat <axis = 2> (center_px, size_px, scores)\noutput0 = Transpose <perm = [0, 2, 1]> (t)",
           "float[N, 9, 85] output0", lambda table: _scored(table.T), strides=(8, 16, 32, 64)),
    Family("raw, corners", "raw", "output0 = Concat <axis = 2> (first_px, last_px, scores)", "float[N, 84, 9] output0",
           lambda table: one_class_each(table[:, :4], table[:, 4:])),
    Family("raw, corners of boxes with hardly a size", "raw",
           "hardly = Mul (half, hundredth)\nnear_first = Sub (center, hardly)\nnear_last = Add (center, hardly)\n"
           "near_first_px = Mul (near_first, side)\nnear_last_px = Mul (near_last, side)\n"
           "output0 = Concat <axis = 2> (near_first_px, near_last_px, scores)",
           "float[N, 84, 9] output0", lambda table: one_class_each(table[:, :4], table[:, 4:])),
    Family("raw of queries in 0..1", "raw", "output0 = Concat <axis = 2> (center, size, scores)",
           "float[N, 84, 9] output0", lambda table: one_class_each(from_centers(table[:, :4]) * SIDE, table[:, 4:])),
    Family("objectness, strides to 64, one class", "objectness", OBJECTNESS.format(parts="pair"),
           "float[N, 255, 6] output0", _with_objectness, classes=2, strides=(8, 16, 32, 64), each=3, names=1),
    Family("objectness, transposed", "objectness",
           OBJECTNESS.format(parts="one_and_five").replace("output0", "t")
           + "\noutput0 = Transpose <perm = [0, 2, 1]> (t)",
           "float[N, 10, 252] output0", lambda table: _with_objectness(table.T), classes=6, each=3),
    Family("objectness of 1 (YOLOv6)", "objectness", "nothing = Sub (best, best)\nones = Add (nothing, unit)\n"
           "output0 = Concat <axis = 2> (center_px, size_px, ones, scores)",
           "float[N, 84, 10] output0", _with_objectness),
    Family("YOLOX, decoded", "yolox", DECODED_YOLOX.format(parts="two_and_one"), "float[N, 84, 10] output0",
           _with_objectness, {"bgr": True}, classes=6, gain=1 / 255),
    Family("rows", "end-to-end", "output0 = Identity (rows)", "float[N, 84, 6] output0", best),
    Family("rows, transposed", "end-to-end", "output0 = Transpose <perm = [0, 2, 1]> (rows)", "float[N, 6, 84] output0",
           lambda table: best(table.T)),
    Family("rows, label before score", "end-to-end", "output0 = Concat <axis = 2> (first_px, last_px, label, best)",
           "float[N, 84, 6] output0", lambda table: best(table[:, [0, 1, 2, 3, 5, 4]])),
    Family("rows, label and score first", "end-to-end", "output0 = Concat <axis = 2> (label, best, first_px, last_px)",
           "float[N, 84, 6] output0", lambda table: best(table[:, [2, 3, 4, 5, 1, 0]])),
    Family("rows in 0..1 (Ultralytics RT-DETR)", "end-to-end",
           "output0 = Concat <axis = 2> (center, size, best, label)",
           "float[N, 84, 6] output0",
           lambda table: best(np.hstack([from_centers(table[:, :4]) * SIDE, table[:, 4:]]))),
    Family("rows with the image's number, in one list (YOLOv7)", "end-to-end",
           "numbered = Concat <axis = 2> (image_number, first_px, last_px, label, best)\n"
           "output0 = Squeeze (numbered, zero)",
           "float[84, 7] output0", lambda table: best(table[:, [1, 2, 3, 4, 6, 5]]), batch="1",
           is_list=True),
    Family("DETR", "query", "logits_out = Add (logits, loud_last)\npred_boxes = Concat <axis = 2> (center, size)",
           "float[N, 84, 5] logits_out, float[N, 84, 4] pred_boxes",
           lambda logits, boxes: all_classes(from_centers(boxes) * SIDE, softmax(logits)[:, :-1]), IMAGENET, names=4),
    Family("softmax inside, background first (SSD)", "query",
           "loudly = Add (logits, loud)\nscores_out = Softmax <axis = 2> (loudly)\n"
           "boxes = Concat <axis = 2> (first, last)",
           "float[N, 84, 5] scores_out, float[N, 84, 4] boxes",
           lambda scores, boxes: all_classes(boxes * SIDE, scores[:, 1:]), IMAGENET, names=4),
    Family("queries, boxes that reach beyond the image", "query",
           "close = Mul (center, one_half)\nlarge = Add (size, one_half)\n"
           "classes = Identity (quiet)\nboxes = Concat <axis = 2> (close, large)",
           "float[N, 84, 5] classes, float[N, 84, 4] boxes",
           lambda logits, boxes: all_classes(from_centers(boxes) * SIDE, 1 / (1 + np.exp(-logits)))),
    Family("queries, an open batch whose anchors are of one image (libreyolo's DEIMv2)", "query",
           "k = Constant <value_ints = [84]> ()\nof_boxes = Constant <value_ints = [1, 1, 2]> ()\n"
           "of_classes = Constant <value_ints = [1, 1, 5]> ()\nbest_scores, order = TopK <axis = 1> (best_row, k)\n"
           "column = Unsqueeze (order, two)\ntwice_the_column = Expand (column, of_boxes)\n"
           "anchors = GatherElements <axis = 1> (places, twice_the_column)\n"
           "sizes = GatherElements <axis = 1> (size, twice_the_column)\nboxes = Concat <axis = 2> (anchors, sizes)\n"
           "columns_of_classes = Expand (column, of_classes)\n"
           "classes = GatherElements <axis = 1> (quiet, columns_of_classes)",
           "float[N, 84, 5] classes, float[N, 84, 4] boxes",
           lambda logits, boxes: all_classes(from_centers(boxes) * SIDE, 1 / (1 + np.exp(-logits)))),
    Family("raw of queries in 0..1, boxes that reach beyond the image", "raw",
           "close = Mul (center, one_half)\nlarge = Add (size, one_half)\n"
           "output0 = Concat <axis = 2> (close, large, scores)", "float[N, 84, 9] output0",
           lambda table: one_class_each(from_centers(table[:, :4]) * SIDE, table[:, 4:])),
    Family("rows in 0..1, boxes that reach beyond the image", "end-to-end",
           "close = Mul (center, one_half)\nlarge = Add (size, one_half)\n"
           "output0 = Concat <axis = 2> (close, large, best, label)", "float[N, 84, 6] output0",
           lambda table: best(np.hstack([from_centers(table[:, :4]) * SIDE, table[:, 4:]]))),
    Family("queries, corners in pixels", "query",
           "boxes = Concat <axis = 2> (first_px, last_px)\nclasses = Identity (quiet)",
           "float[N, 84, 4] boxes, float[N, 84, 5] classes",
           lambda boxes, logits: all_classes(boxes, 1 / (1 + np.exp(-logits)))),
    Family("boxes, scores and labels, with a second input (D-FINE)", "separate",
           "sizes = Cast <to = 1> (orig_target_sizes)\nfour = Tile (sizes, twice)\nscale = Unsqueeze (four, one)\n"
           "corners = Concat <axis = 2> (first, last)\nboxes = Mul (corners, scale)\n"
           "labels = Identity (id_row)\nscores_out = Identity (best_row)",
           "int64[N, 84] labels, float[N, 84, 4] boxes, float[N, 84] scores_out",
           lambda labels, boxes, scores: _lists(boxes, scores, labels), inputs=", int64[N, 2] orig_target_sizes"),
    Family("boxes, scores and labels in lists (torchvision)", "separate",
           "corners = Concat <axis = 2> (first_px, last_px)\nboxes = Squeeze (corners, zero)\n"
           "labels = Squeeze (id_row, zero)\nscores_out = Squeeze (best_row, zero)",
           "float[84, 4] boxes, int64[84] labels, float[84] scores_out",
           lambda boxes, labels, scores: _lists(boxes, scores, labels), batch="1", is_list=True),
    Family("anchors, boxes apart (YOLO-NAS)", "split",
           "boxes = Concat <axis = 2> (first_px, last_px)\nclasses = Identity (scores)",
           "float[N, 1020, 4] boxes, float[N, 1020, 5] classes", one_class_each, strides=(8, 16, 32, 64), each=12),
    Family("anchors, boxes apart, classes transposed (PP-YOLOE)", "split",
           "boxes = Concat <axis = 2> (first_px, last_px)\nclasses = Transpose <perm = [0, 2, 1]> (scores)",
           "float[N, 1020, 4] boxes, float[N, 5, 1020] classes", lambda boxes, scores: one_class_each(boxes, scores.T),
           strides=(8, 16, 32, 64), each=12),
]  # fmt: skip
"""Every layout that the documents name."""
