"""The operators of the ONNX in what runtimes call their layers."""

from __future__ import annotations

import onnx.parser
import pytest

from triptych.runtimes._layers import Layer
from triptych_build.profile.operators import Operators

MODEL = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    detector (float[1, 1, 4, 4] x, float[1, 1, 1, 1] weight, float scale, int8 zero) => (float[1, 1, 4, 4] out) {
        convolved = Conv (x, weight)
        summed = Add (convolved, x)
        active = Relu (summed)
        whole = QuantizeLinear (active, scale, zero)
        out = DequantizeLinear (whole, scale, zero)
    }""")
for at, name in enumerate(("/a/Conv", "/a/Add", "/a/Relu", "q", "dq")):
    MODEL.graph.node[at].name = name


@pytest.mark.parametrize(
    ("layer", "operators"),
    [
        pytest.param(
            Layer("/a/Conv", "Convolution", "fp32", operators=("/a/Conv", "Multiply_9", "/a/Relu")),
            ("/a/Conv", "/a/Relu"),
            id="openvino, with what it made on the way",
        ),
        pytest.param(Layer("s", "Subgraph", "int8", operators=("/a/Relu_2",)), ("/a/Relu",), id="openvino, a copy"),
        pytest.param(Layer("/a/Conv", "FusedConv", "fp32", operators=("/a/Conv",)), ("/a/Conv",), id="onnxruntime"),
        pytest.param(
            Layer("active_nchwc", "Conv", "fp32", operators=("active_nchwc",)),
            ("/a/Relu", "/a/Add", "/a/Conv"),
            id="onnxruntime, named after the output",
        ),
        pytest.param(Layer("active_nchwc", "Split", "fp32"), ("/a/Relu",), id="nothing of the kind before it"),
        pytest.param(Layer("reorder", "ReorderInput", "fp32", operators=("reorder",)), (), id="added by the runtime"),
    ],
)
def test_the_operators_of_a_layer(layer: Layer, operators: tuple[str, ...]) -> None:
    assert Operators(MODEL).recognised(layer).operators == operators


@pytest.mark.parametrize(
    ("names", "is_reformat"), [(("q", "dq"), True), (("dq_3",), True), (("/a/Relu", "q"), False), (("other",), False)]
)
def test_what_only_quantizes_is_a_reformat(names: tuple[str, ...], is_reformat: bool) -> None:
    layer = Operators(MODEL).recognised(Layer("s", "Subgraph", "int8", operators=names))
    assert layer.is_reformat == is_reformat
