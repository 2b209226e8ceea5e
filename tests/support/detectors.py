"""Small source models of every head, with seeded random weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest
from numpy.typing import NDArray

SIDE = 64
CLASSES = 5


def conv_model(
    path: Path,
    body: str,
    output: str,
    channels: int,
    *,
    batch: str = "N",
    opset: int = 17,
    gain: float = 1.0,
    outputs: str = "",
) -> Path:
    """Write a detector of one convolution with random weights, stride 8, then `body` from `cells` to the output."""
    rng = np.random.default_rng(3)
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        detector (float[{batch}, 3, {SIDE}, {SIDE}] images) => ({outputs or f"float[{output}] output0"}) {{
            cells = Conv <strides = [8, 8]> (images, weight, bias)
            {body}
        }}"""
    )
    weight = rng.normal(0, 0.15 * gain, (channels, 3, 8, 8)).astype(np.float32)
    bias = rng.normal(0, 0.5, channels).astype(np.float32)
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value, name) for name, value in (("weight", weight), ("bias", bias))
    )
    onnx.save(model, path)
    return path


def add_constants(path: Path, **constants: NDArray[Any]) -> Path:
    """Put constants into a model's file."""
    model = onnx.load(path)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.save(model, path)
    return path


def raw_end(maps: str) -> str:
    """The raw head: boxes spread over the image, then scores after a sigmoid."""
    return f"""
            flat = Reshape ({maps}, flat_shape)
            boxes, logits = Split <axis = 1> (flat, parts)
            spread = Mul (boxes, sixteen)
            positive = Abs (spread)
            scores = Sigmoid (logits)
            output0 = Concat <axis = 1> (positive, scores)"""


RAW_CONSTANTS: dict[str, NDArray[Any]] = {
    "flat_shape": np.array([0, 4 + CLASSES, -1]),
    "parts": np.array([4, CLASSES]),
    "sixteen": np.array(16, np.float32),
}


def raw_model(path: Path, *, opset: int = 17, batch: str = "N") -> Path:
    """[N, 4 + C, A], as YOLOv8 exports it."""
    conv_model(path, raw_end("cells"), f"{batch}, {4 + CLASSES}, 64", 4 + CLASSES, opset=opset, batch=batch)
    return add_constants(path, **RAW_CONSTANTS)


THREE_LEVELS = """
            half = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (cells)
            quarter = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (cells)
            a = Reshape (cells, flat_shape)
            b = Reshape (half, flat_shape)
            c = Reshape (quarter, flat_shape)"""
"""Grids of stride 8, 16 and 32, flat, as `a`, `b` and `c`."""


def yolox_model(path: Path) -> Path:
    """[N, A, 5 + C] with strides 8, 16, 32 before the grid decode; batch fixed at 1, as YOLOX exports it."""
    conv_model(
        path,
        f"""{THREE_LEVELS}
            flat = Concat <axis = 2> (a, b, c)
            columns = Transpose <perm = [0, 2, 1]> (flat)
            boxes, logits = Split <axis = 2> (columns, parts)
            scores = Sigmoid (logits)
            output0 = Concat <axis = 2> (boxes, scores)""",
        f"1, 84, {5 + CLASSES}",
        5 + CLASSES,
        batch="1",
        gain=1 / 255,
    )
    return add_constants(path, flat_shape=np.array([1, 5 + CLASSES, -1]), parts=np.array([4, 1 + CLASSES]))


def objectness_model(path: Path) -> Path:
    """[N, A, 5 + C] already in pixels, three anchors a cell, as YOLOv5 exports it."""
    conv_model(
        path,
        f"""{THREE_LEVELS}
            flat = Concat <axis = 2> (a, b, c, a, b, c, a, b, c)
            columns = Transpose <perm = [0, 2, 1]> (flat)
            boxes, logits = Split <axis = 2> (columns, parts)
            spread = Mul (boxes, sixteen)
            positive = Abs (spread)
            ramp_scores = Add (logits, ramp)
            scores = Sigmoid (ramp_scores)
            output0 = Concat <axis = 2> (positive, scores)""",
        f"N, 252, {5 + CLASSES}",
        5 + CLASSES,
    )
    return add_constants(
        path,
        flat_shape=np.array([0, 5 + CLASSES, -1]),
        parts=np.array([4, 1 + CLASSES]),
        sixteen=np.array(16, np.float32),
        # The same cell three times over would tie; a slope over the anchors keeps their ranks apart.
        ramp=np.linspace(0, 0.5, 252, dtype=np.float32).reshape(1, 252, 1),
    )


OPEN_COUNT = """
            most = ReduceMax <axes = [0, 1, 2], keepdims = 0> (steps)
            count_float = Ceil (most)
            count = Cast <to = 7> (count_float)
            end = Reshape (count, one)"""
"""A number of rows that only running the graph can tell."""


def end_to_end_model(path: Path, *, open_count: bool = False) -> Path:
    """[N, K, 6] as YOLOv10 exports it, unsorted; with an open K as exports with suppression inside have it."""
    conv_model(
        path,
        f"""flat = Reshape (cells, flat_shape)
            columns = Transpose <perm = [0, 2, 1]> (flat)
            boxes, logit, class_logit = Split <axis = 2> (columns, parts)
            spread = Mul (boxes, sixteen)
            positive = Abs (spread)
            top_left, size = Split <axis = 2> (positive, pair)
            bottom_right = Add (top_left, size)
            corners = Concat <axis = 2> (top_left, bottom_right)
            score = Sigmoid (logit)
            steps = Abs (class_logit)
            class = Floor (steps)
            rows = Concat <axis = 2> (corners, score, class)
            {OPEN_COUNT if open_count else "end = Identity (all)"}
            output0 = Slice (rows, zero, end, one)""",
        f"N, {'count' if open_count else 64}, 6",
        6,
    )
    return add_names(add_constants(path, **TABLE))


def suppressing_model(path: Path) -> Path:
    """[1, K, 6] with NonMaxSuppression inside, of one image, as Ultralytics exports it with nms=True."""
    conv_model(
        path,
        """flat = Reshape (cells, flat_shape)
            columns = Transpose <perm = [0, 2, 1]> (flat)
            boxes, logit, class_logit = Split <axis = 2> (columns, parts)
            spread = Mul (boxes, sixteen)
            positive = Abs (spread)
            top_left, size = Split <axis = 2> (positive, pair)
            bottom_right = Add (top_left, size)
            corners = Concat <axis = 2> (top_left, bottom_right)
            score = Sigmoid (logit)
            score_row = Transpose <perm = [0, 2, 1]> (score)
            kept = NonMaxSuppression (corners, score_row, all, half, half)
            place_column = Slice (kept, two, three, one)
            place = Squeeze (place_column, one)
            steps = Abs (class_logit)
            class = Floor (steps)
            rows = Concat <axis = 2> (corners, score, class)
            output0 = Gather <axis = 1> (rows, place)""",
        "1, count, 6",
        6,
        batch="1",
    )
    return add_names(add_constants(path, **TABLE, three=np.array([3]), half=np.array([0.5], np.float32)))


def query_model(path: Path, *, opset: int = 17) -> Path:
    """[N, Q, C] logits and [N, Q, 4] boxes in 0..1, as DETR's descendants export them."""
    conv_model(
        path,
        """flat = Reshape (cells, flat_shape)
            columns = Transpose <perm = [0, 2, 1]> (flat)
            box_logits, logits = Split <axis = 2> (columns, parts)
            boxes = Sigmoid (box_logits)""",
        "",
        4 + CLASSES,
        opset=opset,
        outputs=f"float[N, 64, {CLASSES}] logits, float[N, 64, 4] boxes",
    )
    return add_constants(path, flat_shape=np.array([0, 4 + CLASSES, -1]), parts=np.array([4, CLASSES]))


def mmdeploy_model(path: Path, *, open_count: bool = False) -> Path:
    """dets [N, K, 5] and labels int64 [N, K], as MMDeploy exports them."""
    count = "count" if open_count else 64
    conv_model(
        path,
        f"""flat = Reshape (cells, flat_shape)
            columns = Transpose <perm = [0, 2, 1]> (flat)
            boxes, logit, class_logit = Split <axis = 2> (columns, parts)
            spread = Mul (boxes, sixteen)
            positive = Abs (spread)
            top_left, size = Split <axis = 2> (positive, pair)
            bottom_right = Add (top_left, size)
            corners = Concat <axis = 2> (top_left, bottom_right)
            score = Sigmoid (logit)
            steps = Abs (class_logit)
            {OPEN_COUNT if open_count else "end = Identity (all)"}
            all_dets = Concat <axis = 2> (corners, score)
            dets = Slice (all_dets, zero, end, one)
            class_column = Cast <to = 7> (steps)
            all_labels = Squeeze (class_column, two)
            labels = Slice (all_labels, zero, end, one)""",
        "",
        6,
        outputs=f"float[N, {count}, 5] dets, int64[N, {count}] labels",
    )
    return add_names(add_constants(path, **TABLE))


TABLE = {
    "flat_shape": np.array([0, 6, -1]),
    "parts": np.array([4, 1, 1]),
    "pair": np.array([2, 2]),
    "sixteen": np.array(16, np.float32),
    "zero": np.array([0]),
    "one": np.array([1]),
    "two": np.array([2]),
    "all": np.array([64]),
}


def add_metadata(path: Path, key: str, value: str) -> Path:
    """Put an entry into the metadata of a model's file."""
    model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key, entry.value = key, value
    onnx.save(model, path)
    return path


def add_names(path: Path) -> Path:
    """Put class names into the metadata, as YOLO exports write them."""
    return add_metadata(path, "names", str({number: f"thing {number}" for number in range(CLASSES)}))


def open_size(path: Path) -> Path:
    """Leave height and width of a raw model's input open, and the number of its anchors."""
    model = onnx.load(path)
    for dim, name in zip(model.graph.input[0].type.tensor_type.shape.dim[2:], ("height", "width"), strict=True):
        dim.dim_param = name
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "anchors"
    onnx.save(model, path)
    return path


def two_layers(path: Path) -> Path:
    """The raw head with a second convolution after a Resize to twice the size."""
    conv_model(
        path,
        f"""larger = Resize <mode = "nearest"> (cells, nothing, twice)
            maps = Conv <strides = [2, 2]> (larger, second, second_bias)
            {raw_end("maps")}""",
        f"N, {4 + CLASSES}, 64",
        6,
    )
    rng = np.random.default_rng(5)
    return add_constants(
        path,
        nothing=np.zeros(0, np.float32),
        twice=np.array([1, 1, 2, 2], np.float32),
        second=rng.normal(0, 0.3, (4 + CLASSES, 6, 2, 2)).astype(np.float32),
        second_bias=rng.normal(0, 0.5, 4 + CLASSES).astype(np.float32),
        **RAW_CONSTANTS,
    )


FRAGILE = 18
"""The layer of `deep_model` whose input has one channel a thousand times as large as the others."""


def deep_model(path: Path, layers: int = 19) -> Path:
    """The raw head after many small convolutions, one of which int8 harms."""
    rng = np.random.default_rng(11)
    width, body = 8, []
    constants: dict[str, NDArray[Any]] = {}
    last = "cells"
    for number in range(layers):
        weight = rng.normal(0, 0.35, (width, width, 1, 1)).astype(np.float32)
        constants[f"w{number}"] = weight
        if number == FRAGILE:
            factor = np.ones((1, width, 1, 1), np.float32)
            factor[0, 0] = 1000
            constants["factor"] = factor
            constants[f"w{number}"] = weight / factor
            body.append(f"grown = Mul ({last}, factor)")
            last = "grown"
        body.append(f"m{number} = Conv ({last}, w{number})")
        body.append(f"r{number} = LeakyRelu <alpha = 0.3> (m{number})")
        last = f"r{number}"
        if number % 4 == 3:  # keep the signal's size
            body.append(f"n{number} = Add ({last}, cells)")
            last = f"n{number}"
    body += [f"maps = Conv ({last}, out)", raw_end("maps")]
    conv_model(path, "\n".join(body), f"N, {4 + CLASSES}, 64", width)
    out = rng.normal(0, 0.5, (4 + CLASSES, width, 1, 1)).astype(np.float32)
    return add_constants(path, **constants, out=out, **RAW_CONSTANTS)


def c2f_model(path: Path) -> Path:
    """The raw head after what YOLOv8 is made of: SiLU, C2f with a residual's sum, SPPF, a Resize, Concat everywhere."""
    rng = np.random.default_rng(13)
    constants: dict[str, NDArray[Any]] = {}
    body: list[str] = []

    def layer(out: str, source: str, channels: tuple[int, int], *, kernel: int = 1, stride: int = 1) -> None:
        """A convolution that keeps the signal's size, and SiLU."""
        shape = (channels[1], channels[0], kernel, kernel)
        constants[f"{out}_w"] = rng.normal(0, 1.6 / np.sqrt(channels[0] * kernel**2), shape).astype(np.float32)
        constants[f"{out}_b"] = rng.normal(0, 0.3, channels[1]).astype(np.float32)
        pads = [kernel // 2] * 4
        body.append(f"{out}_c = Conv <pads = {pads}, strides = [{stride}, {stride}]> ({source}, {out}_w, {out}_b)")
        body.append(f"{out}_s = Sigmoid ({out}_c)")
        body.append(f"{out} = Mul ({out}_c, {out}_s)")

    def c2f(out: str, source: str, channels: int) -> None:
        layer(f"{out}_in", source, (channels, 16))
        body.append(f"{out}_l, {out}_r = Split <axis = 1> ({out}_in, halves)")
        layer(f"{out}_1", f"{out}_r", (8, 8), kernel=3)
        layer(f"{out}_2", f"{out}_1", (8, 8), kernel=3)
        body.append(f"{out}_sum = Add ({out}_r, {out}_2)")
        body.append(f"{out}_all = Concat <axis = 1> ({out}_l, {out}_r, {out}_sum)")
        layer(out, f"{out}_all", (24, 16))

    c2f("fine", "cells", 16)
    layer("down", "fine", (16, 16), kernel=3, stride=2)
    c2f("coarse", "down", 16)
    layer("narrowed", "coarse", (16, 8))
    pool = "MaxPool <kernel_shape = [5, 5], pads = [2, 2, 2, 2]>"
    body += [f"pool1 = {pool} (narrowed)", f"pool2 = {pool} (pool1)"]
    body.append("pooled = Concat <axis = 1> (narrowed, pool1, pool2)")
    layer("spatial", "pooled", (24, 16))
    body.append('up = Resize <mode = "nearest"> (spatial, nothing, twice)')
    body.append("joined = Concat <axis = 1> (up, fine)")
    c2f("top", "joined", 32)
    body += ["maps = Conv (top, out_w, out_b)", raw_end("maps")]
    conv_model(path, "\n".join(body), f"N, {4 + CLASSES}, 64", 16)
    constants |= {"out_w": rng.normal(0, 0.4, (4 + CLASSES, 16, 1, 1)).astype(np.float32)}
    constants |= {"out_b": rng.normal(0, 0.5, 4 + CLASSES).astype(np.float32), "halves": np.array([8, 8])}
    constants |= {"nothing": np.zeros(0, np.float32), "twice": np.array([1, 1, 2, 2], np.float32)}
    return add_constants(path, **constants, **RAW_CONSTANTS)


def normed_model(path: Path, factor: float) -> Path:
    """The raw head after a norm over channels, written out as transformers export it, of features of some size."""
    conv_model(
        path,
        f"""large = Mul (cells, factor)
            mean = ReduceMean <axes = [1]> (large)
            centred = Sub (large, mean)
            squared = Mul (centred, centred)
            variance = ReduceMean <axes = [1]> (squared)
            guarded = Add (variance, epsilon)
            deviation = Sqrt (guarded)
            normed = Div (centred, deviation)
            maps = Conv (normed, second)
            {raw_end("maps")}""",
        f"N, {4 + CLASSES}, 64",
        8,
    )
    second = np.random.default_rng(5).normal(0, 0.5, (4 + CLASSES, 8, 1, 1)).astype(np.float32)
    constants = {"factor": np.float32(factor), "epsilon": np.float32(1e-12), "second": second}
    return add_constants(path, **{name: np.asarray(value) for name, value in constants.items()}, **RAW_CONSTANTS)


HEADS = [
    pytest.param(raw_model, id="raw"),
    pytest.param(yolox_model, id="yolox"),
    pytest.param(objectness_model, id="objectness"),
    pytest.param(end_to_end_model, id="end-to-end"),
    pytest.param(partial(end_to_end_model, open_count=True), id="end-to-end-open"),
    pytest.param(query_model, id="query"),
    pytest.param(partial(query_model, opset=19), id="query-opset-19"),
    pytest.param(mmdeploy_model, id="mmdeploy"),
    pytest.param(partial(mmdeploy_model, open_count=True), id="mmdeploy-open"),
]
"""A builder for every head, and for the variants of its outputs."""


def crowd_model(path: Path, objects: int = 60, each: int = 12, anchors: int = 1500) -> Path:
    """Write a raw head that sees the same crowd in every image: objects of one class, each in so many anchors."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        detector (float[N, 3, 640, 640] images) => (float[N, 5, {anchors}] output0) {{
            mean = ReduceMean <axes = [2, 3], keepdims = 0> (images)
            flat = Reshape (mean, flat_shape)
            first = Slice (flat, zero, one, one)
            nothing = Mul (first, none)
            output0 = Add (nothing, head)
        }}"""
    )
    head = np.zeros((1, 5, anchors), np.float32)
    count = objects * each
    place = np.arange(count) // each  # the strongest 300 candidates are those of the first 25 objects
    head[0, 0, :count], head[0, 1, :count] = 40 + 60 * (place % 10), 40 + 60 * (place // 10)
    head[0, 2:4, :count] = 40
    head[0, 4, :count] = np.linspace(0.95, 0.45, count)
    constants = {"head": head, "none": np.zeros(1, np.float32), "flat_shape": np.array([0, 3, 1])}
    constants |= {"zero": np.array([0]), "one": np.array([1])}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.save(model, path)
    return path
