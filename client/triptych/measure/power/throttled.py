"""What held a device's clocks down, and what clients saw meanwhile."""

from __future__ import annotations

from collections.abc import Collection
from statistics import median

from triptych.measure.run_file import Run


def throttled_sentences(run: Run) -> list[str]:
    """Say of each device that was throttled in how many intervals, why, and how long the tail is then."""
    devices = run.power.devices if run.power else []
    sentences = []
    for device in devices:
        throttling = device.throttling
        if throttling.intervals:
            same = [one for one in devices if one.identity.name == device.identity.name]
            which = f" ({device.identity.id})" if len(same) > 1 else ""
            tail = _tail(run, throttling.intervals)
            sentences.append(f"{device.identity.name}{which} was {throttling}{tail and f', and {tail}'}")
    return sentences


def _tail(run: Run, throttled: Collection[int]) -> str:
    """Say how long the tail is, and in which intervals; empty of runs that are pooled, or had no answer."""
    latencies = run.client.latencies
    if not latencies.count or not run.intervals:
        return ""
    ratio = f"the p99 is {latencies.percentile_ms(99) / latencies.percentile_ms(50):.1f} times the p50"
    p99_ms = {number: one.p99_ms for number, one in enumerate(run.intervals) if one.requests}
    then = [at_ms for number, at_ms in p99_ms.items() if number in throttled]
    others = [at_ms for number, at_ms in p99_ms.items() if number not in throttled]
    if not then or not others:
        return ratio
    return f"{ratio} (median of those intervals {median(then):.1f} ms, of the others {median(others):.1f} ms)"
