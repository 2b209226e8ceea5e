"""What the adapter adds to a graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import onnx.parser
import pytest

from support.detectors import raw_model
from support.graphs import constants_of
from triptych.errors import BuildError
from triptych_build.adapt.adapter import Overrides, adapt
from triptych_build.adapt.graph import is_own, reads


def test_only_plain_operators_are_added(tmp_path: Path) -> None:
    adapted = adapt(raw_model(tmp_path / "source.onnx"))
    assert {node.domain for node in adapted.graph.node} == {""}
    assert [value.name for value in adapted.graph.input] == ["pixels"]
    assert [value.name for value in adapted.graph.output] == ["candidates"]


def test_the_first_operator_is_the_cast_that_tensorrt_asks_for(tmp_path: Path) -> None:
    first = adapt(raw_model(tmp_path / "source.onnx")).graph.node[0]
    assert (first.op_type, list(first.input)) == ("Cast", ["pixels"])


def test_three_equal_factors_are_one(tmp_path: Path) -> None:
    path = raw_model(tmp_path / "source.onnx")
    assert constants_of(adapt(path))["triptych/scaled_by"].shape == (1, 1, 1, 1)
    by_channel = constants_of(adapt(path, Overrides(std=(1.0, 2.0, 4.0))))["triptych/scaled_by"]
    assert by_channel.ravel() == pytest.approx(np.array([1, 1 / 2, 1 / 4]) / 255)


def test_pixels_that_need_nothing_get_nothing(tmp_path: Path) -> None:
    adapted = adapt(raw_model(tmp_path / "source.onnx"), Overrides(scale=1.0))
    assert [node.op_type for node in adapted.graph.node][:4] == ["Cast", "Transpose", "Cast", "Conv"]


def test_an_output_of_a_type_that_no_tail_reads(tmp_path: Path) -> None:
    path = raw_model(tmp_path / "source.onnx")
    model = onnx.load(path)
    model.graph.node.append(onnx.helper.make_node("Cast", ["output0"], ["doubles"], to=onnx.TensorProto.DOUBLE))
    model.graph.output[0].name = "doubles"
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    onnx.save(model, path)
    with pytest.raises(BuildError, match=r"must be one of FLOAT, .*UINT8, but the model has DOUBLE"):
        adapt(path)


def test_our_own_operators_are_told_from_the_source_s(tmp_path: Path) -> None:
    adapted = adapt(raw_model(tmp_path / "source.onnx"))
    assert [node.op_type for node in adapted.graph.node if not is_own(node)] == [
        *("Conv", "Reshape", "Split", "Mul", "Abs", "Sigmoid", "Concat")
    ]
    assert not is_own(onnx.helper.make_node("QuantizeLinear", ["triptych/image"], ["triptych/image_quantized"]))


def test_what_an_inner_graph_reads_is_read() -> None:
    graph = onnx.parser.parse_graph(
        """g (bool c, float[1] x, float[1] y) => (float[1] z) {
            z = If (c) <then_branch = t () => (float[1] a) { a = Add (x, x) },
                        else_branch = e () => (float[1] b) { b = Mul (y, x) }>
        }"""
    )
    assert set(reads(graph.node[0])) == {"c", "x", "y"}
