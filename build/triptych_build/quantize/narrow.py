"""fp16 and bf16: the layers in a narrow element type, and in float32 what needs it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.shape_inference
import onnx.version_converter
import onnx_ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from triptych_build.adapt.graph import QUANTIZING, is_own, reads
from triptych_build.adapt.onnx_file import opset_of
from triptych_build.quantize.precision import MATRIX_OPERATORS, NARROW, is_quantized, precision_of

WIDE_OPERATORS = frozenset(
    (
        *("Constant", "ConstantOfShape", "CumSum", "Exp", "If", "InstanceNormalization", "LayerNormalization", "Log"),
        *("LogSoftmax", "Loop", "NonMaxSuppression", "Pow", "Range", "Reciprocal", "ReduceL2", "ReduceMean"),
        *("ReduceSum", "ReduceSumSquare", "Scan"),
    )
)
"""Operators that keep float32: their range or their sums are more than fp16 holds, or they hold graphs of their own."""

BF16_OPSET = 22
"""The first in which convolutions take bfloat16."""

NARROW_SCALE_OPSET = 19
"""The first in which QuantizeLinear takes fp16."""

NEEDS_FLOAT32 = "triptych.needs_float32"
"""Where a graph's metadata has the tensors that fp16 does not hold, by name, each with the reason, as JSON."""


def narrow(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """Return the model with fp16 or bf16 tensors wherever that is safe; its input and output keep the contract.

    A narrow tensor is called `x/fp16`, and `x` itself, cast back, is there for operators that need float32.
    """
    if precision_of(model) == precision:
        return model
    oldest = BF16_OPSET if precision == "bf16" else NARROW_SCALE_OPSET if is_quantized(model) else 0
    inferred = onnx.shape_inference.infer_shapes(_at_least_opset(model, oldest), data_prop=True)
    result = onnx_ir.from_proto(inferred)
    wide = wide_nodes(inferred, precision)
    _Narrowing(
        result.graph,
        [node for at, node in enumerate(result.graph) if at not in wide and not _overflows(node, NARROW[precision][1])],
        precision,
    ).apply()
    RemoveUnusedNodesPass()(result)
    return onnx_ir.to_proto(result)


def wide_nodes(model: onnx.ModelProto, precision: str = "fp16") -> set[int]:
    """Return the nodes, by position, that keep float32.

    They are our own, the decode of boxes, sensitive operators, and for fp16 what reads or writes a tensor that it does
    not hold.
    """
    feeds_matrix: set[str] = set()
    wide = set()
    nodes = model.graph.node
    for at in reversed(range(len(nodes))):  # ONNX keeps its nodes in topological order
        node = nodes[at]
        is_upstream = node.op_type in MATRIX_OPERATORS or not feeds_matrix.isdisjoint(node.output)
        if is_upstream:
            feeds_matrix.update(reads(node))
        if not is_upstream or node.op_type in WIDE_OPERATORS or is_own(node):
            wide.add(at)
    return wide | _not_held(nodes, set(needs_float32(model))) if precision == "fp16" else wide


def _not_held(nodes: Sequence[onnx.NodeProto], tensors: set[str]) -> set[int]:
    """Return the nodes that read or write tensors; a Q/DQ pair hands on what it stands on."""
    for node in nodes:
        if node.op_type in QUANTIZING and node.input[0] in tensors:
            tensors.update(node.output)
    return {at for at, node in enumerate(nodes) if not tensors.isdisjoint((*node.input, *node.output))}


def narrow_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes that fp16 makes narrow."""
    wide = wide_nodes(model)
    return [node for at, node in enumerate(model.graph.node) if at not in wide]


def needs_float32(model: onnx.ModelProto) -> dict[str, str]:
    """Return the tensors that fp16 does not hold, as its metadata says: the reasons by name."""
    stored = next((entry.value for entry in model.metadata_props if entry.key == NEEDS_FLOAT32), "{}")
    return dict(json.loads(stored))


class _Narrowing:
    """Makes some nodes of a graph narrow, in place."""

    def __init__(self, graph: onnx_ir.Graph, nodes: Iterable[onnx_ir.Node], precision: str) -> None:
        self._graph = graph
        self._nodes = dict.fromkeys(nodes)
        self._precision = precision
        element, self._dtype = NARROW[precision]
        self._element = onnx_ir.DataType(element)
        self._copies: dict[onnx_ir.Value, onnx_ir.Value] = {}

    def apply(self) -> None:
        """Let every node read and write narrow tensors; casts stand where a narrow and a wide one meet."""
        for node in self._nodes:
            for at, value in enumerate(node.inputs):
                if value is None or value.dtype != onnx_ir.DataType.FLOAT or value.producer() in self._nodes:
                    continue
                if self._is_read_narrow(node, at):
                    node.replace_input_with(at, self._narrow_copy(value))
        for node in self._nodes:
            if node.op_type == "Cast" and node.outputs[0].dtype == onnx_ir.DataType.FLOAT:
                node.attributes["to"] = onnx_ir.AttrInt64("to", self._element)
            for value in node.outputs:
                if value.dtype == onnx_ir.DataType.FLOAT:
                    self._narrow_output(value)

    def _is_read_narrow(self, node: onnx_ir.Node, at: int) -> bool:
        """Return whether a node reads an input narrow; the scales of a Resize are float32 whatever the rest is."""
        return node in self._nodes and not (node.op_type == "Resize" and at in (1, 2))

    def _narrow_copy(self, value: onnx_ir.Value) -> onnx_ir.Value:
        """Return a float32 tensor in the narrow type: another constant, or a Cast of it."""
        if value not in self._copies:
            name = f"{value.name}/{self._precision}"
            if value.is_initializer():
                assert value.const_value is not None
                tensor = onnx_ir.tensor(value.const_value.numpy().astype(self._dtype), name=name)
                copy = onnx_ir.val(name, const_value=tensor)
                self._graph.register_initializer(copy)
            else:
                copy = self._cast(value, name, name, self._element)
            self._copies[value] = copy
        return self._copies[value]

    def _narrow_output(self, value: onnx_ir.Value) -> None:
        name = value.name
        value.name, value.dtype = f"{name}/{self._precision}", self._element
        readers = [(reader, at) for reader, at in value.uses() if not self._is_read_narrow(reader, at)]
        if readers:
            wide = self._cast(value, str(name), f"{name}/wide", onnx_ir.DataType.FLOAT)
            for reader, at in readers:
                reader.replace_input_with(at, wide)

    def _cast(self, value: onnx_ir.Value, name: str, node_name: str, element: onnx_ir.DataType) -> onnx_ir.Value:
        cast = onnx_ir.node("Cast", [value], {"to": element}, name=node_name)
        output = cast.outputs[0]
        output.name, output.dtype, output.shape = name, element, value.shape
        producer = value.producer()
        if producer:
            self._graph.insert_after(producer, cast)
        else:
            self._graph.insert_before(self._graph[0], cast)
        return output


def _overflows(node: onnx_ir.Node, dtype: np.dtype[Any]) -> bool:
    """Return whether a weight of a node is beyond the range of an element type."""
    largest = float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
    weights = (value.const_value.numpy() for value in node.inputs if value and value.const_value)
    return any(array.dtype == np.float32 and array.size and np.abs(array).max() > largest for array in weights)


def _at_least_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """Return the model converted to an opset, if it is older."""
    if opset_of(model) >= opset:
        return model
    converted = onnx.version_converter.convert_version(model, opset)
    del converted.metadata_props[:]
    converted.metadata_props.extend(model.metadata_props)
    return converted
