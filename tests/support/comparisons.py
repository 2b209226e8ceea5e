"""Comparisons of runtimes with figures that nobody measured."""

from __future__ import annotations

from triptych_build.compare.measure import SCENARIOS
from triptych_build.compare.report import Comparison, Latency, Row
from triptych_build.verify.metrics import Accuracy


def comparison(*named_latencies_ms: tuple[str, float, float]) -> Comparison:
    rows = [
        Row(
            label,
            "openvino",
            "f32",
            "CPU",
            "model.onnx",
            5.5,
            accuracy=Accuracy(map50_95, map50_95, 0.9, 0.9, {}),
            load_s=1.0,
            latency={str(scenario): Latency(latency_ms, latency_ms * 1.1, 250.0) for scenario in SCENARIOS},
        )
        for label, latency_ms, map50_95 in named_latencies_ms
    ]
    rows.append(Row("not here", "tensorrt", "f32", "GPU", "model.plan", 3.0, reason="there is no GPU"))
    where = {
        "cpu": "a CPU",
        "cores": 2,
        "gpu": None,
        "date": "2026-11-21",
        "python": "3",
        "versions": {},
        "command": "c",
    }
    return Comparison(8, 250, 5, 2, where | {"load_average_before": 0.1}, tuple(rows))
