"""What the server says of its own time: per model, differenced over a window.

Triton's counters are cumulative. Two snapshots around a load, taken while nothing is in flight, give the time of
exactly that load, to compare with what clients saw in the same window.
"""

from __future__ import annotations

from dataclasses import dataclass

from triptych.contract import DETECTION, DETECTOR, STAGES
from triptych.measure.bounds import BOUNDED, PERCENTS, bounds_of
from triptych.measure.histogram import Histogram
from triptych.wire.statistics import Counters, Snapshot


@dataclass(frozen=True)
class Window:
    """A load seen from both sides.

    Attributes:
        latencies: what each request took by the client's clock.
        duration_s: how long the load went on.
        counters: the server's counters of each model, differenced over the load; empty where they are worth nothing.
        interrupted: why they are; see `interruption`.
    """

    latencies: Histogram
    duration_s: float
    counters: Snapshot
    interrupted: str = ""

    @classmethod
    def between(cls, before: Snapshot, after: Snapshot, latencies: Histogram, duration_s: float) -> Window:
        """Return the window between two snapshots of a server at rest, which all requests in between belong to."""
        if reason := interruption(before, after, latencies.count):
            return cls(latencies, duration_s, {}, reason)
        return cls(latencies, duration_s, difference(before, after))

    @property
    def ensemble_overhead_ms(self) -> float:
        """The mean time that the ensemble spent between its stages.

        It can come out a little below zero: Triton counts the hand-over to the next stage as a stage's output, and
        the last stage's output goes on after the ensemble has answered.
        """
        stages = sum(_counters(self, model.name).mean_ms("total") for model in STAGES)
        return _counters(self, DETECTION.name).mean_ms("total") - stages

    @property
    def network_and_client_ms(self) -> float:
        """The mean time outside the server's own clock: sending, gRPC on both sides, the client."""
        return self.latencies.mean_ms - _counters(self, DETECTION.name).mean_ms("total")


def difference(before: Snapshot, after: Snapshot) -> Snapshot:
    """Return what was counted between two snapshots; a model that was loaded in between counts from zero."""
    return {name: after[name] - before.get(name, Counters()) for name in after}


def interruption(before: Snapshot, after: Snapshot, answered: int) -> str:
    """Say which model began to count anew between two snapshots, so that their difference is not of the window.

    Whoever loads a model again, as `triptych serve` does with one whose process died, has it count from zero. Where it
    had counted less before the window than in it, only the number of answers shows that.

    Args:
        before: the first snapshot, of a server at rest.
        after: the second one.
        answered: requests that the clients had an answer to in between.

    Returns:
        A sentence; empty if every model counted on.
    """
    for name, then in before.items():
        now = after.get(name, Counters())
        if then.versions != now.versions:
            versions = [", ".join(counters.versions) or "none" for counters in (then, now)]
            return f"{name} changed while it was measured, from version {versions[0]} to {versions[1]}"
        if now.requests < then.requests:
            counts = f"it had counted {then.requests:,} requests before, and {now.requests:,} after"
            return f"{name} was loaded again while it was measured: {counts}"
        if now.requests - then.requests < answered:
            counts = f"it counted {now.requests - then.requests:,} requests, and {answered:,} were answered"
            return f"{name} was loaded again while it was measured: {counts}"
    return ""


def _counters(window: Window, model: str) -> Counters:
    return window.counters.get(model, Counters())


def summary_line(latencies: Histogram, seconds: float, dependence: float = 1.0) -> str:
    """Say requests, rate and the client's percentiles in one sentence."""
    rate = latencies.count / seconds if seconds else 0.0
    return (
        f"{latencies.count} requests in {seconds:.1f} s: {rate:.1f} requests/s, "
        f"client {percentiles_line(latencies, dependence)}"
    )


def percentiles_line(latencies: Histogram, dependence: float) -> str:
    """Say the percentiles, and what each is at most."""
    bounds_ms = bounds_of(latencies, dependence)
    parts = []
    for percent in PERCENTS:
        at = f"p{percent}"
        bound = f" (at most {bounds_ms[at]:.1f})" if at in bounds_ms else " (too few)" if percent in BOUNDED else ""
        parts.append(f"{at} {latencies.percentile_ms(percent):.1f} ms{bound}")
    return ", ".join(parts)


def batch_sentence(counters: Snapshot) -> str:
    """Say how many images the detector had at a time; empty where the server does not say."""
    batches = counters.get(DETECTOR.name, Counters()).batches
    by_size = [(size, times) for size, times in sorted(batches.items()) if times]
    executions = sum(times for _, times in by_size)
    if not by_size:
        return ""
    if len(by_size) == 1:
        return f"the detector ran {_count(executions, 'time')}, on {_count(by_size[0][0], 'image')} each time"
    mean = sum(size * times for size, times in by_size) / executions
    counts = ", ".join(f"{_count(times, 'time')} on {_count(size, 'image')}" for size, times in by_size)
    return f"the detector ran {executions} times, on {mean:.1f} images on average: {counts}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
