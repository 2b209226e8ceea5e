"""Precisions in the graph itself: what becomes narrow and what may not, and what int8 ranges do to real models."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx.numpy_helper
import onnx.shape_inference
import pytest
from onnx import TensorProto

from support import ROOT
from support.detectors import (
    CLASSES,
    HEADS,
    SIDE,
    add_constants,
    conv_model,
)
from triptych.errors import BuildError
from triptych.runtimes import open_runtime
from triptych_build.adapt import adapter as adapt
from triptych_build.adapt.adapter import Overrides
from triptych_build.quantize import quantize
from triptych_build.quantize.quantize import Calibration
from triptych_demo.detector.boards import generate

DEMO = ROOT / "demo" / "pcb.onnx"
HELD_OUT_SEED = 1000

ELEMENTS = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def adapted(source: Path, overrides: Overrides | None = None) -> Path:
    path = source.with_name("adapted.onnx")
    adapt.adapt_file(source, path, overrides or Overrides())
    return path


def narrowed(path: Path, precision: str) -> onnx.ModelProto:
    model = quantize.narrow(adapt.read_onnx(path), precision)
    onnx.checker.check_model(model, full_check=True)
    return model


def elements(model: onnx.ModelProto) -> dict[str, int]:
    """Every tensor's element type."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    found = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.input, *graph.output)}
    return found | {tensor.name: tensor.data_type for tensor in graph.initializer}


def narrow_operators(model: onnx.ModelProto, precision: str) -> list[str]:
    """The operators that give a narrow tensor, in order."""
    types = elements(model)
    return [
        node.op_type for node in model.graph.node if any(types.get(name) == ELEMENTS[precision] for name in node.output)
    ]


def distance(reference: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The distance of each candidate [N, K, 6] to the nearest of its class: pixels, and a thousandth of score as one.

    Candidates of nearly the same score may change places, so that rows cannot be compared one by one.
    """
    scaled, other = (rows * np.array([1, 1, 1, 1, 1000, 1e6]) for rows in (reference, others))
    return np.abs(scaled[:, :, None] - other[:, None]).max(-1).min(-1)


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "adapted.onnx"
    adapt.adapt_file(DEMO, path, Overrides())
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six held-out boards."""
    directory = tmp_path_factory.mktemp("boards")
    for index in range(6):
        (directory / f"board_{index}.jpg").write_bytes(generate(HELD_OUT_SEED, index).jpeg)
    return directory


@pytest.fixture(scope="module")
def board_pixels(demo: Path, images: Path) -> np.ndarray:
    return quantize.read_pixels(quantize.calibration_images(images), spec_of(demo))


@pytest.fixture(scope="module")
def quantized(demo: Path, images: Path) -> onnx.ModelProto:
    calibration = Calibration(quantize.calibration_images(images)[:4], "max")
    return quantize.post_training(adapt.read_onnx(demo), spec_of(demo), calibration)


def spec_of(path: Path) -> quantize.DetectorSpec:
    record = adapt.read_adapted(adapt.read_onnx(path))
    assert record is not None
    return record.spec


# --- fp16 and bf16 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("make", HEADS)
def test_input_and_output_stay_the_contract_s(tmp_path: Path, make: Callable[[Path], Path], precision: str) -> None:
    path = adapted(make(tmp_path / "source.onnx"))
    model = narrowed(path, precision)
    (pixels,), (candidates,) = model.graph.input, model.graph.output
    assert (pixels.name, pixels.type.tensor_type.elem_type) == ("pixels", TensorProto.UINT8)
    assert (candidates.name, candidates.type.tensor_type.elem_type) == ("candidates", TensorProto.FLOAT)
    assert adapt.read_adapted(model) == adapt.read_adapted(onnx.load(path))
    assert quantize.precision_of(model) == precision


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("make", HEADS)
def test_all_but_the_layers_themselves_stays_float32(
    tmp_path: Path, make: Callable[[Path], Path], precision: str
) -> None:
    """These models are one convolution between our front and the decode of boxes with our tail."""
    model = narrowed(adapted(make(tmp_path / "source.onnx")), precision)
    assert narrow_operators(model, precision) == ["Cast", "Conv"]
    own = [name for node in model.graph.node for name in node.output if name.startswith("triptych/")]
    types = elements(model)
    assert {types[name] for name in own if name != f"triptych/image/{precision}"}.isdisjoint(ELEMENTS.values())


@pytest.mark.parametrize("make", HEADS)
def test_fp16_finds_what_float32_finds(tmp_path: Path, pixels: np.ndarray, make: Callable[[Path], Path]) -> None:
    """Within a quarter of a pixel of 64 and a thousandth of score."""
    path = adapted(make(tmp_path / "source.onnx"))
    onnx.save(narrowed(path, "fp16"), tmp_path / "fp16.onnx")
    reference, found = (
        open_runtime("onnxruntime", each, threads=1).detect(pixels) for each in (path, tmp_path / "fp16.onnx")
    )
    confident = reference[..., 4] > np.median(reference[..., 4])  # the last of the top K may drop out
    assert distance(reference, found)[confident].max() < 1
    assert not np.array_equal(reference, found), "fp16 must be seen in the figures"


@pytest.mark.parametrize("make", HEADS)
def test_bf16_runs_on_openvino(tmp_path: Path, pixels: np.ndarray, make: Callable[[Path], Path]) -> None:
    """bf16 has 8 bits of mantissa: a few hundredths of score."""
    path = adapted(make(tmp_path / "source.onnx"))
    onnx.save(narrowed(path, "bf16"), tmp_path / "bf16.onnx")
    reference, found = (
        open_runtime("openvino", each, threads=1).detect(pixels) for each in (path, tmp_path / "bf16.onnx")
    )
    assert found.shape == reference.shape
    assert np.abs(np.sort(found[..., 4]) - np.sort(reference[..., 4])).max() < 0.02


def test_the_demo_in_fp16_and_bf16(tmp_path: Path, demo: Path, board_pixels: np.ndarray) -> None:
    reference = open_runtime("onnxruntime", demo, threads=2).detect(board_pixels)
    for precision, runtime, most in (("fp16", "onnxruntime", 0.005), ("bf16", "openvino", 0.03)):
        onnx.save(narrowed(demo, precision), tmp_path / f"{precision}.onnx")
        found = open_runtime(runtime, tmp_path / f"{precision}.onnx", threads=2).detect(board_pixels)
        assert 0 < quantize.disagreement(reference, found) < most
    assert (tmp_path / "fp16.onnx").stat().st_size < 0.6 * demo.stat().st_size


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_demo_s_layers_are_narrow_and_its_decode_is_not(demo: Path, precision: str) -> None:
    model = narrowed(demo, precision)
    types, wide = elements(model), TensorProto.FLOAT
    layers = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(layers) == 68
    assert {types[name] for node in layers for name in (*node.input, *node.output)} == {ELEMENTS[precision]}
    needed: set[str] = set()  # by a layer, directly or not
    for node in reversed(model.graph.node):
        if node.op_type == "Conv" or not needed.isdisjoint(node.output):
            needed.update(node.input)
        elif node.op_type != "Cast":
            floats = {types[name] for name in node.output} & {wide, *ELEMENTS.values()}
            assert floats <= {wide}, f"{node.op_type} {node.output[0]} comes after the last layer"


@pytest.mark.parametrize(("precision", "expected"), [("fp16", ["Cast", "Conv"]), ("bf16", ["Cast", "Conv"] * 2)])
def test_a_weight_beyond_the_range_keeps_its_layer_wide(tmp_path: Path, precision: str, expected: list[str]) -> None:
    model = adapt.read_onnx(adapted(two_layers(tmp_path / "source.onnx")))
    for tensor in model.graph.initializer:
        if tensor.name == "weight":
            weight = onnx.numpy_helper.to_array(tensor).copy()
            weight[0, 0, 0, 0] = -1e5
            tensor.CopyFrom(onnx.numpy_helper.from_array(weight, "weight"))
    narrow = quantize.narrow(model, precision)
    onnx.checker.check_model(narrow, full_check=True)
    values = [onnx.numpy_helper.to_array(tensor) for tensor in narrow.graph.initializer]
    assert all(np.isfinite(value.astype(np.float64)).all() for value in values)
    first = next(node for node in narrow.graph.node if node.op_type == "Conv")
    assert elements(narrow)[first.output[0]] == (TensorProto.FLOAT if precision == "fp16" else TensorProto.BFLOAT16)


def two_layers(path: Path) -> Path:
    """The raw head with a second convolution behind a Resize to twice the size."""
    conv_model(
        path,
        """larger = Resize <mode = "nearest"> (cells, nothing, twice)
            maps = Conv <strides = [2, 2]> (larger, second, second_bias)
            flat = Reshape (maps, flat_shape)
            boxes, logits = Split <axis = 1> (flat, parts)
            spread = Mul (boxes, sixteen)
            positive = Abs (spread)
            scores = Sigmoid (logits)
            output0 = Concat <axis = 1> (positive, scores)""",
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
        flat_shape=np.array([0, 4 + CLASSES, -1]),
        parts=np.array([4, CLASSES]),
        sixteen=np.array(16, np.float32),
    )


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_scales_of_a_resize_stay_float32(tmp_path: Path, pixels: np.ndarray, precision: str) -> None:
    path = adapted(two_layers(tmp_path / "source.onnx"))
    model = narrowed(path, precision)
    (resize,) = (node for node in model.graph.node if node.op_type == "Resize")
    types = elements(model)
    assert [types[name] for name in resize.input] == [ELEMENTS[precision], TensorProto.FLOAT, TensorProto.FLOAT]
    onnx.save(model, tmp_path / "narrow.onnx")
    reference, found = (
        open_runtime("openvino", each, threads=1).detect(pixels) for each in (path, tmp_path / "narrow.onnx")
    )
    assert np.abs(found[..., 4] - reference[..., 4]).max() < 0.02


def test_what_a_narrow_tensor_s_wide_readers_get(tmp_path: Path, pixels: np.ndarray) -> None:
    """A tensor that both a layer and the decode read is there in both types."""
    path = tmp_path / "source.onnx"
    two_layers(path)
    model = onnx.load(path)
    mean = onnx.helper.make_node("ReduceMean", ["larger"], ["mean"], axes=[1, 2, 3], keepdims=1)
    squeezed = onnx.helper.make_node("Reshape", ["mean", "flat_one"], ["mean_flat"])
    shifted = onnx.helper.make_node("Add", ["logits", "mean_flat"], ["shifted"])
    at = next(number for number, node in enumerate(model.graph.node) if node.op_type == "Sigmoid")
    model.graph.node[at].input[0] = "shifted"
    for offset, node in enumerate((mean, squeezed, shifted)):
        model.graph.node.insert(at + offset, node)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 1, 1]), "flat_one"))
    onnx.save(model, path)
    narrow = narrowed(adapted(path), "fp16")
    types = elements(narrow)
    assert (types["larger/fp16"], types["larger"], types["mean"]) == (TensorProto.FLOAT16,) + (TensorProto.FLOAT,) * 2
    onnx.save(narrow, tmp_path / "fp16.onnx")
    reference, found = (
        open_runtime("onnxruntime", each, threads=1).detect(pixels)
        for each in (tmp_path / "adapted.onnx", tmp_path / "fp16.onnx")
    )
    assert np.abs(found[..., 4] - reference[..., 4]).max() < 2e-3


def test_a_quantized_graph_narrows_with_its_scales(quantized: onnx.ModelProto, board_pixels: np.ndarray) -> None:
    model = quantize.narrow(copy_of(quantized), "fp16")
    onnx.checker.check_model(model, full_check=True)
    assert adapt.opset_of(model) == 19
    types = elements(model)
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    wide = [node.output[0] for node in pairs if types[node.input[1]] != TensorProto.FLOAT16]
    assert not wide, "a Cast between a pair and its layer keeps TensorRT from fusing them"
    assert quantize.is_quantized(model)
    assert quantize.precision_of(model) == "int8"
    reference, found = (quantize._candidates(each, board_pixels[:2]) for each in (quantized, model))
    # In fp16 a value falls to the next step of int8 here and there, as far as rounding to int8 itself moves boxes.
    assert quantize.disagreement(reference, found) < 0.1


def test_narrowing_leaves_the_float32_model_alone(demo: Path) -> None:
    model = adapt.read_onnx(demo)
    quantize.narrow(model, "fp16")
    assert quantize.precision_of(model) == "fp32"
    onnx.checker.check_model(model, full_check=True)


# --- int8 ------------------------------------------------------------------------------------------------------------


def copy_of(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def quantized_layers(model: onnx.ModelProto) -> list[str]:
    """Layers that take both activations and weights from a Q/DQ pair."""
    made_by = producers(model)

    def is_dequantized(name: str) -> bool:
        return name in made_by and made_by[name].op_type == "DequantizeLinear"

    return [
        node.name
        for node in model.graph.node
        if node.op_type in quantize.MATRIX_OPERATORS and all(map(is_dequantized, node.input[:2]))
    ]


def test_zero_points_are_zero_and_int8(quantized: onnx.ModelProto) -> None:
    onnx.checker.check_model(quantized, full_check=True)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
    pairs = [node for node in quantized.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        zero_point = weights[node.input[2]]
        assert zero_point.dtype == np.int8
        assert not zero_point.any()


def test_scales_are_per_channel_for_weights_and_per_tensor_else(quantized: onnx.ModelProto) -> None:
    made_by = producers(quantized)
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in quantized.graph.initializer}
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


def test_pairs_stand_before_layers_alone(quantized: onnx.ModelProto) -> None:
    """Every pair feeds a layer (and whatever else reads that tensor); none stands behind the last layers."""
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
    layers = quantize.quantizable_layers(quantize.named(adapt.read_onnx(demo)))
    assert len(layers) == 68
    assert sorted(quantized_layers(quantized)) == sorted(layers)
    assert quantize.precision_of(quantized) == "int8"
    assert adapt.read_adapted(quantized) == adapt.read_adapted(onnx.load(demo))


@pytest.mark.parametrize("method", quantize.METHODS)
def test_every_method_keeps_what_the_detector_finds(
    demo: Path, images: Path, board_pixels: np.ndarray, method: quantize.Method
) -> None:
    model = adapt.read_onnx(demo)
    calibration = Calibration(quantize.calibration_images(images)[:4], method)
    found = quantize.post_training(copy_of(model), spec_of(demo), calibration)
    onnx.checker.check_model(found, full_check=True)
    reference, candidates = (quantize._candidates(each, board_pixels) for each in (model, found))
    assert 0 < quantize.disagreement(reference, candidates) < 0.08


def scales(model: onnx.ModelProto) -> dict[str, float]:
    """The scale of each quantized activation."""
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    return {
        node.input[0]: float(weights[node.input[1]])
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in weights
    }


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_a_method_chooses_ranges_of_its_own(
    demo: Path, images: Path, quantized: onnx.ModelProto, method: quantize.Method
) -> None:
    calibration = Calibration(quantize.calibration_images(images)[:4], method)
    chosen = scales(quantize.post_training(adapt.read_onnx(demo), spec_of(demo), calibration))
    whole = scales(quantized)
    assert chosen.keys() == whole.keys()
    assert all(chosen[name] <= whole[name] * 1.02 for name in whole), "no range is wider than what was seen"
    assert any(chosen[name] < whole[name] * 0.9 for name in whole), f"{method} must not be max by another name"


def test_every_image_counts_whatever_chunk_it_is_in(
    demo: Path, images: Path, quantized: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "CHUNK", 1)
    calibration = Calibration(quantize.calibration_images(images)[:4], "max")
    again = quantize.post_training(adapt.read_onnx(demo), spec_of(demo), calibration)
    assert scales(again) == pytest.approx(scales(quantized))


@pytest.mark.parametrize("many", [False, True], ids=["name", "pattern"])
def test_excluded_layers_stay_in_float(demo: Path, images: Path, many: bool) -> None:
    layers = quantize.quantizable_layers(quantize.named(adapt.read_onnx(demo)))
    prefix = layers[-1].rsplit("/", 2)[0]
    pattern = f"{prefix}/*" if many else layers[3]
    expected = [layer for layer in layers if not (layer.startswith(f"{prefix}/") if many else layer == layers[3])]
    calibration = Calibration(quantize.calibration_images(images)[:1], "max", exclude=(pattern,))
    found = quantized_layers(quantize.post_training(adapt.read_onnx(demo), spec_of(demo), calibration))
    assert sorted(found) == sorted(expected)
    assert 0 < len(layers) - len(found) < len(layers)


def test_a_pattern_that_names_nothing_is_refused(demo: Path, images: Path) -> None:
    calibration = Calibration(quantize.calibration_images(images)[:1], "max", exclude=("/nowhere/*",))
    with pytest.raises(
        BuildError, match=r"--exclude /nowhere/\* names no layer that int8 would change; such layers are"
    ):
        quantize.post_training(adapt.read_onnx(demo), spec_of(demo), calibration)


def test_excluding_everything_is_refused(demo: Path, images: Path) -> None:
    calibration = Calibration(quantize.calibration_images(images)[:1], "max", exclude=("*",))
    with pytest.raises(BuildError, match="every layer is excluded from int8; exclude fewer, or build fp16"):
        quantize.post_training(adapt.read_onnx(demo), spec_of(demo), calibration)


def test_what_is_quantized_already_is_refused(demo: Path, images: Path, quantized: onnx.ModelProto) -> None:
    calibration = Calibration(quantize.calibration_images(images)[:1], "max")
    with pytest.raises(BuildError, match="quantized already"):
        quantize.post_training(copy_of(quantized), spec_of(demo), calibration)


@pytest.mark.parametrize("make", HEADS)
def test_every_head_can_be_quantized(
    tmp_path: Path, images: Path, pixels: np.ndarray, make: Callable[[Path], Path]
) -> None:
    """Within a tenth of score: one layer, calibrated on the pictures that it is then tried on."""
    path = adapted(make(tmp_path / "source.onnx"))
    calibration = Calibration(quantize.calibration_images(images), "max")
    found = quantize.post_training(adapt.read_onnx(path), spec_of(path), calibration)
    onnx.checker.check_model(found, full_check=True)
    assert len(quantized_layers(found)) == 1
    seen = quantize.read_pixels(calibration.images[:2], spec_of(path))
    reference, candidates = (quantize._candidates(each, seen) for each in (onnx.load(path), found))
    assert np.abs(np.sort(reference[..., 4]) - np.sort(candidates[..., 4])).max() < 0.1


# --- the scan --------------------------------------------------------------------------------------------------------


FRAGILE = 18
"""The layer of `deep_model` whose input has one channel a thousand times as large as the others."""


def deep_model(path: Path, layers: int = 19) -> Path:
    """The raw head behind many small convolutions, one of which int8 harms."""
    rng = np.random.default_rng(11)
    width, constants, body = 8, {}, []
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
    body.append(
        f"""maps = Conv ({last}, out)
            flat = Reshape (maps, flat_shape)
            boxes, logits = Split <axis = 1> (flat, parts)
            spread = Mul (boxes, sixteen)
            positive = Abs (spread)
            scores = Sigmoid (logits)
            output0 = Concat <axis = 1> (positive, scores)"""
    )
    conv_model(path, "\n".join(body), f"N, {4 + CLASSES}, 64", width)
    return add_constants(
        path,
        **constants,
        out=rng.normal(0, 0.5, (4 + CLASSES, width, 1, 1)).astype(np.float32),
        flat_shape=np.array([0, 4 + CLASSES, -1]),
        parts=np.array([4, CLASSES]),
        sixteen=np.array(16, np.float32),
    )


def test_a_scan_leaves_the_fragile_layer_in_float_and_at_most_a_tenth(
    tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = adapted(deep_model(tmp_path / "source.onnx"))
    model = quantize.named(adapt.read_onnx(path))
    layers = quantize.quantizable_layers(model)
    fragile = next(node.name for node in model.graph.node if node.op_type == "Conv" and "grown" in node.input[0])
    calibration = Calibration(quantize.calibration_images(images)[:4], "max")
    all_of_them, scanned = (
        quantize.post_training(adapt.read_onnx(path), spec_of(path), each)
        for each in (calibration, Calibration(calibration.images, "max", scan=True))
    )
    left = set(layers) - set(quantized_layers(scanned))
    assert fragile in left
    assert len(left) <= len(layers) // 10
    assert f"quantize: {fragile} stays in float: alone it moves detections by" in capsys.readouterr().out
    pixels = quantize.read_pixels(calibration.images, spec_of(path))
    reference, before, after = (quantize._candidates(each, pixels) for each in (model, all_of_them, scanned))
    assert quantize.disagreement(reference, after) < quantize.disagreement(reference, before)


BOX = [10, 10, 50, 50]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ([[*BOX, 0.8, 1]], 0),
        ([[*BOX, 0.4, 1]], 0.5),
        ([[10, 10, 50, 30, 0.8, 1]], 0.5),
        ([[*BOX, 0.8, 2]], 1),
        ([[60, 60, 90, 90, 0.9, 1], [*BOX, 0.8, 1]], 0),
    ],
)
def test_disagreement(other: list[list[float]], expected: float) -> None:
    reference = np.array([[[*BOX, 0.8, 1]]], np.float32)
    assert quantize.disagreement(reference, np.array([other], np.float32)) == pytest.approx(expected, abs=1e-6)


def test_disagreement_counts_confident_candidates_or_the_best() -> None:
    unsure = np.array([[[*BOX, 0.2, 1], [*BOX, 0.1, 2]]], np.float32)
    assert quantize.disagreement(unsure, unsure[:, :1]) == pytest.approx(0, abs=1e-6)
    sure = unsure + np.array([0, 0, 0, 0, 0.5, 0], np.float32)
    assert quantize.disagreement(sure, sure[:, :1]) == pytest.approx(0.5, abs=1e-6)


# --- precisions ------------------------------------------------------------------------------------------------------


def test_what_precision_a_graph_has(demo: Path, quantized: onnx.ModelProto) -> None:
    model = adapt.read_onnx(demo)
    assert quantize.precision_of(model) == "fp32"
    assert quantize.precision_of(quantize.narrow(model, "fp16")) == "fp16"
    assert quantize.precision_of(quantize.narrow(model, "bf16")) == "bf16"
    assert quantize.precision_of(quantized) == "int8"


@pytest.mark.parametrize(
    ("found", "asked", "message"),
    [
        ("fp32", "int8", r"x.onnx has no Q/DQ pairs; make them first: `python build/quantize.py x.onnx"),
        ("int8", "fp32", r"x.onnx is quantized already .*--precision int8"),
        ("int8", "fp16", r"x.onnx is quantized already .*--precision int8"),
        ("fp16", "fp32", r"x.onnx is in fp16, but fp32 is asked for; build from the float32 graph"),
        ("fp16", "bf16", r"x.onnx is in fp16, but bf16 is asked for"),
        ("bf16", "int8", r"x.onnx has no Q/DQ pairs"),
    ],
)
def test_a_graph_that_does_not_suit_a_precision(
    demo: Path, quantized: onnx.ModelProto, found: str, asked: str, message: str
) -> None:
    model = adapt.read_onnx(demo)
    model = {"fp32": model, "int8": quantized}.get(found) or quantize.narrow(model, found)
    with pytest.raises(BuildError, match=message):
        quantize.check_precision(model, asked, Path("x.onnx"))


def test_graphs_that_suit_their_precision(demo: Path, quantized: onnx.ModelProto) -> None:
    for precision in ("fp32", "fp16", "bf16"):
        quantize.check_precision(adapt.read_onnx(demo), precision, demo)
    quantize.check_precision(quantized, "int8", demo)
    quantize.check_precision(quantize.narrow(adapt.read_onnx(demo), "fp16"), "fp16", demo)


# --- files and the command line --------------------------------------------------------------------------------------


def arguments(*words: object) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    quantize.add_arguments(parser)
    return parser.parse_args(list(map(str, words)))


def test_few_images_are_warned_about(images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calibration = quantize.calibration_from(arguments("--calibration", images, "--exclude", "a", "--exclude", "b*"))
    assert calibration == Calibration(quantize.calibration_images(images), "percentile", ("a", "b*"), False)
    assert "only 6 calibration images; 200 or more are advised" in capsys.readouterr().out


def test_enough_images_are_not(tmp_path: Path, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(quantize.ADVISED_IMAGES):
        shutil.copyfile(images / "board_0.jpg", tmp_path / f"{number:03}.jpg")
    calibration = quantize.calibration_from(arguments("--calibration", tmp_path))
    assert calibration is not None
    assert len(calibration.images) == quantize.ADVISED_IMAGES
    assert not capsys.readouterr().out
    assert quantize.calibration_from(arguments()) is None


def test_the_hash_is_of_the_images_and_their_order(images: Path) -> None:
    files = quantize.calibration_images(images)
    assert Calibration(files).sha256() == Calibration(files, "max").sha256()
    assert len({Calibration(each).sha256() for each in (files, files[:5], files[::-1])}) == 3


def test_no_directory_and_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"there is no directory of calibration images .*nowhere; name one with"):
        quantize.calibration_images(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(BuildError, match="holds no images to calibrate with; put at least 200 typical ones there"):
        quantize.calibration_images(tmp_path)


def test_nothing_is_left_where_an_image_cannot_be_read(tmp_path: Path, demo: Path, images: Path) -> None:
    directory = shutil.copytree(images, tmp_path / "images")
    (directory / "board_3.jpg").write_bytes((directory / "board_3.jpg").read_bytes()[:50])
    calibration = Calibration(quantize.calibration_images(directory), "max")
    out = tmp_path / "out" / "int8.onnx"
    with pytest.raises(BuildError, match=r"the calibration image .*board_3\.jpg cannot be read \(.+\); remove it"):
        quantize.quantize_file(demo, out, "int8", calibration)
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_nothing_is_left_where_the_disk_refuses(tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_model: onnx.ModelProto, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(onnx, "save", refuse)
    with pytest.raises(OSError, match="No space left"):
        quantize.quantize_file(demo, tmp_path / "fp16.onnx", "fp16")
    assert not list(tmp_path.iterdir())


def test_files_of_every_precision(tmp_path: Path, demo: Path, images: Path) -> None:
    calibration = Calibration(quantize.calibration_images(images)[:1], "max")
    for precision in quantize.PRECISIONS:
        quantize.quantize_file(demo, tmp_path / f"{precision}.onnx", precision, calibration)
        assert quantize.precision_of(adapt.read_onnx(tmp_path / f"{precision}.onnx")) == precision
    quantize.quantize_file(tmp_path / "int8.onnx", tmp_path / "again.onnx", "int8")
    assert onnx.load(tmp_path / "again.onnx") == onnx.load(tmp_path / "int8.onnx")


def test_int8_without_images_and_a_source_as_it_is(tmp_path: Path, demo: Path) -> None:
    with pytest.raises(BuildError, match=r"int8 needs images to calibrate with; .*--calibration"):
        quantize.quantize_file(demo, tmp_path / "out.onnx", "int8")
    with pytest.raises(BuildError, match=r"is not adapted to the contract; run `python build/adapt.py"):
        quantize.quantize_file(DEMO, tmp_path / "out.onnx", "fp16")
    assert not list(tmp_path.iterdir())


def test_the_command_line(tmp_path: Path, demo: Path, images: Path) -> None:
    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(ROOT / "build" / "quantize.py"), *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    out = tmp_path / "int8.onnx"
    done = run(demo, "--precision", "int8", "--calibration", images, "--method", "max", "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"quantize: {out} in int8" in done.stdout
    assert "Collecting" not in done.stdout, "the calibrators' own chatter"
    assert "only 6 calibration images" in done.stdout
    refused = run(demo, "--precision", "int8", "--calibration", tmp_path / "nowhere", "--out", tmp_path / "no.onnx")
    assert refused.returncode == 1
    assert refused.stderr.startswith("error: there is no directory of calibration images")
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "no.onnx").exists()
