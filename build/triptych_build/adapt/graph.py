"""The graphs that the adapter adds: pixels to the source's image, the source's outputs to candidates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import onnx.compose
import onnx.helper
import onnx.numpy_helper
import onnx.parser
from numpy.typing import NDArray

from triptych.contract import CANDIDATES, PIXELS
from triptych.errors import BuildError
from triptych_build.adapt.heads import Normalization, Source, Tail
from triptych_build.adapt.heads.head import Constants

PREFIX = "triptych/"
"""What our own names begin with, so that they cannot clash with the source's."""

QUANTIZING = ("QuantizeLinear", "DequantizeLinear")
"""The two operators of a Q/DQ pair."""


def front(image: onnx.ValueInfoProto, source: Source, normalization: Normalization, batch: str) -> onnx.GraphProto:
    """Return the graph from pixels uint8 [N, H, W, 3] to what the source takes.

    The cast comes first: TensorRT wants it there.
    """
    element = image.type.tensor_type.elem_type
    scale = np.array(normalization.scale, np.float64) / np.array(normalization.std, np.float64)
    offset = -np.array(normalization.mean, np.float64) / np.array(normalization.std, np.float64)
    statements = ["floats = Cast <to = 1> (pixels)", "planes = Transpose <perm = [0, 3, 1, 2]> (floats)"]
    constants: Constants = {}
    last = "planes"
    if normalization.order == "bgr":
        constants["swapped_by"] = np.array([2, 1, 0], np.int64)
        statements.append(f"swapped = Gather <axis = 1> ({last}, swapped_by)")
        last = "swapped"
    if (scale != 1).any():
        constants["scaled_by"] = _by_channel(scale)
        statements.append(f"scaled = Mul ({last}, scaled_by)")
        last = "scaled"
    if offset.any():
        constants["shifted_by"] = _by_channel(offset)
        statements.append(f"shifted = Add ({last}, shifted_by)")
        last = "shifted"
    statements.append(f"image = Cast <to = {element}> ({last})")
    return _parse(
        f"front (uint8[{batch}, {source.height}, {source.width}, 3] pixels)"
        f" => ({_element_name(element)}[{batch}, 3, {source.height}, {source.width}] image)",
        "\n".join(statements),
        constants,
    )


def _by_channel(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return a value for each channel, or one for all: TensorRT 8 cannot fuse three equal ones with a Q/DQ pair."""
    values = values[:1] if (values == values[0]).all() else values
    return values.astype(np.float32).reshape(1, -1, 1, 1)


def back(model: onnx.ModelProto, tail: Tail, source: Source, batch: str) -> onnx.GraphProto:
    """Return the graph from the source's outputs to candidates; outputs in half precision are widened first."""
    elements = {value.name: value.type.tensor_type.elem_type for value in model.graph.output}
    inputs, widened = [], []
    for number, output in enumerate(source.outputs):
        sizes = [batch, *(str(size or f"d{number}_{axis}") for axis, size in enumerate(output.shape[1:]))]
        element, name = elements[output.name], f"raw{number}"
        if element == onnx.TensorProto.FLOAT16:
            widened.append(f"{name} = Cast <to = 1> (half{number})")
            name = f"half{number}"
        inputs.append(f"{_element_name(element)}[{', '.join(sizes)}] {name}")
    return _parse(
        f"back ({', '.join(inputs)}) => (float[{batch}, {tail.candidates}, 6] candidates)",
        "\n".join([*widened, tail.statements]),
        tail.constants,
    )


def _element_name(element: int) -> str:
    """Return an element type as ONNX's textual form writes it."""
    names = {"FLOAT": "float", "FLOAT16": "float16", "INT64": "int64", "INT32": "int32", "UINT8": "uint8"}
    name = onnx.TensorProto.DataType.Name(element)
    if name not in names:
        raise BuildError(f"a detector's tensors must be one of {', '.join(names)}, but the model has {name}")
    return names[name]


def _parse(signature: str, statements: str, constants: Constants) -> onnx.GraphProto:
    graph = onnx.parser.parse_graph(f"{signature} {{\n{statements}\n}}")
    graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    return graph


def join(model: onnx.ModelProto, before: onnx.GraphProto, image: str, after: onnx.GraphProto) -> onnx.ModelProto:
    """Return the graphs before and after a source, and the source between them, as one model.

    Args:
        model: the source; its outputs are the inputs of `after`, in order.
        before: ends in what the source takes.
        image: the name of the source's input.
        after: ends in candidates.
    """
    outputs = [value.name for value in model.graph.output]
    for graph in (before, after):
        onnx.compose.add_prefix_graph(graph, PREFIX, inplace=True)
    graph = onnx.compose.merge_graphs(before, model.graph, io_map=[(before.output[0].name, image)])
    io_map = list(zip(outputs, (value.name for value in after.input), strict=True))
    graph = onnx.compose.merge_graphs(graph, after, io_map=io_map, name=model.graph.name)
    for node in graph.node:
        node.input[:] = [_public(name) for name in node.input]
        node.output[:] = [_public(name) for name in node.output]
    graph.input[0].name, graph.output[0].name = PIXELS.name, CANDIDATES.name
    joined = onnx.helper.make_model(
        graph, opset_imports=model.opset_import, ir_version=model.ir_version, producer_name="triptych"
    )
    joined.functions.extend(model.functions)
    joined.metadata_props.extend(model.metadata_props)
    return joined


def _public(name: str) -> str:
    """Return the name of a tensor; the contract's tensors have no prefix."""
    return {f"{PREFIX}pixels": PIXELS.name, f"{PREFIX}candidates": CANDIDATES.name}.get(name, name)


def is_own(node: onnx.NodeProto) -> bool:
    """Return whether the adapter added this operator; Q/DQ pairs have the names of what they quantize."""
    return node.op_type not in QUANTIZING and any(
        name.startswith(PREFIX) or name == CANDIDATES.name for name in node.output
    )


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Return the names that an operator reads, also those that its inner graphs take from outside."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from reads(inner)
