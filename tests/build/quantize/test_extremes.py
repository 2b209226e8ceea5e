"""Activations that fp16 does not hold: found on images, said, and left in float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.checker
import onnx.helper
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from support.detectors import normed_model, two_layers
from support.graphs import adapted, copy_of, elements, spec_of
from triptych_build.adapt.onnx_file import read_onnx, tidied
from triptych_build.quantize import extremes
from triptych_build.quantize.calibrate import Calibration, calibration_images, read_pixels
from triptych_build.quantize.extremes import describe, mark, measure_file
from triptych_build.quantize.narrow import narrow, needs_float32
from triptych_build.quantize.qdq import coverage
from triptych_build.quantize.quantizer import post_training, quantize_file

HUGE, TINY = 6e4, 1e-6
"""What features are multiplied with: they pass fp16's largest number, or their variance falls below its smallest."""


def scores_of(model: onnx.ModelProto, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Scores by ONNX's own reference, which rounds to fp16 after each operator. ONNX Runtime on a CPU does not."""
    cut = copy_of(model)
    del cut.graph.output[:]
    cut.graph.output.append(onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, None))
    with np.errstate(all="ignore"):
        (scores,) = ReferenceEvaluator(tidied(cut)).run(None, {"pixels": pixels})
    return np.nan_to_num(np.asarray(scores, np.float64))


def error(reference: onnx.ModelProto, model: onnx.ModelProto, pixels: NDArray[np.uint8]) -> float:
    """How far scores move at most."""
    return float(np.abs(scores_of(model, pixels) - scores_of(reference, pixels)).max())


@pytest.mark.parametrize(("factor", "reason"), [(HUGE, "and fp16 ends at 65504"), (TINY, "a root is taken of")])
def test_what_fp16_does_not_hold_stays_wide(
    tmp_path: Path, pixels: NDArray[np.uint8], factor: float, reason: str
) -> None:
    path = adapted(normed_model(tmp_path / "source.onnx", factor))
    model = read_onnx(path)
    assert error(model, narrow(model, "fp16"), pixels) > 0.1, "the case shows nothing"
    mark(model, pixels)
    result = narrow(model, "fp16")
    onnx.checker.check_model(result, full_check=True)
    assert error(model, result, pixels) < 0.005
    assert any(reason in why for why in needs_float32(model).values())
    (line,) = describe(model)
    assert line.startswith("quantize: fp16 would lose activations, which stay in float32: ")
    types = elements(result)
    narrow_layers = [node.name for node in result.graph.node if types[node.output[0]] == onnx.TensorProto.FLOAT16]
    assert {node.name for node in result.graph.node if node.op_type == "Conv"} <= set(narrow_layers)


def test_what_fits_becomes_narrow(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    model = read_onnx(adapted(two_layers(tmp_path / "source.onnx")))
    plain = narrow(model, "fp16")
    mark(model, pixels)
    assert needs_float32(model) == {}
    assert describe(model) == []
    assert [node.op_type for node in narrow(model, "fp16").graph.node] == [node.op_type for node in plain.graph.node]


def test_bf16_has_float32_s_range(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    model = read_onnx(adapted(normed_model(tmp_path / "source.onnx", HUGE)))
    plain = narrow(model, "bf16")
    mark(model, pixels)
    assert [node.op_type for node in narrow(model, "bf16").graph.node] == [node.op_type for node in plain.graph.node]


def test_what_int8_leaves_is_held_too(tmp_path: Path, images: Path) -> None:
    """TensorRT runs in fp16 what is not quantized; a pair on what fp16 does not hold dequantizes to float32."""
    path = adapted(normed_model(tmp_path / "source.onnx", HUGE))
    model = read_onnx(path)
    files = calibration_images(images)[:2]
    pixels = read_pixels(files, spec_of(path))
    mark(model, pixels)
    quantized = post_training(model, spec_of(path), Calibration(files, "max")).model
    assert coverage(quantized).share == 1
    result = narrow(quantized, "fp16")
    onnx.checker.check_model(result, full_check=True)
    assert error(model, result, pixels) < 0.1


def test_files(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = adapted(normed_model(tmp_path / "source.onnx", HUGE))
    monkeypatch.setattr(extremes, "MEASURED_IMAGES", 2)
    files = calibration_images(images)
    measure_file(path, tmp_path / "measured.onnx", files)
    measured = needs_float32(onnx.load(tmp_path / "measured.onnx"))
    assert "large" in measured
    quantized = quantize_file(path, tmp_path / "fp16.onnx", "fp16", Calibration(files))
    assert needs_float32(quantized.model) == measured
    assert needs_float32(quantize_file(path, tmp_path / "plain.onnx", "fp16").model) == {}
