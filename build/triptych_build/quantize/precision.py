"""The precisions that a graph can have, and how a graph shows which one it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto

from triptych.errors import BuildError

PRECISIONS = ("fp32", "fp16", "bf16", "int8")

NARROW = {
    "fp16": (TensorProto.FLOAT16, np.dtype(np.float16)),
    "bf16": (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
}
"""The element type of a narrow precision, for ONNX and for NumPy."""

MATRIX_OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The operators that int8 makes faster; what comes after the last of them decodes boxes, and keeps float32."""


NAMED = 3
"""Layers that a message names."""


def named(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are."""
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def is_quantized(model: onnx.ModelProto) -> bool:
    """Return whether a graph holds Q/DQ pairs, as it does also when exported after quantization-aware training."""
    return any(node.op_type == "QuantizeLinear" for node in model.graph.node)


def precision_of(model: onnx.ModelProto) -> str:
    """Return the precision that a graph has."""
    if is_quantized(model):
        return "int8"
    elements = {tensor.data_type for tensor in model.graph.initializer}
    return next((name for name, (element, _) in NARROW.items() if element in elements), "fp32")


def check_precision(model: onnx.ModelProto, precision: str, path: Path) -> None:
    """Make sure that a graph suits the precision that a plan is to have.

    Raises:
        BuildError: int8 without Q/DQ pairs, Q/DQ pairs without int8, or a graph narrowed already.
    """
    actual = precision_of(model)
    if precision == "int8" and actual != "int8":
        raise BuildError(
            f"{path} has no Q/DQ pairs; make them first: "
            f"`triptych quantize {path} --precision int8 --calibration IMAGES --out INT8.onnx`"
        )
    if precision != "int8" and actual == "int8":
        raise BuildError(f"{path} is quantized already (it holds Q/DQ pairs); build it with --precision int8")
    if actual in NARROW and actual != precision:
        raise BuildError(f"{path} is in {actual}, but the plan is to be {precision}; build from the float32 graph")
