"""Q/DQ pairs in a graph: which layers get them, how they are put in, and what a graph that has them says."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx.numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from triptych_build.adapt.graph import QUANTIZING, is_own
from triptych_build.quantize.precision import MATRIX_OPERATORS


def quantizable_layers(model: onnx.ModelProto) -> list[str]:
    """Return the names of the layers that int8 makes faster, in order.

    Products of two activations stay in float, and so does the sum over a distribution that decodes a box (a Softmax,
    then a convolution with the weights 0, 1, 2, …): a step of int8 there is pixels.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    distributions = {name for node in model.graph.node if node.op_type == "Softmax" for name in node.output}
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
    return quantizer.model.model


def quantized_layers(model: onnx.ModelProto) -> list[str]:
    """Return the names of the layers that read an activation through a Q/DQ pair."""
    pairs = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return [node.name for node in model.graph.node if node.op_type in MATRIX_OPERATORS and node.input[0] in pairs]


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
