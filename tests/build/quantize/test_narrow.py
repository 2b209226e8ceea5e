"""fp16 and bf16 in the graph: what becomes narrow, and what may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx.helper
import onnx.numpy_helper
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from support.detectors import HEADS, two_layers
from support.graphs import adapted, constants_of, distance, elements, narrow_operators, record_of
from triptych.runtimes import open_runtime
from triptych_build.adapt.onnx_file import opset_of, read_onnx
from triptych_build.quantize.narrow import narrow
from triptych_build.quantize.precision import NARROW, is_quantized, precision_of
from triptych_build.quantize.sensitivity import candidates_of, disagreement

NARROW_TYPES = {element for element, _ in NARROW.values()}


def narrowed(path: Path, precision: str) -> onnx.ModelProto:
    model = narrow(read_onnx(path), precision)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("make", HEADS)
def test_input_and_output_stay_the_contract_s(tmp_path: Path, make: Callable[[Path], Path], precision: str) -> None:
    path = adapted(make(tmp_path / "source.onnx"))
    model = narrowed(path, precision)
    (pixels,), (candidates,) = model.graph.input, model.graph.output
    assert (pixels.name, pixels.type.tensor_type.elem_type) == ("pixels", TensorProto.UINT8)
    assert (candidates.name, candidates.type.tensor_type.elem_type) == ("candidates", TensorProto.FLOAT)
    assert record_of(model) == record_of(onnx.load(path))
    assert precision_of(model) == precision


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
    assert {types[name] for name in own if name != f"triptych/image/{precision}"}.isdisjoint(NARROW_TYPES)


@pytest.mark.parametrize("make", HEADS)
def test_fp16_detects_what_float32_detects(
    tmp_path: Path, pixels: NDArray[np.uint8], make: Callable[[Path], Path]
) -> None:
    """Within a quarter of a pixel of 64 and a thousandth of score."""
    path = adapted(make(tmp_path / "source.onnx"))
    onnx.save(narrowed(path, "fp16"), tmp_path / "fp16.onnx")
    reference, candidates = (
        open_runtime("onnxruntime", file, threads=1).detect(pixels) for file in (path, tmp_path / "fp16.onnx")
    )
    confident = reference[..., 4] > np.median(reference[..., 4])  # the last of the top K may drop out
    assert distance(reference, candidates)[confident].max() < 1
    assert not np.array_equal(reference, candidates), "fp16 must show in the figures"


@pytest.mark.parametrize("make", HEADS)
def test_bf16_runs_on_openvino(tmp_path: Path, pixels: NDArray[np.uint8], make: Callable[[Path], Path]) -> None:
    """bf16 has 8 bits of mantissa: a few hundredths of score."""
    path = adapted(make(tmp_path / "source.onnx"))
    onnx.save(narrowed(path, "bf16"), tmp_path / "bf16.onnx")
    reference, candidates = (
        open_runtime("openvino", file, threads=1).detect(pixels) for file in (path, tmp_path / "bf16.onnx")
    )
    assert candidates.shape == reference.shape
    assert np.abs(np.sort(candidates[..., 4]) - np.sort(reference[..., 4])).max() < 0.02


def test_the_demo_in_fp16_and_bf16(tmp_path: Path, demo: Path, board_pixels: NDArray[np.uint8]) -> None:
    reference = open_runtime("onnxruntime", demo, threads=2).detect(board_pixels)
    for precision, runtime, most in (("fp16", "onnxruntime", 0.005), ("bf16", "openvino", 0.03)):
        onnx.save(narrowed(demo, precision), tmp_path / f"{precision}.onnx")
        candidates = open_runtime(runtime, tmp_path / f"{precision}.onnx", threads=2).detect(board_pixels)
        assert 0 < disagreement(reference, candidates) < most
    assert (tmp_path / "fp16.onnx").stat().st_size < 0.6 * demo.stat().st_size


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_demo_s_layers_are_narrow_and_its_decode_is_not(demo: Path, precision: str) -> None:
    model = narrowed(demo, precision)
    types, wide = elements(model), TensorProto.FLOAT
    layers = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(layers) == 68
    assert {types[name] for node in layers for name in (*node.input, *node.output)} == {NARROW[precision][0]}
    needed: set[str] = set()  # by a layer, directly or not
    for node in reversed(model.graph.node):
        if node.op_type == "Conv" or not needed.isdisjoint(node.output):
            needed.update(node.input)
        elif node.op_type != "Cast":
            floats = {types[name] for name in node.output} & {wide, *NARROW_TYPES}
            assert floats <= {wide}, f"{node.op_type} {node.output[0]} comes after the last layer"


@pytest.mark.parametrize(("precision", "element"), [("fp16", TensorProto.FLOAT), ("bf16", TensorProto.BFLOAT16)])
def test_a_weight_beyond_the_range_keeps_its_layer_wide(tmp_path: Path, precision: str, element: int) -> None:
    model = read_onnx(adapted(two_layers(tmp_path / "source.onnx")))
    for tensor in model.graph.initializer:
        if tensor.name == "weight":
            weight = onnx.numpy_helper.to_array(tensor).copy()
            weight[0, 0, 0, 0] = -1e5
            tensor.CopyFrom(onnx.numpy_helper.from_array(weight, "weight"))
    result = narrow(model, precision)
    onnx.checker.check_model(result, full_check=True)
    assert all(np.isfinite(value.astype(np.float64)).all() for value in constants_of(result).values())
    first = next(node for node in result.graph.node if node.op_type == "Conv")
    assert elements(result)[first.output[0]] == element


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_scales_of_a_resize_stay_float32(tmp_path: Path, pixels: NDArray[np.uint8], precision: str) -> None:
    path = adapted(two_layers(tmp_path / "source.onnx"))
    model = narrowed(path, precision)
    (resize,) = (node for node in model.graph.node if node.op_type == "Resize")
    types = elements(model)
    assert [types[name] for name in resize.input] == [NARROW[precision][0], TensorProto.FLOAT, TensorProto.FLOAT]
    onnx.save(model, tmp_path / "narrow.onnx")
    reference, candidates = (
        open_runtime("openvino", file, threads=1).detect(pixels) for file in (path, tmp_path / "narrow.onnx")
    )
    assert np.abs(candidates[..., 4] - reference[..., 4]).max() < 0.02


def test_what_a_narrow_tensor_s_wide_readers_get(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
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
    model = narrowed(adapted(path), "fp16")
    types = elements(model)
    assert (types["larger/fp16"], types["larger"], types["mean"]) == (TensorProto.FLOAT16,) + (TensorProto.FLOAT,) * 2
    onnx.save(model, tmp_path / "fp16.onnx")
    reference, candidates = (
        open_runtime("onnxruntime", file, threads=1).detect(pixels)
        for file in (tmp_path / "adapted.onnx", tmp_path / "fp16.onnx")
    )
    assert np.abs(candidates[..., 4] - reference[..., 4]).max() < 2e-3


def test_a_quantized_graph_narrows_with_its_scales(quantized: onnx.ModelProto, board_pixels: NDArray[np.uint8]) -> None:
    model = narrow(quantized, "fp16")
    onnx.checker.check_model(model, full_check=True)
    assert opset_of(model) == 19
    types = elements(model)
    pairs = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    wide = [node.output[0] for node in pairs if types[node.input[1]] != TensorProto.FLOAT16]
    assert not wide, "a Cast between a pair and its layer keeps TensorRT from fusing them"
    assert is_quantized(model)
    assert precision_of(model) == "int8"
    reference, candidates = (candidates_of(graph, board_pixels[:2]) for graph in (quantized, model))
    # In fp16 a value falls to the next step of int8 here and there, as far as rounding to int8 itself moves boxes.
    assert disagreement(reference, candidates) < 0.1


def test_what_is_narrow_already_stays_as_it_is(tmp_path: Path) -> None:
    model = narrowed(adapted(two_layers(tmp_path / "source.onnx")), "fp16")
    assert narrow(model, "fp16") is model


def test_narrowing_leaves_the_float32_model_alone(demo: Path) -> None:
    model = read_onnx(demo)
    narrow(model, "fp16")
    assert precision_of(model) == "fp32"
    onnx.checker.check_model(model, full_check=True)
