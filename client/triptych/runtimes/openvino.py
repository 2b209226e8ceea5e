"""OpenVINO on the CPU, which runs the detector of the embedded server."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as operators

from triptych.errors import BuildError
from triptych.machine import has_exact_int8
from triptych.runtimes import check_pixels
from triptych.runtimes._layers import PRECISION_NAMES, REFORMATS, Layer, Times

PRECISIONS = ("f32", "bf16")

NO_LAYERS = ("Const", "Input", "Output", "Reorder")
"""Kinds of operators that calculate nothing."""


@cache
def process_core() -> openvino.Core:
    """Return OpenVINO, the same for the whole process.

    On a CPU with AMX each one gives the thread a stack for signals, and at its end the one that was there before. Of
    two, that one may be gone by then, and the next signal ends the process (2026.4).
    """
    return openvino.Core()


class OpenVinoRuntime:
    """A detector compiled for one image at a time.

    A batch is a loop. On a CPU that costs nothing, and it keeps the shape static, which OpenVINO runs faster. The
    candidates of an image are the same to the bit in every batch.
    """

    _MORE_OPTIONS: ClassVar[dict[str, Any]] = {}

    def __init__(self, model: Path, threads: int, precision: str = "f32") -> None:
        if precision not in PRECISIONS:
            raise BuildError(f"OpenVINO's precision must be one of {', '.join(PRECISIONS)}, but got {precision!r}")
        core = process_core()
        # OpenVINO would calculate in f32 without a word.
        if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise BuildError("this CPU has no bfloat16 (avx512_bf16 or amx_bf16); use f32")
        graph = core.read_model(model)
        height, width, channels = (side.get_length() for side in list(graph.input().get_partial_shape())[1:])
        graph.reshape([1, height, width, channels])
        fuse_pairs(graph)
        self.input_shape = (height, width, channels)
        compiled = core.compile_model(
            graph,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                # With pinning, the threads of every process would share the first cores and leave the others idle.
                "ENABLE_CPU_PINNING": False,
                # OpenVINO calculates in bfloat16 by default if the CPU can. A model published as fp32 must stay fp32.
                "INFERENCE_PRECISION_HINT": precision,
                # Without these, its int8 kernels saturate sums: Q and DQ round all the same, between them are floats.
                "LP_TRANSFORMS_MODE": "YES" if has_exact_int8() else "NO",
                **self._MORE_OPTIONS,
            },
        )
        self._compiled = compiled
        self._request = compiled.create_infer_request()

    def detect(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the candidates, float32 [N, K, 6], of pixels uint8 [N, H, W, 3]."""
        check_pixels(pixels, self.input_shape)
        rows = []
        for image in np.ascontiguousarray(pixels):
            self._infer(image)
            rows.append(self._request.get_output_tensor().data[0].copy())
        return np.stack(rows)

    def _infer(self, image: NDArray[np.uint8]) -> None:
        self._request.infer([openvino.Tensor(image[None], shared_memory=True)], share_inputs=True)

    def layers(self) -> list[Layer]:
        """Return each layer that OpenVINO runs after fusion."""
        return [_layer(operator) for operator in self._compiled.get_runtime_model().get_ordered_ops()]


class ProfiledOpenVinoRuntime(OpenVinoRuntime):
    """The same, with OpenVINO's own counters of each layer."""

    _MORE_OPTIONS: ClassVar[dict[str, Any]] = {"PERF_COUNT": True}

    def __init__(self, model: Path, threads: int, precision: str = "f32") -> None:
        super().__init__(model, threads, precision)
        self._named = {layer.name: layer for layer in self.layers()}
        self._count, self._ms = 0, 0.0
        self._warm_up = Times(0.0, {})

    def start(self) -> None:
        """Begin to measure."""
        self._warm_up = self._all()

    def times(self) -> Times:
        """Return what was executed since the start."""
        return self._all().without(self._warm_up)

    def _infer(self, image: NDArray[np.uint8]) -> None:
        began = time.perf_counter()
        super()._infer(image)
        self._ms += (time.perf_counter() - began) * 1000
        self._count += 1

    def _all(self) -> Times:
        # OpenVINO gives the mean of all executions since it compiled the model, in whole microseconds.
        means_ms = {row.node_name: row.real_time.total_seconds() * 1000 for row in self._request.get_profiling_info()}
        return Times(self._ms, {self._named[_name(name)]: ms * self._count for name, ms in means_ms.items() if ms > 0})


def read_layers(model: Path) -> list[dict[str, str]]:
    """Return name, kind and precision of each layer of an adapted model as OpenVINO runs it on this machine.

    Raises:
        BuildError: it cannot run the model.
    """
    try:
        layers = OpenVinoRuntime(model, threads=1).layers()
    except RuntimeError as error:
        raise BuildError(f"openvino cannot read {model}: {error}") from error
    return [
        {"name": layer.name, "kind": layer.kind, "precision": layer.precision}
        for layer in layers
        if layer.kind not in NO_LAYERS
    ]


def _layer(operator: openvino.Node) -> Layer:
    facts = {key: str(value.astype(str)) for key, value in operator.get_rt_info().items()}
    precision, kind = facts["runtimePrecision"], facts["layerType"]
    names = [name for name in facts.get("originalLayersNames", "").split(",") if name]
    # A subgraph is what OpenVINO compiles of small operators, which it names by their kind where the ONNX does not.
    only_quantizes = kind == "Subgraph" and {name.split("_")[0] for name in names} <= REFORMATS
    return Layer(
        name=_name(operator.get_friendly_name()),
        kind=kind,
        precision=PRECISION_NAMES.get(precision, precision),
        kernel=facts.get("primitiveType", ""),
        operators=tuple(dict.fromkeys(map(_name, names))),
        is_reformat=kind in REFORMATS or only_quantizes,
    )


def _name(name: str) -> str:
    """Return the name that a layer has in the ONNX, without what OpenVINO adds."""
    return name.removesuffix("/WithoutBiases")


def fuse_pairs(graph: openvino.Model) -> None:
    """Write each Q/DQ pair on an activation as the one FakeQuantize that it means, in place.

    OpenVINO reads Q as a FakeQuantize to -128..127, and DQ as arithmetic after it. Where a CPU wants unsigned
    activations (VNNI without AMX), its low-precision transformations take those whole numbers for the range of what a
    Concat joins, and round it to steps of 1 (2025.0 to 2026.4). A FakeQuantize to the range itself leaves no doubt.
    """
    for quantize in graph.get_ordered_ops():
        if quantize.get_type_name() != "FakeQuantize" or _is_constant(quantize.input_value(0)):
            continue
        lowest, highest = (_scalar(quantize.input_value(at)) for at in (3, 4))
        if lowest is None or highest is None:
            continue
        for activation, scale, zero_point in _dequantizations(quantize):
            limits = ((lowest - zero_point) * scale, (highest - zero_point) * scale)
            fused = operators.fake_quantize(
                *(quantize.input_value(at) for at in range(3)),
                *(operators.constant(np.float32(limit)) for limit in limits),
                quantize.get_levels(),
            )
            fused.set_friendly_name(activation.get_friendly_name())
            for reader in activation.output(0).get_target_inputs():
                reader.replace_source_output(fused.output(0))


def _dequantizations(quantize: openvino.Node) -> Iterator[tuple[openvino.Node, float, float]]:
    """Yield what turns whole numbers into an activation again, its scale and zero point, where each is one number."""
    for whole in _readers(quantize, "Convert"):
        for widened in _readers(whole, "Convert"):
            multiplied = [(node, 0.0) for node in _readers(widened, "Multiply")]
            for shifted in _readers(widened, "Subtract"):
                zero_point = _scalar(shifted.input_value(1))
                if zero_point is not None:
                    multiplied += [(node, zero_point) for node in _readers(shifted, "Multiply")]
            for activation, zero_point in multiplied:
                scale = _scalar(activation.input_value(1))
                if scale is not None:
                    yield activation, scale, zero_point


def _readers(node: openvino.Node, kind: str) -> list[openvino.Node]:
    nodes = [reader.get_node() for reader in node.output(0).get_target_inputs()]
    return [reader for reader in nodes if reader.get_type_name() == kind]


def _is_constant(value: openvino.Output) -> bool:
    return str(value.get_node().get_type_name()) == "Constant"


def _scalar(value: openvino.Output) -> float | None:
    """Return the one number that a constant holds, itself or converted; None for anything else."""
    if value.get_node().get_type_name() == "Convert":
        value = value.get_node().input_value(0)
    if not _is_constant(value):
        return None
    data = value.get_node().get_data()
    return float(data.item()) if data.size == 1 else None
