"""The layers of a plan: name, kind and precision of each, from the engine's inspector or from the network."""

from __future__ import annotations

import json
from types import ModuleType
from typing import Any

from triptych.contract import PIXELS
from triptych_build.tensorrt.network import layers_of
from triptych_build.tensorrt.options import Builder, Profile

PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}


def layer_table(
    trt: ModuleType, logger: Any, network: Any, plan: bytes, builder: Builder, profiles: tuple[Profile, ...]
) -> tuple[list[dict[str, str]], str]:
    """Return each layer's name, kind and precision, and where they are from: "plan" or "network".

    The inspector knows them where the plan can be opened; elsewhere the network says how they were before fusion.
    """
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan) if builder == "tensorrt" else None
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
    formats = " ".join([weights, *(str(tensor.get("Format/Datatype", "")) for tensor in layer.get("Inputs", []))])
    known = {"int8": "int8", "fp16": "fp16", "half": "fp16", "bf16": "bf16", "fp32": "fp32", "float": "fp32"}
    precision = next((name for word, name in known.items() if word in formats.lower()), "unknown")
    return {"name": str(layer.get("Name", "?")), "kind": str(layer.get("LayerType", "?")), "precision": precision}
