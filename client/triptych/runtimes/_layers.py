"""The layers of a detector as its runtime runs them, whichever runtime that is."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from triptych.runtimes import RUNTIMES, Runtime, RuntimeEntry

PRECISION_NAMES = {
    **dict.fromkeys(("f32", "float", "float32", "fp32"), "fp32"),
    **dict.fromkeys(("f16", "half", "float16", "fp16"), "fp16"),
    **dict.fromkeys(("bf16", "bfloat16"), "bf16"),
    **dict.fromkeys(("i8", "u8", "int8", "uint8"), "int8"),
}
"""What Triptych calls an element type, by what the runtimes call it."""

MATRIX_KIND = re.compile(r"conv(?!ert)|gemm|matmul|matrix|fullyconnected", re.IGNORECASE)
"""What the kinds of layers with weights have in their names, whoever names them."""

REFORMATS = frozenset(
    {
        *("Reorder", "Convert", "FakeQuantize"),  # OpenVINO
        *("ReorderInput", "ReorderOutput", "Cast", "QuantizeLinear", "DequantizeLinear"),  # ONNX Runtime, and ONNX
        *("Reformat", "Quantize", "Dequantize"),  # TensorRT, which also joins tensors by reformats
    }
)
"""Kinds of layers that give values another layout or precision, and calculate nothing."""


@dataclass(frozen=True)
class Layer:
    """A layer as a runtime runs it, after fusion.

    Attributes:
        name: the runtime's.
        kind: the runtime's word for what it does.
        precision: what it calculates in: "fp32", "fp16", "bf16" or "int8"; another type by the runtime's word.
        kernel: what runs it, by the runtime's word; empty if it does not say.
        operators: what it stands for, by the names in the ONNX; none if the runtime added it.
        is_reformat: whether it gives values another layout or precision, and calculates nothing.
    """

    name: str
    kind: str
    precision: str
    kernel: str = ""
    operators: tuple[str, ...] = ()
    is_reformat: bool = False

    @property
    def has_weights(self) -> bool:
        """Whether it is of a kind that has weights: what int8 makes faster."""
        return not self.is_reformat and MATRIX_KIND.search(self.kind) is not None


class Times(NamedTuple):
    """What executions of a detector took together, in milliseconds.

    Attributes:
        ms: from the start of each to its end.
        layers_ms: of each layer.
    """

    ms: float
    layers_ms: Mapping[Layer, float]

    def without(self, earlier: Times) -> Times:
        """Return what came after some earlier times, which are part of these."""
        layers_ms = {layer: ms - earlier.layers_ms.get(layer, 0.0) for layer, ms in self.layers_ms.items()}
        return Times(self.ms - earlier.ms, layers_ms)


def added(times: Iterable[Times]) -> Times:
    """Return times together."""
    total_ms, layers_ms = 0.0, defaultdict[Layer, float](float)
    for one in times:
        total_ms += one.ms
        for layer, ms in one.layers_ms.items():
            layers_ms[layer] += ms
    return Times(total_ms, layers_ms)


class ProfiledRuntime(Runtime, Protocol):
    """A loaded detector whose runtime measures each layer."""

    def start(self) -> None:
        """Begin to measure: what was executed before was warm-up."""
        ...

    def times(self) -> Times:
        """Return what was executed since the start; then it is of no further use."""
        ...


PROFILED: Mapping[str, RuntimeEntry] = {
    name: entry._replace(class_name=f"Profiled{entry.class_name}") for name, entry in RUNTIMES.items()
}
"""`RUNTIMES` as profiled runtimes, for `open_runtime`."""
