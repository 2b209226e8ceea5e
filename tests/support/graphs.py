"""What tests read out of graphs, and how they compare candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.shape_inference
from numpy.typing import NDArray

from triptych.contract import DetectorSpec
from triptych_build.adapt.adapter import Overrides, adapt_file
from triptych_build.adapt.onnx_file import Adapted, read_adapted
from triptych_build.quantize.precision import MATRIX_OPERATORS, NARROW


def record_of(model: onnx.ModelProto) -> Adapted:
    """The record of an adapted model."""
    record = read_adapted(model)
    assert record is not None
    return record


def spec_of(path: Path) -> DetectorSpec:
    """The spec in an adapted file."""
    return record_of(onnx.load(path)).spec


def adapted(source: Path, overrides: Overrides | None = None) -> Path:
    """A source's adapted file, next to it."""
    path = source.with_name("adapted.onnx")
    adapt_file(source, path, overrides)
    return path


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy that a test may change."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def constants_of(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """The values of a graph's initializers, by name."""
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    """The node that makes each tensor."""
    return {name: node for node in model.graph.node for name in node.output}


def elements(model: onnx.ModelProto) -> dict[str, int]:
    """Every tensor's element type."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}


def narrow_operators(model: onnx.ModelProto, precision: str) -> list[str]:
    """The operators that make a narrow tensor, in order."""
    types, narrow = elements(model), NARROW[precision][0]
    return [node.op_type for node in model.graph.node if any(types.get(name) == narrow for name in node.output)]


def int8_layers(model: onnx.ModelProto) -> list[str]:
    """The layers that take both activations and weights from a Q/DQ pair."""
    pairs = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [
        node.name for node in model.graph.node if node.op_type in MATRIX_OPERATORS and pairs.issuperset(node.input[:2])
    ]


def scales(model: onnx.ModelProto) -> dict[str, float]:
    """The scale of each quantized activation."""
    constants = constants_of(model)
    return {
        node.input[0]: float(constants[node.input[1]])
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants
    }


def distance(reference: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float64]:
    """The distance of each candidate [N, K, 6] to the nearest of its class: pixels, and a thousandth of score as one.

    Candidates of nearly the same score may change places, so that rows cannot be compared one by one.
    """
    scaled, other = (rows * np.array([1, 1, 1, 1, 1000, 1e6]) for rows in (reference, others))
    nearest: NDArray[np.float64] = np.abs(scaled[:, :, None] - other[:, None]).max(-1).min(-1)
    return nearest
