"""How fast TensorRT plans run on this GPU: latency and throughput by batch size, with copies to and from the GPU.

    python benchmarks/engines.py fp32.plan fp16.plan int8.plan

The plans take turns, so that a change of the GPU's clock favours none.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triptych.runtimes import Runtime, open_runtime

ROUNDS = 5


def latencies_ms(runtime: Runtime, pixels: NDArray[np.uint8], seconds: float) -> NDArray[np.float64]:
    """Return the times of single calls over about that long, after a warm-up."""
    for _ in range(10):
        runtime.detect(pixels)
    times, began = [], time.perf_counter()
    while (now := time.perf_counter()) - began < seconds:
        runtime.detect(pixels)
        times.append((time.perf_counter() - now) * 1e3)
    return np.array(times)


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("plans", type=Path, nargs="+", help="plans with their records next to them")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8, 16], help="batch sizes (1 8 16)")
    parser.add_argument("--seconds", type=float, default=1.0, help=f"for each of {ROUNDS} rounds (1)")
    arguments = parser.parse_args()
    runtimes = {plan: open_runtime("tensorrt", plan, threads=1) for plan in arguments.plans}
    rng = np.random.default_rng(0)
    measured: dict[tuple[Path, int], list[NDArray[np.float64]]] = {}
    for _ in range(ROUNDS):
        for size in arguments.batch:
            for plan, runtime in runtimes.items():
                pixels = rng.integers(0, 256, (size, *runtime.input_shape), dtype=np.uint8)
                measured.setdefault((plan, size), []).append(latencies_ms(runtime, pixels, arguments.seconds))
    print("| plan | precision | MB | build s | batch | p50 ms | p95 ms | images/s |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for (plan, size), rounds in measured.items():
        engine = json.loads(plan.with_name(f"{plan.name}.json").read_text())["engine"]
        times = np.concatenate(rounds)
        p50, p95 = np.percentile(times, (50, 95))
        columns = f"{plan.stem} | {engine['precision']} | {engine['plan_bytes'] / 1e6:.1f} | {engine['build_s']:.0f}"
        print(f"| {columns} | {size} | {p50:.3f} | {p95:.3f} | {1e3 * size / times.mean():.0f} |")


if __name__ == "__main__":
    main()
