"""The layers of a plan: name, kind and precision of each, from the engine's inspector or from the network."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from triptych.contract import PIXELS
from triptych.runtimes._inspector import inspect
from triptych_build.tensorrt.network import layers_of
from triptych_build.tensorrt.options import Builder, Profile

PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8"}


def layer_table(
    trt: ModuleType, logger: Any, network: Any, plan: bytes, builder: Builder, profiles: tuple[Profile, ...]
) -> tuple[list[dict[str, str]], str]:
    """Return each layer's name, kind and precision, and where they are from: "plan" or "network".

    The inspector knows them where the plan can be opened; elsewhere the network says how they were before fusion.
    """
    engine = _opened(trt, logger, plan) if builder == "tensorrt" else None
    if engine is None:
        return _network_rows(trt, network), "network"
    context = engine.create_execution_context()
    if context is not None:
        context.set_input_shape(PIXELS.name, (profiles[0].opt, *engine.get_tensor_shape(PIXELS.name)[1:]))
    layers = inspect(trt, engine, context)
    return [{"name": layer.name, "kind": layer.kind, "precision": layer.precision} for layer in layers], "plan"


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
