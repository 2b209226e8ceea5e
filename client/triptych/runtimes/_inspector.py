"""The layers of a TensorRT plan, from the engine's inspector, and the time of each, from a profiler."""

from __future__ import annotations

import json
import re
from typing import Any

from triptych.runtimes._layers import PRECISION_NAMES, REFORMATS, Layer

UNKNOWN = ("?", "unknown")
"""The precision of a layer that the inspector says nothing of."""

_FORMATS = ("int8", "bf16", "bfloat16", "fp16", "half", "float16", "fp32", "float")
"""Words that the inspector describes a tensor with; the first one that is there says its precision."""

_METADATA = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
"""How the inspector names operators of the ONNX, from TensorRT 8.6 on."""

_BETWEEN = re.compile(r" \+ |, | \|\| ")
"""What stands between the operators in the name of a fused layer."""


def inspect(trt: Any, engine: Any, context: Any) -> list[Layer]:
    """Return the layers of an engine, in the order in which it runs them.

    With dynamic shapes the inspector knows the formats only in a context that has its shapes.

    Args:
        trt: the library.
        engine: of it; detailed only where it was built with a detailed profiling verbosity, as Triptych builds.
        context: of the engine, with its shapes; None where there is none.
    """
    inspector = engine.create_engine_inspector()
    if context is not None:
        inspector.execution_context = context
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    return [_layer(layer) for layer in json.loads(text)["Layers"]]


def _layer(facts: dict[str, Any] | str) -> Layer:
    if isinstance(facts, str):  # built without details: the name is all
        return Layer(facts, "?", "?", operators=_operators(facts, ""))
    weights = str(facts.get("Weights", {}).get("Type", "")) if isinstance(facts.get("Weights"), dict) else ""
    # TensorRT 11 says in two fields what was one.
    fields = ("Format/Datatype", "Format", "Datatype", "DataType")
    inputs = [str(tensor.get(field, "")) for tensor in facts.get("Inputs", []) for field in fields]
    formats = " ".join([weights, *inputs]).lower()
    name, kind = str(facts.get("Name", "?")), str(facts.get("LayerType", "?"))
    return Layer(
        name=name,
        kind=kind,
        precision=next((PRECISION_NAMES[word] for word in _FORMATS if word in formats), "unknown"),
        kernel=str(facts.get("TacticName", "")),
        operators=_operators(name, str(facts.get("Metadata", ""))),
        is_reformat=kind in REFORMATS,
    )


def _operators(name: str, metadata: str) -> tuple[str, ...]:
    """Return the operators of the ONNX that a layer stands for."""
    found = _METADATA.findall(metadata)
    if not found and not name.startswith("Reformatting CopyNode"):
        # PWN(a, b): fused pointwise operators.
        plain = name.replace("PWN(", "").replace(")", "") if "PWN(" in name else name
        found = _BETWEEN.split(plain)
    return tuple(dict.fromkeys(filter(None, found)))


def make_profiler(trt: Any) -> Any:
    """Make a profiler that adds up the milliseconds of each layer. `take()` gives them, by name, and begins anew."""

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self._times_ms: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self._times_ms[layer_name] = self._times_ms.get(layer_name, 0.0) + ms

        def take(self) -> dict[str, float]:
            taken, self._times_ms = self._times_ms, {}
            return taken

    return Profiler()
