"""ONNX Runtime's profile: read from a recorded one, and from the runtime itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import pytest

from support import ROOT
from support.detectors import SIDE, raw_model
from support.graphs import adapted
from triptych.errors import BuildError
from triptych.runtimes import onnxruntime, open_runtime
from triptych.runtimes._layers import PROFILED
from triptych.runtimes.onnxruntime import read_profile

RECORDED = ROOT / "tests" / "runtimes" / "data" / "onnxruntime_profile.json"
"""Two executions of the demo detector in int8 on ONNX Runtime 1.32: six nodes of each."""


def test_a_recorded_profile() -> None:
    first, second = read_profile(json.loads(RECORDED.read_text()))
    assert (first.ms, second.ms) == (125.151, 124.632)
    rows = {layer.name.rsplit("/", 1)[-1]: (layer, ms) for layer, ms in first.layers_ms.items()}
    assert [(layer.kind, layer.precision, layer.is_reformat, ms) for layer, ms in rows.values()] == [
        ("DequantizeLinear", "fp32", True, 0.055),
        ("DequantizeLinear", "int8", True, 0.037),
        ("FusedConv", "fp32", False, 2.463),
        ("QuantizeLinear", "fp32", True, 0.066),
        ("Add", "fp32", False, 0.077),
        ("TopK", "fp32", False, 0.223),
    ]
    assert {layer.kernel for layer in first.layers_ms} == {"CPU"}
    assert [layer.has_weights for layer in first.layers_ms] == [False, False, True, False, False, False]
    assert second.layers_ms[rows["Conv"][0]] == 1.477, "the same layer"


def event(name: str, kind: str, start: int, duration: int) -> dict[str, Any]:
    facts = {"op_name": kind, "provider": "CPUExecutionProvider"}
    tensors: dict[str, Any] = {"input_type_shape": [{"int64": [1]}], "output_type_shape": []}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": start, "dur": duration, "args": facts | tensors}


def test_a_node_with_a_graph_inside_keeps_what_is_left() -> None:
    run = {"cat": "Session", "name": "model_run", "ts": 0, "dur": 100, "args": {}}
    events = [event("add", "Add", 12, 5), event("mul", "Mul", 17, 30), event("if", "If", 10, 50), run]
    events.append(event("after", "Add", 60, 20))
    [times] = read_profile(events)
    assert {layer.name: ms for layer, ms in times.layers_ms.items()} == {
        "if": pytest.approx(0.015),
        "add": 0.005,
        "mul": 0.030,
        "after": 0.020,
    }
    assert {layer.precision for layer in times.layers_ms} == {"int64"}


def test_the_runtime_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    runtime: Any = open_runtime("onnxruntime", adapted(raw_model(tmp_path / "a.onnx")), threads=1, runtimes=PROFILED)
    pixels = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    for _ in range(3):
        runtime.detect(pixels)
    runtime.start()
    runtime.detect(pixels)
    assert list(tmp_path.glob("triptych-profile-*"))
    times = runtime.times()
    assert 0 < sum(times.layers_ms.values()) <= times.ms
    assert [layer.precision for layer in times.layers_ms if layer.has_weights] == ["fp32"]
    assert not list(tmp_path.glob("triptych-profile-*"))


def test_a_profile_that_lacks_executions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime: Any = open_runtime("onnxruntime", adapted(raw_model(tmp_path / "a.onnx")), threads=1, runtimes=PROFILED)
    runtime.detect(np.zeros((1, SIDE, SIDE, 3), np.uint8))
    monkeypatch.setattr(onnxruntime, "read_profile", lambda events: [])
    with pytest.raises(RuntimeError, match="kept 0 of 1 executions"):
        runtime.times()


def test_a_file_that_it_cannot_read(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no model")
    with pytest.raises(BuildError, match=r"onnxruntime cannot read .*a\.onnx: .*INVALID_PROTOBUF"):
        open_runtime("onnxruntime", tmp_path / "a.onnx", threads=1)


SHARED_WEIGHTS = f"""<ir_version: 8, opset_import: ["" : 17]>
detector (uint8[N, {SIDE}, {SIDE}, 3] pixels) => (float[N, K, 6] candidates)
<float[6, 6] weights, float step = {{0.05}}, int8 zero = {{0}}, float[6] steps = {{0.01, 0.01, 0.01, 0.01, 0.01, 0.01}},
 int8[6] zeros = {{0, 0, 0, 0, 0, 0}}> {{
    floats = Cast <to = 1> (pixels)
    rows = Constant <value_ints = [0, -1, 6]> ()
    table = Reshape (floats, rows)
    bytes = QuantizeLinear <axis = 1> (weights, steps, zeros)
    rounded_weights = DequantizeLinear <axis = 1> (bytes, steps, zeros)
    many = Constant <value_float = 100.0> ()
    small = Div (table, many)
    small_bytes = QuantizeLinear (small, step, zero)
    rounded = DequantizeLinear (small_bytes, step, zero)
    once = MatMul (rounded, rounded_weights)
    once_bytes = QuantizeLinear (once, step, zero)
    once_rounded = DequantizeLinear (once_bytes, step, zero)
    candidates = MatMul (once_rounded, rounded_weights)
}}"""


def test_int8_weights_that_layers_share(tmp_path: Path) -> None:
    """The head of DEIMv2 is the same behind each of its layers."""
    rng = np.random.default_rng(3)
    model = onnx.parser.parse_model(SHARED_WEIGHTS)
    weights = rng.normal(0, 0.5, (6, 6)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "weights"))
    onnx.save(model, tmp_path / "model.onnx")
    pixels = rng.integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)
    candidates = open_runtime("onnxruntime", tmp_path / "model.onnx", threads=1).detect(pixels)

    def rounded(values: Any, step: float) -> Any:
        return np.clip(np.round(values / step), -128, 127) * step

    table = rounded(pixels.reshape(2, -1, 6) / 100, 0.05)
    expected = rounded(table @ rounded(weights, 0.01), 0.05) @ rounded(weights, 0.01)
    assert np.quantile(np.abs(candidates - expected), 0.9) < 1e-3, "but for roundings at the very edge"
