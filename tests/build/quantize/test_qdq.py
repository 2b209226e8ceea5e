"""Q/DQ pairs: where they stand, and what is read out of a graph that has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import pytest

from support.detectors import HEADS
from support.graphs import adapted, constants_of, int8_layers, producers, record_of, scales, spec_of
from triptych_build.adapt.onnx_file import read_onnx
from triptych_build.quantize.calibrate import Calibration, calibration_images, read_pixels
from triptych_build.quantize.precision import precision_of
from triptych_build.quantize.qdq import activation_limits, quantizable_layers, quantized_layers, without_pairs
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
    bare, model = without_pairs(quantized_deep), read_onnx(deep)
    assert not quantized_layers(bare)
    assert len(quantized_layers(quantized_deep)) == len(quantizable_layers(model))
    wiring = [
        [(node.name, list(node.input), list(node.output)) for node in graph.graph.node] for graph in (bare, model)
    ]
    assert sorted(wiring[0]) == sorted(wiring[1])
