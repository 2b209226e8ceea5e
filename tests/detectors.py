"""Small source models of every head, with seeded random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

SIDE = 64
CLASSES = 5


def conv_model(
    path: Path, body: str, output: str, channels: int, *, batch: str = "N", opset: int = 17, gain: float = 1.0
) -> Path:
    """A one-convolution detector with seeded random weights, stride 8, then `body` from `cells` to the output."""
    rng = np.random.default_rng(3)
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : {opset}]>
        detector (float[{batch}, 3, {SIDE}, {SIDE}] images) => (float[{output}] output0) {{
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


def add_constants(path: Path, **constants: np.ndarray) -> Path:
    model = onnx.load(path)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.save(model, path)
    return path


def raw_model(path: Path, *, opset: int = 17, batch: str = "N") -> Path:
    """[N, 4 + C, A]: boxes spread over the image, then scores after a sigmoid."""
    split = "boxes, logits = Split <axis = 1> (flat, parts)"
    conv_model(
        path,
        f"""flat = Reshape (cells, flat_shape)
            {split}
            spread = Mul (boxes, sixteen)
            positive = Abs (spread)
            scores = Sigmoid (logits)
            output0 = Concat <axis = 1> (positive, scores)""",
        f"{batch}, {4 + CLASSES}, 64",
        4 + CLASSES,
        opset=opset,
        batch=batch,
    )
    return add_constants(
        path,
        flat_shape=np.array([0, 4 + CLASSES, -1]),
        parts=np.array([4, CLASSES]),
        sixteen=np.array(16, np.float32),
    )


def yolox_model(path: Path) -> Path:
    """[N, A, 5 + C] with strides 8, 16, 32 before the grid decode; batch fixed at 1, as YOLOX exports it."""
    conv_model(
        path,
        """half = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (cells)
            quarter = AveragePool <kernel_shape = [4, 4], strides = [4, 4]> (cells)
            a = Reshape (cells, flat_shape)
            b = Reshape (half, flat_shape)
            c = Reshape (quarter, flat_shape)
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
