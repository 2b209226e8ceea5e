"""What a run may show at worst, for an exit code."""

from __future__ import annotations

from dataclasses import dataclass

from triptych.measure.remarks import BUDGET_AT
from triptych.measure.run_file import Run


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
    """Return a sentence for each limit that a run broke.

    Whatever the limits, all that was due must have been sent, and at least one request answered.
    """
    latencies = run.client.latencies
    percentiles = (
        ("p95", latencies.percentile_ms(95), limits.max_p95_ms),
        ("p99", latencies.percentile_ms(99), limits.max_p99_ms),
        (f"p{BUDGET_AT}, against the budget,", latencies.percentile_ms(BUDGET_AT), limits.budget_ms),
    )
    broken = [
        f"{name} is {value:.1f} ms; {limit:g} are allowed"
        for name, value, limit in percentiles
        if limit is not None and value > limit
    ]
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
