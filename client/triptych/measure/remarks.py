"""What a run shows beside the attribution, in sentences: for the terminal and for the report."""

from __future__ import annotations

from triptych.contract import DETECTOR
from triptych.measure.attribution import NETWORK
from triptych.measure.run_file import Run
from triptych.wire.statistics import Counters

BUDGET_AT = 95
"""The percentile that a latency budget is held against."""

BUSY = 0.8
"""A load generator that uses this share of a core is near its own limit: Python runs on one core at a time."""


def batches(run: Run) -> str:
    """How many images the detector had at a time; empty where the server does not say."""
    by_size = run.server.get(DETECTOR.name, Counters()).batches
    executions = sum(by_size.values())
    if not executions:
        return ""
    mean = sum(size * times for size, times in by_size.items()) / executions
    each = ", ".join(f"{times} of {size}" for size, times in sorted(by_size.items()))
    return f"the detector ran {executions} times, on {mean:.1f} images on average ({each})"


def generator(run: Run) -> list[str]:
    """A warning where the load generator itself may be what was measured."""
    if run.client.busiest < BUSY or run.workload.loop == "video":  # tracking is such a client's own work
        return []
    return [
        f"the load generator used {run.client.busiest:.0%} of a core: it may be the bottleneck, and its own time "
        f"counts as {NETWORK}; share the load with --processes {run.workload.processes + 1}"
    ]
