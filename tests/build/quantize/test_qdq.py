"""Q/DQ pairs: where they stand, and what is read out of a graph that has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx.helper
import onnx.parser
import pytest

from support.detectors import HEADS
from support.graphs import adapted, constants_of, int8_layers, producers, record_of, scales, spec_of
from triptych_build.adapt.onnx_file import read_onnx, tidied
from triptych_build.quantize.calibrate import Calibration, calibration_images, read_pixels
from triptych_build.quantize.precision import precision_of
from triptych_build.quantize.qdq import (
    Coverage,
    activation_limits,
    coverage,
    layers_with_weights,
    prepare,
    quantizable_layers,
    quantized_layers,
    without_pairs,
)
from triptych_build.quantize.quantizer import post_training
from triptych_build.quantize.sensitivity import candidates_of


def test_zero_points_are_zero_and_int8(quantized: onnx.ModelProto) -> None:
    onnx.checker.check_model(quantized, full_check=True)
    weights = constants_of(quantized)
    pairs = [node for node in quantized.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero_point = weights[node.input[2]]
        assert zero_point.dtype == np.int8
        assert not zero_point.any()


def test_scales_are_per_channel_for_weights_and_per_tensor_else(quantized: onnx.ModelProto) -> None:
    made_by = producers(quantized)
    weights = constants_of(quantized)
    layers = [node for node in quantized.graph.node if node.op_type == "Conv"]
    for layer in layers:
        activation, weight = made_by[layer.input[0]], made_by[layer.input[1]]
        assert weights[activation.input[1]].ndim == 0
        quantizer = made_by[weight.input[0]]
        assert quantizer.op_type == "QuantizeLinear", "TensorRT wants float weights with a pair of their own"
        assert weights[weight.input[1]].shape == weights[quantizer.input[0]].shape[:1]
        assert next(attribute.i for attribute in weight.attribute if attribute.name == "axis") == 0
        assert layer.input[2] in weights, "a bias stays in float"
        assert weights[layer.input[2]].dtype == np.float32


def test_pairs_stand_before_layers_only(quantized: onnx.ModelProto) -> None:
    """Every pair feeds a layer (and whatever else reads that tensor); none comes after the last layers."""
    readers: dict[str, set[str]] = {}
    for node in quantized.graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    pairs = [node for node in quantized.graph.node if node.op_type == "DequantizeLinear"]
    assert pairs
    for node in pairs:
        assert "Conv" in readers[node.output[0]], node.output[0]
    assert producers(quantized)["candidates"].op_type != "DequantizeLinear"


def test_what_is_quantized_is_all_layers_and_nothing_of_ours(demo: Path, quantized: onnx.ModelProto) -> None:
    layers = quantizable_layers(read_onnx(demo))
    assert len(layers) == 68
    assert sorted(int8_layers(quantized)) == sorted(quantized_layers(quantized)) == sorted(layers)
    assert precision_of(quantized) == "int8"
    assert record_of(quantized) == record_of(onnx.load(demo))


@pytest.mark.parametrize("make", HEADS)
def test_every_head_can_be_quantized(tmp_path: Path, images: Path, make: Callable[[Path], Path]) -> None:
    """Within a tenth of score: one layer, calibrated on the pictures that it is then tried on."""
    path = adapted(make(tmp_path / "source.onnx"))
    calibration = Calibration(calibration_images(images), "max")
    model = post_training(read_onnx(path), spec_of(path), calibration).model
    onnx.checker.check_model(model, full_check=True)
    assert len(quantized_layers(model)) == 1
    pixels = read_pixels(calibration.images[:2], spec_of(path))
    reference, candidates = (candidates_of(graph, pixels) for graph in (onnx.load(path), model))
    assert np.abs(np.sort(reference[..., 4]) - np.sort(candidates[..., 4])).max() < 0.1


def test_limits_are_127_steps(quantized: onnx.ModelProto) -> None:
    assert activation_limits(quantized) == pytest.approx({name: 127 * step for name, step in scales(quantized).items()})


def test_without_its_pairs_a_model_is_what_it_was(deep: Path, quantized_deep: onnx.ModelProto) -> None:
    bare, model = without_pairs(quantized_deep), prepare(read_onnx(deep))
    assert not quantized_layers(bare)
    assert len(quantized_layers(quantized_deep)) == len(quantizable_layers(model))
    wiring = [
        [(node.name, list(node.input), list(node.output)) for node in graph.graph.node] for graph in (bare, model)
    ]
    assert sorted(wiring[0]) == sorted(wiring[1])


def test_how_much_is_in_int8(deep: Path, quantized_deep: onnx.ModelProto) -> None:
    layers = layers_with_weights(read_onnx(deep))
    assert len(layers) == 21
    assert coverage(read_onnx(deep)) == Coverage((), tuple(layers))
    assert coverage(quantized_deep) == Coverage(tuple(layers), ())
    partly = Coverage(("a", "b", "c"), ("d",))
    assert partly.share == 0.75
    assert partly.to_dict() == {"layers": 3, "of": 4, "left_in_float": ["d"]}


def test_the_sum_over_a_distribution_and_products_of_activations_are_no_layers() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]> g
        (float[1, 4, 4, 4] x, float[1, 4, 4, 4] y) => (float[1, 1, 4, 4] z) {
            w = Constant <value = float[4, 4, 1, 1] {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}> ()
            v = Transpose <perm = [1, 0, 2, 3]> (w)
            [calculated] a = Conv (x, v)
            [product] b = MatMul (a, y)
            s = Softmax <axis = 1> (b)
            numbers = Constant <value = float[1, 4, 1, 1] {0, 1, 2, 3}> ()
            [expectation] z = Conv (s, numbers)
        }"""
    )
    assert layers_with_weights(model) == ["calculated"]


def mark_as_inferred(model: onnx.ModelProto) -> None:
    entry = model.metadata_props.add()
    entry.key, entry.value = "onnx.infer", "onnxruntime.quant"


def put_weights_behind_identity(model: onnx.ModelProto) -> None:
    for node in [node for node in model.graph.node if node.op_type == "Conv"]:
        model.graph.node.append(onnx.helper.make_node("Identity", [node.input[1]], [f"{node.input[1]}/same"]))
        node.input[1] = f"{node.input[1]}/same"


def use_operators_that_only_the_runtime_knows(model: onnx.ModelProto) -> None:
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    del model.graph.value_info[:]
    for node in model.graph.node:
        if node.op_type == "LeakyRelu":
            node.op_type, node.domain = "QuickGelu", "com.microsoft"
            del node.attribute[:]


@pytest.mark.parametrize(
    "change", [mark_as_inferred, put_weights_behind_identity, use_operators_that_only_the_runtime_knows]
)
def test_no_layer_is_passed_over(deep: Path, images: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    """ONNX Runtime's quantizer leaves out, without an error, what it knows no type or no weights of."""
    model = read_onnx(deep)
    change(model)
    calibration = Calibration(calibration_images(images)[:1], "max")
    result = post_training(tidied(model), spec_of(deep), calibration).model
    assert coverage(result).share == 1
    assert not any(entry.key == "onnx.infer" for entry in result.metadata_props)
