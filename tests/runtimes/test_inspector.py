"""Layers as TensorRT's inspector describes them, in the forms of 8.5 to 11, and its profiler's times.

The descriptions are written after NVIDIA's documentation and outputs that others published; none was recorded here.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from triptych.runtimes._inspector import inspect, make_profiler
from triptych.runtimes._layers import Layer


class Inspector:
    """Stands for TensorRT's: it knows the formats only in a context."""

    def __init__(self, layers: list[Any]) -> None:
        self._layers = layers
        self.execution_context: Any = None

    def get_engine_information(self, form: str) -> str:
        assert form == "json"
        return json.dumps({"Layers": self._layers, "Bindings": ["pixels", "candidates"]})


def inspected(*layers: Any, context: Any = None) -> list[Layer]:
    inspector = Inspector(list(layers))
    trt = SimpleNamespace(LayerInformationFormat=SimpleNamespace(JSON="json"))
    found = inspect(trt, SimpleNamespace(create_engine_inspector=lambda: inspector), context)
    assert inspector.execution_context is context
    return found


@pytest.mark.parametrize(
    ("tensor", "precision"),
    [
        ({"Format/Datatype": "Row major linear FP16 format"}, "fp16"),  # TensorRT 8 to 10
        ({"Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}, "int8"),
        ({"Format": "Row major linear format", "Datatype": "Half"}, "fp16"),  # TensorRT 11
        ({"Format": "Row major linear format", "DataType": "BFloat16"}, "bf16"),
        ({"Format": "Row major linear format", "Datatype": "Int8"}, "int8"),
        ({"Format": "Row major linear FP32 format (kLINEAR)", "Datatype": "Float"}, "fp32"),
        ({"Format/Datatype": "N/A due to dynamic shapes"}, "unknown"),
    ],
)
def test_format_and_type_in_one_field_or_in_two(tensor: dict[str, Any], precision: str) -> None:
    [layer] = inspected({"Name": "conv", "LayerType": "Convolution", "Inputs": [tensor]}, context=object())
    assert (layer.name, layer.kind, layer.precision) == ("conv", "Convolution", precision)


@pytest.mark.parametrize(
    ("facts", "operators"),
    [
        ({"Name": "/a/Conv + PWN(PWN(/a/Sigmoid), /a/Mul)"}, ("/a/Conv", "/a/Sigmoid", "/a/Mul")),
        ({"Name": "/a/Conv || /b/Conv"}, ("/a/Conv", "/b/Conv")),
        ({"Name": "(Unnamed Layer* 0) [Shuffle]"}, ("(Unnamed Layer* 0) [Shuffle]",)),
        ({"Name": "Reformatting CopyNode for Input Tensor 0 to /a/Conv"}, ()),
        ({"Name": "__myl_Add", "Metadata": "[ONNX Layer: /a/Add]\x1e[ONNX Layer: /a/Relu]"}, ("/a/Add", "/a/Relu")),
    ],
)
def test_the_operators_of_a_layer(facts: dict[str, str], operators: tuple[str, ...]) -> None:
    [layer] = inspected({"LayerType": "CaskConvolution", **facts})
    assert layer.operators == operators


def test_a_reformat_a_convolution_and_a_layer_without_details() -> None:
    reformat, conv, plain = inspected(
        {"Name": "Reformatting CopyNode for Input Tensor 0 to a", "LayerType": "Reformat", "Origin": "REFORMAT"},
        {"Name": "a", "LayerType": "CaskConvolution", "Weights": {"Type": "Int8"}, "TacticName": "sm90_xmma_i8i8"},
        "b + c",
    )
    assert reformat.is_reformat
    assert not reformat.has_weights
    assert (conv.precision, conv.kernel, conv.has_weights, conv.is_reformat) == ("int8", "sm90_xmma_i8i8", True, False)
    assert (plain.name, plain.precision, plain.operators) == ("b + c", "?", ("b", "c"))


def test_a_profiler_adds_up_and_begins_anew() -> None:
    """On the real interface, which TensorRT for RTX has on machines without a GPU."""
    pytest.importorskip("tensorrt_rtx_libs", exc_type=ImportError)
    trt = pytest.importorskip("tensorrt_rtx_bindings", exc_type=ImportError)
    profiler = make_profiler(trt)
    assert isinstance(profiler, trt.IProfiler)
    for name, ms in (("a", 1.0), ("b", 2.0), ("a", 0.5)):
        profiler.report_layer_time(name, ms)
    assert profiler.take() == {"a": 1.5, "b": 2.0}
    assert profiler.take() == {}
    # What else a profile is made with.
    assert {"profiler", "enqueue_emits_profile", "execute_async_v3"} <= set(dir(trt.IExecutionContext))
    assert {"execution_context", "get_engine_information"} <= set(dir(trt.EngineInspector))
    assert hasattr(trt.LayerInformationFormat, "JSON")
