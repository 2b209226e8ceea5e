"""The sides of a comparison: several runs of one side as one run, so that what drifts from run to run is seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from triptych.measure.attribution import PERCENTS, Attribution, Breakdown
from triptych.measure.comparison import check_comparable
from triptych.measure.histogram import Histogram
from triptych.measure.intervals import Interval
from triptych.measure.ratio import FEWEST_SAMPLES
from triptych.measure.run_file import ClientSide, Failure, Run
from triptych.wire.statistics import Counters


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: what to call it.
        paths: the files of its runs.
        runs: its runs.
        run: all of them as one.
    """

    name: str
    paths: Sequence[Path]
    runs: Sequence[Run]
    run: Run


def pool(runs: Sequence[Run]) -> Run:
    """Put several runs of one side together; the workload and the environment are of the first.

    From three runs on, each run is one interval of the whole, so that what changes from run to run widens the
    confidence intervals; the intervals of two follow each other. Of the breakdowns only the mean is kept.

    Raises:
        ContractError: their loops differ, or one has no request that succeeded.
    """
    if len(runs) == 1:
        return runs[0]
    for number, run in enumerate(runs[1:], start=2):
        check_comparable(runs[0], run, ("the first run of a side", f"run {number} of it"))
    latencies = Histogram()
    for run in runs:
        latencies.merge(run.client.latencies)
    client = ClientSide(
        latencies=latencies,
        by_request={},
        failures=_pooled_failures(runs),
        seconds=sum(run.client.seconds for run in runs),
        cpu_s=sum(run.client.cpu_s for run in runs),
        busiest=max(run.client.busiest for run in runs),
        truncated=sum(run.client.truncated for run in runs),
    )
    whole = len(runs) >= FEWEST_SAMPLES
    intervals = [interval for run in runs for interval in ([_as_interval(run)] if whole else run.intervals)]
    first = runs[0]
    return replace(
        first,
        client=client,
        server={name: sum((run.server.get(name, Counters()) for run in runs), Counters()) for name in first.server},
        attribution=Attribution(
            first.attribution.source,
            sum(run.attribution.requests for run in runs),
            {"mean": _pooled_mean(runs)},
        ),
        intervals=intervals,
        footprint=None,
    )


def _pooled_failures(runs: Sequence[Run]) -> dict[str, Failure]:
    total: dict[str, Failure] = {}
    for run in runs:
        for kind, failure in run.client.failures.items():
            known = total.get(kind, Failure(0, failure.example))
            total[kind] = replace(known, count=known.count + failure.count)
    return total


def _pooled_mean(runs: Sequence[Run]) -> Breakdown:
    """Return the mean breakdown of all requests of all runs."""
    means = [run.attribution.breakdowns["mean"] for run in runs]
    weights = [run.attribution.requests for run in runs]

    def over(pick: Callable[[Breakdown], float]) -> float:
        return float(np.average([pick(mean) for mean in means], weights=weights))

    return Breakdown(
        over(lambda mean: mean.total_ms),
        over(lambda mean: mean.network_and_client_ms),
        over(lambda mean: mean.ensemble_overhead_ms),
        {
            stage: {part: over(lambda mean, s=stage, p=part: mean.stages[s][p]) for part in parts}  # type: ignore[misc]
            for stage, parts in means[0].stages.items()
        },
        {name: over(lambda mean, n=name: mean.client[n]) for name in means[0].client},  # type: ignore[misc]
    )


def _as_interval(run: Run) -> Interval:
    client = run.client
    p50, p95, p99 = map(client.latencies.percentile_ms, PERCENTS)
    owners_ms = run.attribution.breakdowns["mean"].owners() if run.attribution.source == "traces" else {}
    return Interval(
        0.0, client.seconds, client.latencies.count, client.failed, client.latencies.mean_ms, p50, p95, p99, owners_ms
    )
