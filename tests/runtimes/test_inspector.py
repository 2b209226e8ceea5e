"""The precision of a layer, as the engine's inspector writes it."""

from __future__ import annotations

from typing import Any

import pytest

from triptych_build.tensorrt.layers import _inspected_row


@pytest.mark.parametrize(
    ("tensor", "precision"),
    [
        ({"Format/Datatype": "Row major linear FP16 format"}, "fp16"),  # TensorRT 10
        ({"Format": "Row major linear format", "Datatype": "Half"}, "fp16"),  # TensorRT 11
        ({"Format": "Row major linear format", "DataType": "BFloat16"}, "bf16"),
        ({"Format": "Row major linear format", "Datatype": "Int8"}, "int8"),
        ({"Format": "Row major linear FP32 format (kLINEAR)", "Datatype": "Float"}, "fp32"),
        ({"Format": "Row major linear format"}, "unknown"),
    ],
)
def test_format_and_type_in_one_field_or_in_two(tensor: dict[str, Any], precision: str) -> None:
    layer = {"Name": "conv", "LayerType": "Convolution", "Inputs": [tensor]}
    assert _inspected_row(layer) == {"name": "conv", "kind": "Convolution", "precision": precision}
