"""Q/DQ pairs in a graph: which layers get them, how they are put in, and what a graph that has them says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx
import onnx.helper
import onnx.numpy_helper
import onnx.shape_inference
import onnx_ir
from onnx_ir.passes.common import IdentityEliminationPass, LiftConstantsToInitializersPass
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from triptych_build.adapt.graph import QUANTIZING, is_own, reads
from triptych_build.quantize.precision import MATRIX_OPERATORS

ORT_INFERRED = "onnx.infer"
"""ONNX Runtime's mark in the metadata of a graph whose types it has inferred once: it infers them no more."""

_WITH_CONSTANTS = onnx_ir.passes.Sequential(IdentityEliminationPass(), LiftConstantsToInitializersPass(size_limit=0))


@dataclass(frozen=True)
class Coverage:
    """How much of a graph calculates in int8.

    Attributes:
        quantized: the layers that read activations and weights through Q/DQ pairs.
        left: the layers with weights that do not.
    """

    quantized: tuple[str, ...]
    left: tuple[str, ...]

    @property
    def share(self) -> float:
        """The share of the layers that is quantized, 0..1."""
        return len(self.quantized) / max(1, len(self.quantized) + len(self.left))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for the manifest."""
        count = len(self.quantized)
        return {"layers": count, "of": count + len(self.left), "left_in_float": list(self.left)}


def coverage(model: onnx.ModelProto) -> Coverage:
    """Return which layers of a graph calculate in int8, of those that have weights."""
    quantized = quantized_layers(model)
    return Coverage(tuple(quantized), tuple(name for name in layers_with_weights(model) if name not in quantized))


def layers_with_weights(model: onnx.ModelProto) -> list[str]:
    """Return the names of the source's layers that have weights, in order: those that read what no image changes.

    The sum over a distribution is none: its weights are the numbers 0, 1, 2, …
    """
    moving = {value.name for value in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
    distributions = _distributions(model)
    layers = []
    for node in model.graph.node:
        is_moving = [name in moving for name in node.input]
        if not moving.isdisjoint(reads(node)):
            moving.update(node.output)
        is_layer = node.op_type in MATRIX_OPERATORS and not is_own(node)
        if is_layer and not all(is_moving[:2]) and distributions.isdisjoint(node.input):
            layers.append(node.name)
    return layers


def _distributions(model: onnx.ModelProto) -> set[str]:
    return {name for node in model.graph.node if node.op_type == "Softmax" for name in node.output}


def prepare(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its constants as initializers and a type for each tensor that a layer reads.

    The quantizer passes over weights that are anything else, and over activations whose type it cannot infer.
    """
    prepared = onnx_ir.to_proto(_WITH_CONSTANTS(onnx_ir.from_proto(model)).model)
    _forget_inference(prepared)
    prepared = onnx.shape_inference.infer_shapes(prepared, data_prop=True)
    weights = {tensor.name: tensor.data_type for tensor in prepared.graph.initializer}
    typed = {value.name for value in (*prepared.graph.value_info, *prepared.graph.input, *prepared.graph.output)}
    for node in prepared.graph.node:
        if node.op_type in MATRIX_OPERATORS and node.input[1] in weights and node.input[0] not in typed | {*weights}:
            value = onnx.helper.make_tensor_value_info(node.input[0], weights[node.input[1]], None)
            prepared.graph.value_info.append(value)
            typed.add(value.name)
    return prepared


def _forget_inference(model: onnx.ModelProto) -> None:
    kept = [entry for entry in model.metadata_props if entry.key != ORT_INFERRED]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)


def quantizable_layers(model: onnx.ModelProto) -> list[str]:
    """Return the names of the layers that int8 makes faster, in order.

    Products of two activations stay in float, and so does the sum over a distribution that decodes a box (a Softmax,
    then a convolution with the weights 0, 1, 2, …): a step of int8 there is pixels.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    distributions = _distributions(model)
    return [
        node.name
        for node in model.graph.node
        if node.op_type in MATRIX_OPERATORS
        and node.input[1] in constants
        and distributions.isdisjoint(node.input)
        and not is_own(node)
    ]


def quantize_layers(model: onnx.ModelProto, ranges: TensorsData, layers: Sequence[str]) -> onnx.ModelProto:
    """Return the model with symmetric Q/DQ pairs before these layers, on activations and weights.

    Scales are per channel for weights and per tensor for activations. TensorRT wants no pairs after a layer.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=ranges,
        nodes_to_quantize=list(layers),
        nodes_to_exclude=[],
        op_types_to_quantize=list(MATRIX_OPERATORS),
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": list(MATRIX_OPERATORS),
        },
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantized: onnx.ModelProto = quantizer.model.model
    _forget_inference(quantized)
    return quantized


def quantized_layers(model: onnx.ModelProto) -> list[str]:
    """Return the names of the layers that read activations and weights through Q/DQ pairs."""
    pairs = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [
        node.name for node in model.graph.node if node.op_type in MATRIX_OPERATORS and pairs.issuperset(node.input[:2])
    ]


def activation_limits(model: onnx.ModelProto) -> dict[str, float]:
    """Return the largest absolute value that int8 holds of each quantized activation, by the tensor's name."""
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            values[node.output[0]] = onnx.numpy_helper.to_array(node.attribute[0].t)
        elif node.op_type == "Identity" and node.input[0] in values:  # exporters share equal constants this way
            values[node.output[0]] = values[node.input[0]]
    return {
        node.input[0]: 127 * float(values[node.input[1]])
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in values
    }


def without_pairs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every Q/DQ pair taken out again."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    sources = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type in QUANTIZING}
    nodes = [node for node in result.graph.node if node.op_type not in QUANTIZING]
    for node in nodes:
        for at, name in enumerate(node.input):
            while name in sources:
                name = sources[name]
            node.input[at] = name
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    return result
