"""What a run may show at worst, for an exit code."""

from __future__ import annotations

import math
from dataclasses import dataclass

from triptych.measure.bounds import needed, too_few
from triptych.measure.remarks import BUDGET_AT
from triptych.measure.run_file import ClientSide, Run


@dataclass(frozen=True)
class Limits:
    """Limits of a run; None where anything will do.

    Attributes:
        budget_ms: what an answer may take, held against the p95.
        max_p95_ms: the longest p95.
        max_p99_ms: the longest p99.
        max_failures: requests that may fail.
        min_rate_per_s: requests that must be answered a second.
    """

    budget_ms: float | None = None
    max_p95_ms: float | None = None
    max_p99_ms: float | None = None
    max_failures: int = 0
    min_rate_per_s: float | None = None


def broken_limits(limits: Limits, run: Run) -> list[str]:
    """Return a sentence for each limit that a run broke, or does not show that it kept.

    A percentile must be within its limit by its bound (`triptych.measure.bounds`): of too few requests nobody can say
    that it is. Whatever the limits, all that was due must have been sent, and at least one request answered.
    """
    latencies = run.client.latencies
    percentiles = (
        ("p95", 95, limits.max_p95_ms),
        ("p99", 99, limits.max_p99_ms),
        (f"p{BUDGET_AT}, against the budget,", BUDGET_AT, limits.budget_ms),
    )
    sentences = (
        _percentile_sentence(run.client, name, percent, limit_ms)
        for name, percent, limit_ms in percentiles
        if limit_ms is not None and latencies.count
    )
    broken = [sentence for sentence in sentences if sentence]
    if run.client.failed > limits.max_failures:
        broken.append(f"{run.client.failed} requests failed; {limits.max_failures} are allowed")
    if limits.min_rate_per_s is not None and run.client.rate_per_s < limits.min_rate_per_s:
        broken.append(f"{run.client.rate_per_s:.1f} requests/s were answered; {limits.min_rate_per_s:g} are required")
    if run.client.unsent:
        broken.append(f"{run.client.unsent} requests that were due were not sent; none may be left out")
    if run.interrupted:
        broken.append(f"{run.interrupted}; measure again")
    if not latencies.count:
        broken.append("no request succeeded")
    return broken


def _percentile_sentence(client: ClientSide, name: str, percent: int, limit_ms: float) -> str:
    """Say why a percentile is not within its limit, or not shown to be; empty if it is."""
    latency_ms, bound_ms = client.latencies.percentile_ms(percent), client.bounds_ms.get(f"p{percent}")
    seen = f"{name} is {latency_ms:.1f} ms"
    if latency_ms > limit_ms:
        return f"{seen}; {limit_ms:g} are allowed"
    if bound_ms is None:
        count = client.latencies.count
        longer_s = math.ceil(client.seconds * needed(percent, client.dependence) / count)
        few = too_few(count, percent, client.dependence)
        return f"{seen}, but that it keeps {limit_ms:g} is not shown: {few}; measure for about {longer_s} s"
    return f"{seen}, and may be up to {bound_ms:.1f}; {limit_ms:g} are allowed" if bound_ms > limit_ms else ""
