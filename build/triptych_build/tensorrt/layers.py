"""The layers of a plan: name, kind and precision of each, from the engine's inspector or from the network."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

from triptych.contract import PIXELS
from triptych_build.tensorrt.network import layers_of
from triptych_build.tensorrt.options import Builder, Profile

PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}

UNKNOWN = ("?", "unknown")
"""The precision of a layer that the inspector says nothing of."""

KNOWN_FORMATS = {
    "int8": "int8",
    **dict.fromkeys(("bf16", "bfloat16"), "bf16"),
    **dict.fromkeys(("fp16", "half", "float16"), "fp16"),
    **dict.fromkeys(("fp32", "float"), "fp32"),
}
"""Precision by a word that the inspector describes a tensor with; the first word that is there counts."""


def layer_table(
    trt: ModuleType, logger: Any, network: Any, plan: bytes, builder: Builder, profiles: tuple[Profile, ...]
) -> tuple[list[dict[str, str]], str]:
    """Return each layer's name, kind and precision, and where they are from: "plan" or "network".

    The inspector knows them where the plan can be opened; elsewhere the network says how they were before fusion.
    """
    engine = _opened(trt, logger, plan) if builder == "tensorrt" else None
    if engine is None:
        return _network_rows(trt, network), "network"
    inspector = engine.create_engine_inspector()
    context = engine.create_execution_context()
    if context is not None:
        # With dynamic shapes it knows the formats only in a context that has its shapes.
        context.set_input_shape(PIXELS.name, (profiles[0].opt, *engine.get_tensor_shape(PIXELS.name)[1:]))
        inspector.execution_context = context
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return [_inspected_row(layer) for layer in json.loads(text)["Layers"]], "plan"


def _opened(trt: ModuleType, logger: Any, plan: bytes) -> Any:
    """Return the engine of a plan that was built here just now, so that its own code may run."""
    runtime = trt.Runtime(logger)
    if hasattr(runtime, "engine_host_code_allowed"):  # from 8.6 on
        runtime.engine_host_code_allowed = True
    return runtime.deserialize_cuda_engine(plan)


def dtype_of(tensor: Any) -> str:
    """Return a tensor's type by NumPy's name."""
    name = str(tensor.dtype.name).lower()
    return {"float": "float32", "half": "float16", "bf16": "bfloat16"}.get(name, name)


def _network_rows(trt: ModuleType, network: Any) -> list[dict[str, str]]:
    """Return the layers that compute: neither constants nor arithmetic on shapes."""
    kinds = trt.LayerType
    matrix = (kinds.CONVOLUTION, kinds.DECONVOLUTION, kinds.MATRIX_MULTIPLY)
    quantized = {layer.get_output(0).name for layer in layers_of(network) if layer.type == kinds.DEQUANTIZE}
    rows = []
    for layer in layers_of(network):
        if layer.type in (kinds.CONSTANT, kinds.QUANTIZE, kinds.DEQUANTIZE) or not layer.num_outputs:
            continue
        precision = PRECISIONS.get(dtype_of(layer.get_output(0)))
        if layer.type in matrix and layer.get_input(0).name in quantized:
            precision = "int8"  # fused with the pair before it
        if precision:
            rows.append({"name": layer.name, "kind": layer.type.name.lower(), "precision": precision})
    return rows


def _inspected_row(layer: dict[str, Any] | str) -> dict[str, str]:
    if isinstance(layer, str):
        return {"name": layer, "kind": "?", "precision": "?"}
    weights = str(layer.get("Weights", {}).get("Type", "")) if isinstance(layer.get("Weights"), dict) else ""
    # TensorRT 11 says in two fields what was one.
    fields = ("Format/Datatype", "Format", "Datatype", "DataType")
    inputs = [str(tensor.get(field, "")) for tensor in layer.get("Inputs", []) for field in fields]
    formats = " ".join([weights, *inputs]).lower()
    precision = next((name for word, name in KNOWN_FORMATS.items() if word in formats), "unknown")
    return {"name": str(layer.get("Name", "?")), "kind": str(layer.get("LayerType", "?")), "precision": precision}
