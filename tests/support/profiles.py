"""Profiles that are made up, so that what they show is known."""

from __future__ import annotations

from triptych.measure.profile import LayerTime, Profile
from triptych.measure.run_file import Environment


def layer(
    name: str, ms: float, precision: str = "fp32", kind: str = "Conv", *, stands_for: str = "", reformat: bool = False
) -> LayerTime:
    """A layer; it stands for the operators in `stands_for`, with spaces between them, or for that of its name."""
    operators = () if reformat else tuple(stands_for.split()) or (name,)
    return LayerTime(name=name, kind=kind, precision=precision, operators=operators, is_reformat=reformat, ms=ms)


def profile(
    *layers: LayerTime,
    model: str = "fp32.onnx",
    precision: str = "fp32",
    latency_ms: float | None = None,
    runtime: str = "onnxruntime",
    batch: int = 1,
) -> Profile:
    """A profile of these layers; a call takes as long as they do unless another time is given."""
    total = sum(layer.ms for layer in layers)
    return Profile(
        started="2026-11-26T09:00:00+00:00",
        model=model,
        sha256="0" * 64,
        precision=precision,
        runtime=runtime,
        batch=batch,
        threads=1,
        runs=50,
        latency_ms=total if latency_ms is None else latency_ms,
        profiled_ms=total,
        layers=list(layers),
        environment=Environment("", "a CPU", 2, [], {"python": "3.12.1", "onnxruntime": "1.32.0"}),
        command=["triptych", "profile", "int8.onnx"],
    )


def fp32() -> Profile:
    """A float32 detector of 20 ms."""
    return profile(
        layer("stem", 8.0, stands_for="stem/Conv stem/Relu"),
        layer("neck", 6.0, stands_for="neck/Conv"),
        layer("head", 5.0, stands_for="head/Conv"),
        layer("reorder", 0.5, kind="Reorder", reformat=True),
        layer("top", 0.5, kind="TopK"),
    )


def int8() -> Profile:
    """The same in int8, no faster: the head stays in float32, the reformats and a layer that was fused take time."""
    return profile(
        layer("stem/Conv", 3.0, "int8", "QLinearConv"),
        layer("stem/Relu", 1.0, "int8", "Relu"),
        layer("neck/Conv", 2.0, "int8", "QLinearConv"),
        layer("head/Conv", 7.0),
        layer("q1", 4.0, kind="QuantizeLinear", reformat=True),
        layer("q2", 2.0, "int8", kind="DequantizeLinear", reformat=True),
        layer("top", 0.5, kind="TopK"),
        model="int8.onnx",
        precision="int8",
    )
