"""The sides of a comparison: several runs of one side as one run, and whether they were taken in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from pathlib import Path

import numpy as np

from triptych.errors import ContractError
from triptych.measure.attribution import Attribution, Breakdown
from triptych.measure.histogram import Histogram
from triptych.measure.power.figures import pool_power
from triptych.measure.ratio import FEWEST_RUNS
from triptych.measure.run_file import ClientSide, Failure, Run
from triptych.wire.statistics import Counters


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: what to call it.
        runs: its runs, one at least.
        paths: their files, if they come from files.

    Raises:
        ContractError: one run is given twice.
    """

    name: str
    runs: Sequence[Run]
    paths: Sequence[Path] = field(default=())

    def __post_init__(self) -> None:
        for (one, run), (other, another) in combinations(zip(self.names, self.runs, strict=True), 2):
            if run == another:
                raise ContractError(
                    f"{one} and {other}, of one side, are the same run, which shows nothing that one does not; "
                    "measure again for each"
                )

    @property
    def names(self) -> list[str]:
        """What to call each run: its file, or its number."""
        return [str(path) for path in self.paths] or [f"run {number}" for number in range(1, len(self.runs) + 1)]

    @cached_property
    def run(self) -> Run:
        """All of its runs as one.

        Raises:
            ContractError: their loops differ, or one has no request that succeeded.
        """
        return pool(self.runs)


def chance_unknown(a: Side, b: Side) -> str:
    """Say why nobody can tell a difference of two sides from chance; empty where it can be told.

    What a machine does of its own lasts for minutes: of runs that were taken one side after the other, it is in one
    side alone.
    """
    missing = {side.name: FEWEST_RUNS - len(side.runs) for side in (a, b) if len(side.runs) < FEWEST_RUNS}
    if missing:
        of_each = ", ".join(f"{number} of {name}" for name, number in missing.items())
        return (
            f"it takes {FEWEST_RUNS} runs of each side, in turn, to tell a difference from chance; missing: {of_each}"
        )
    if not in_turn(a, b):
        return f"the runs of {a.name} and {b.name} were not taken in turn, so that what drifts may be the difference"
    return ""


def in_turn(a: Side, b: Side) -> bool:
    """Return whether at no time one side had had two runs more than the other."""
    runs = sorted([(run.started, 1) for run in a.runs] + [(run.started, -1) for run in b.runs])
    return bool(np.abs(np.cumsum([step for _, step in runs])).max() <= 1)


def check_comparable(a: Run, b: Run, names: tuple[str, str]) -> None:
    """Refuse runs that cannot be held against each other.

    Raises:
        ContractError: their loops differ, or one has no request that succeeded.
    """
    if a.workload.loop != b.workload.loop:
        raise ContractError(
            f"runs of the same loop were expected, but {names[0]} is {a.workload.loop} and {names[1]} is "
            f"{b.workload.loop}: their latencies mean different things; measure both in one way"
        )
    for run, name in ((a, names[0]), (b, names[1])):
        if not run.client.rate_per_s:
            raise ContractError(f"no request of {name} succeeded, so there is nothing to compare; measure it again")


def pool(runs: Sequence[Run]) -> Run:
    """Put several runs of one side together; the workload and the environment are of the first.

    Of the breakdowns only the mean is kept, and there are no intervals.

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
        unsent=sum(run.client.unsent for run in runs),
    )
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
        intervals=[],
        footprint=None,
        power=pool_power([run.power for run in runs]),
        interrupted=next((run.interrupted for run in runs if run.interrupted), ""),
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
        {
            name: over(lambda mean, n=name: mean.client.get(n, 0.0))  # type: ignore[misc]
            for name in dict.fromkeys(name for mean in means for name in mean.client)
        },
    )
