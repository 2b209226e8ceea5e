"""Which precision a graph has, and which plan it suits."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from triptych.errors import BuildError
from triptych_build.adapt.onnx_file import read_onnx
from triptych_build.quantize.narrow import narrow
from triptych_build.quantize.precision import check_precision, precision_of


def test_what_precision_a_graph_has(deep: Path, quantized_deep: onnx.ModelProto) -> None:
    model = read_onnx(deep)
    assert precision_of(model) == "fp32"
    assert precision_of(narrow(model, "fp16")) == "fp16"
    assert precision_of(narrow(model, "bf16")) == "bf16"
    assert precision_of(quantized_deep) == "int8"


@pytest.mark.parametrize(
    ("actual", "asked", "message"),
    [
        ("fp32", "int8", r"x.onnx has no Q/DQ pairs; make them first: `triptych quantize x.onnx"),
        ("int8", "fp32", r"x.onnx is quantized already .*--precision int8"),
        ("int8", "fp16", r"x.onnx is quantized already .*--precision int8"),
        ("fp16", "fp32", r"x.onnx is in fp16, but the plan is to be fp32; build from the float32 graph"),
        ("fp16", "bf16", r"x.onnx is in fp16, but the plan is to be bf16"),
        ("bf16", "int8", r"x.onnx has no Q/DQ pairs"),
    ],
)
def test_a_graph_that_does_not_suit_a_precision(
    deep: Path, quantized_deep: onnx.ModelProto, actual: str, asked: str, message: str
) -> None:
    model = read_onnx(deep)
    model = {"fp32": model, "int8": quantized_deep}.get(actual) or narrow(model, actual)
    with pytest.raises(BuildError, match=message):
        check_precision(model, asked, Path("x.onnx"))


def test_graphs_that_suit_their_precision(deep: Path, quantized_deep: onnx.ModelProto) -> None:
    for precision in ("fp32", "fp16", "bf16"):
        check_precision(read_onnx(deep), precision, deep)
    check_precision(quantized_deep, "int8", deep)
    check_precision(narrow(read_onnx(deep), "fp16"), "fp16", deep)
