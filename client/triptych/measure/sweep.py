"""A sweep: load tests from a light load to a heavy one, what they show together, and the file that keeps them.

Pure functions on points, but for `write` and `read`. `triptych.cli.sweep` measures the points.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tritonclient.grpc import model_config_pb2

from triptych.contract import DETECTOR
from triptych.errors import ContractError
from triptych.files import atomic_write
from triptych.measure import run_file
from triptych.measure.remarks import BUSY
from triptych.measure.run_file import Environment, ImageSet, Run
from triptych.wire.statistics import Counters

VERSION = 1

PERCENTILES = ("p50", "p95", "p99")

KEEPS_UP = 0.9
"""A server that answers less than this share of an open loop's rate does not keep up: its queue grows."""

CLOSE_ENOUGH = 1.05
"""The search for the highest rate ends where the lowest rate beyond the budget is at most so many times it..."""

MOST_STEPS = 6
"""...or after so many rates."""


@dataclass(frozen=True)
class Load:
    """What is asked of the server: so many users that each wait for their answer, or requests at a rate.

    Attributes:
        users: 0 for a rate.
        rate_per_s: requests a second; None for users.
    """

    users: int = 0
    rate_per_s: float | None = None

    @property
    def size(self) -> float:
        """By which loads are in order."""
        return self.users if self.rate_per_s is None else self.rate_per_s

    def __str__(self) -> str:
        if self.rate_per_s is not None:
            return f"a rate of {self.rate_per_s:g}/s"
        return f"{self.users} user{'s' if self.users > 1 else ''}"


@dataclass(frozen=True)
class Setting:
    """What the detector is served with.

    Attributes:
        instances: of each of its instance groups; None: as served.
        batching_delay_us: how long its dynamic batching may hold a request back for others to join, in microseconds;
            None: as served.
    """

    instances: int | None = None
    batching_delay_us: int | None = None

    def __str__(self) -> str:
        parts = []
        if self.instances is not None:
            parts.append(f"{self.instances} instance{'s' if self.instances > 1 else ''}")
        if self.batching_delay_us is not None:
            parts.append(f"batching delay {self.batching_delay_us} µs")
        return ", ".join(parts) or "as served"

    def applied(self, config: model_config_pb2.ModelConfig) -> model_config_pb2.ModelConfig:
        """A copy of a detector's configuration with this setting."""
        changed = model_config_pb2.ModelConfig()
        changed.CopyFrom(config)
        if self.instances is not None:
            for group in changed.instance_group:
                group.count = self.instances
        if self.batching_delay_us is not None:
            changed.dynamic_batching.SetInParent()  # a delay of 0 is batching all the same
            changed.dynamic_batching.max_queue_delay_microseconds = self.batching_delay_us
        return changed


@dataclass(frozen=True)
class Point:
    """One load test of a sweep; milliseconds are the client's, of requests that succeeded.

    Attributes:
        users: that each waited for their answer; 0 in an open loop.
        rate_per_s: requests a second of an open loop; None for users.
        instances: of the detector, if the sweep set them; else None: as served.
        batching_delay_us: of the detector, if the sweep set it; else None: as served.
        answered_per_s: requests that succeeded, a second.
        mean_ms, p50_ms, p95_ms, p99_ms: 0 if none succeeded.
        failures: requests that failed.
        mean_batch: images in an execution of the detector, on average; 0 if there was none.
        owners_ms: the mean split by owner, as `triptych.measure.attribution` has them.
        busiest: the share of one core that the busiest load generator used, 0..1 and above.
    """

    users: int
    rate_per_s: float | None
    instances: int | None
    batching_delay_us: int | None
    answered_per_s: float
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    failures: int
    mean_batch: float
    owners_ms: dict[str, float]
    busiest: float

    @classmethod
    def of(cls, run: Run, load: Load, setting: Setting) -> Point:
        """The point that a run is."""
        latencies, detector = run.client.latencies, run.server.get(DETECTOR.name, Counters())
        return cls(
            users=load.users,
            rate_per_s=load.rate_per_s,
            instances=setting.instances,
            batching_delay_us=setting.batching_delay_us,
            answered_per_s=run.client.rate_per_s,
            mean_ms=latencies.mean_ms,
            p50_ms=latencies.percentile_ms(50),
            p95_ms=latencies.percentile_ms(95),
            p99_ms=latencies.percentile_ms(99),
            failures=run.client.failed,
            mean_batch=detector.mean_batch,
            owners_ms=run.attribution.breakdowns["mean"].owners(),
            busiest=run.client.busiest,
        )

    @property
    def load(self) -> Load:
        """What was asked."""
        return Load(self.users, self.rate_per_s)

    @property
    def power(self) -> float:
        """Requests a second for each millisecond that one takes; 0 if none succeeded."""
        return self.answered_per_s / self.mean_ms if self.mean_ms else 0.0

    @property
    def owner(self) -> str:
        """Who has most of the mean, and how much of it; empty if none succeeded."""
        if not self.mean_ms:
            return ""
        name = max(self.owners_ms, key=lambda each: self.owners_ms[each])
        return f"{name} {self.owners_ms[name] / self.mean_ms:.0%}"

    def latency_ms(self, at: str) -> float:
        """One of `PERCENTILES`."""
        return {"p50": self.p50_ms, "p95": self.p95_ms, "p99": self.p99_ms}[at]


@dataclass(frozen=True)
class Budget:
    """What an answer may take.

    Attributes:
        ms: milliseconds.
        at: the percentile that they hold for, one of `PERCENTILES`.
    """

    ms: float
    at: str

    def __str__(self) -> str:
        return f"{self.at} <= {self.ms:g} ms"

    def broken_by(self, point: Point) -> str:
        """Why a point is not within the budget; empty if it is.

        Within it every request is answered, and at a rate as many are as come: else a short test of a rate that the
        server cannot bear could end before the queue is as long as the budget.
        """
        if point.failures:
            return f"{point.failures} request{'s' if point.failures > 1 else ''} failed"
        if point.rate_per_s is not None and point.answered_per_s < KEEPS_UP * point.rate_per_s:
            return f"{point.answered_per_s:.1f} requests/s are answered"
        latency_ms = point.latency_ms(self.at)
        return f"it is {latency_ms:.1f} ms" if latency_ms > self.ms or not point.mean_ms else ""


@dataclass(frozen=True)
class Series:
    """The points of one setting of the server, by load.

    Attributes:
        label: the setting.
        points: by load, the lightest first.
        knee: which of them is the knee, as `knee` has it.
        best_within_budget: which of them is the heaviest load within the budget; None if none is or there is no budget.
    """

    label: str
    points: list[Point]
    knee: int | None
    best_within_budget: int | None

    @classmethod
    def of(cls, label: str, points: Iterable[Point], budget: Budget | None) -> Series:
        """A series of points in any order."""
        by_load = sorted(points, key=lambda point: point.load.size)
        return cls(label, by_load, knee(by_load), best_within(by_load, budget) if budget else None)

    @property
    def most_per_s(self) -> float:
        """Requests a second at the load with the most of them."""
        return max(point.answered_per_s for point in self.points)


@dataclass(frozen=True)
class Sweep:
    """Several load tests of one server.

    Attributes:
        started: when the first measurement began, UTC, ISO 8601.
        environment: where; the detector as it was served before the sweep.
        images: what was sent.
        budget_ms: what an answer may take; None if nobody said.
        budget_at: the percentile that the budget holds for.
        series: for each setting of the server.
        sentences: what they show.
        command: what was typed.
        version: of this format.
    """

    started: str
    environment: Environment
    images: ImageSet
    budget_ms: float | None
    budget_at: str
    series: list[Series]
    sentences: list[str]
    command: list[str]
    version: int = field(default=VERSION)


def knee(points: Sequence[Point]) -> int | None:
    """Where more load stops to pay: the point of the greatest power; None if it is one point, or none was answered.

    Power is throughput over mean latency. Below its maximum the throughput grows faster than the latency, above it
    the latency grows faster. (L. Kleinrock, "Power and deterministic rules of thumb for probabilistic problems in
    computer communications", ICC 1979.)
    """
    if len(points) < 2 or not any(point.power for point in points):
        return None
    return max(range(len(points)), key=lambda index: points[index].power)


def best_within(points: Sequence[Point], budget: Budget) -> int | None:
    """The heaviest load within the budget, of points by load; None if none is."""
    within = [index for index, point in enumerate(points) if not budget.broken_by(point)]
    return within[-1] if within else None


def next_rate(points: Sequence[Point], budget: Budget) -> float | None:
    """The rate to try next for the highest one within the budget, of points by rate; None if they say enough.

    It halves the gap between the highest rate within and the next one beyond, on a scale of ratios.
    """
    best = best_within(points, budget)
    if best is None or best + 1 == len(points):
        return None
    within, beyond = points[best].load.size, points[best + 1].load.size
    return float(f"{math.sqrt(within * beyond):.3g}") if beyond > CLOSE_ENOUGH * within else None


def explore(loads: Sequence[Load], measure: Callable[[Load], Point], budget: Budget | None) -> None:
    """Measure every load; then, for rates and a budget, those that close in on the highest rate within it."""
    points = [measure(load) for load in loads]
    for _ in range(MOST_STEPS if budget and loads[0].rate_per_s is not None else 0):
        points.sort(key=lambda point: point.load.size)
        if budget is None or (rate := next_rate(points, budget)) is None:
            break
        points.append(measure(Load(rate_per_s=rate)))


# --- what it shows ---------------------------------------------------------------------------------------------------


def sentences(series: Sequence[Series], budget: Budget | None) -> list[str]:
    """The knee of each series, what it has within the budget, what another setting changes, and warnings."""
    said = []
    for each in series:
        name = f"{each.label}: " if len(series) > 1 else ""
        said += [
            name + sentence for sentence in (knee_sentence(each), budget and budget_sentence(each, budget)) if sentence
        ]
    said += [effect_sentence(each, series[0], budget) for each in series[1:]]
    busy = [point for each in series for point in each.points if point.busiest >= BUSY]
    if busy:
        most = max(busy, key=lambda point: point.busiest)
        said.append(
            f"the load generator used {most.busiest:.0%} of a core at {most.load}: it may be the bottleneck, and its "
            "own time counts as network and client"
        )
    return said


def knee_sentence(series: Series) -> str:
    """Where the knee is, and what the next load brings; empty if there is none."""
    if series.knee is None:
        return ""
    at = series.points[series.knee]
    where = f"the knee is at {at.load}"
    if series.knee == 0 and at.users != 1:
        where += " or below"
    there = f"{at.answered_per_s:.1f} requests/s at p50 {at.p50_ms:.1f} ms"
    if series.knee + 1 == len(series.points):
        return f"{where} or beyond: {there}"
    after = series.points[series.knee + 1]
    gain = after.answered_per_s / at.answered_per_s - 1
    s = "" if after.users else "s"
    return (
        f"{where}: {there}; {after.load} bring{s} {abs(gain):.0%} {'more' if gain >= 0 else 'less'} "
        f"and wait{s} {after.p50_ms / at.p50_ms:.1f}x as long"
    )


def budget_sentence(series: Series, budget: Budget) -> str:
    """The heaviest load within the budget, or that there is none."""
    what = "concurrency" if series.points[0].users else "rate"
    if series.best_within_budget is None:
        lightest = series.points[0]
        return f"no {what} keeps {budget}: at {lightest.load} {budget.broken_by(lightest)}"
    best = series.points[series.best_within_budget]
    found = f"{best.users} user{'s' if best.users > 1 else ''}: {best.answered_per_s:.1f} requests/s"
    if not best.users:
        found = f"{best.rate_per_s:g} requests/s"
    if best is series.points[-1]:
        return f"every {what} up to the highest keeps {budget}, {found}; the limit is beyond"
    beyond = series.points[series.best_within_budget + 1]
    return f"the highest {what} within {budget} is {found} (at {beyond.load} {budget.broken_by(beyond)})"


def effect_sentence(series: Series, base: Series, budget: Budget | None) -> str:
    """What a setting changes against another: at most, within the budget, and at the loads that both have."""
    said = [
        f"{series.most_per_s / base.most_per_s:.2f}x the requests/s at most" if base.most_per_s else "no comparison"
    ]
    said[0] += f" ({series.most_per_s:.1f} and {base.most_per_s:.1f})"
    if budget and series.best_within_budget is not None and base.best_within_budget is not None:
        within = [each.points[each.best_within_budget or 0].answered_per_s for each in (series, base)]
        said.append(f"{within[0]:.1f} and {within[1]:.1f} within {budget}")
    pairs = [(ours, theirs) for ours in series.points for theirs in base.points if ours.load == theirs.load]
    if pairs:
        ends = dict.fromkeys((0, len(pairs) - 1))
        at = [f"{pairs[i][0].p50_ms:.1f} and {pairs[i][1].p50_ms:.1f} ms at {pairs[i][0].load}" for i in ends]
        ours, theirs = pairs[-1]
        said += [f"p50 {', '.join(at)}", f"mean batch {ours.mean_batch:.1f} and {theirs.mean_batch:.1f} there"]
    return f"{series.label} against {base.label}: {'; '.join(said)}"


# --- the file --------------------------------------------------------------------------------------------------------


def write(path: Path, sweep: Sweep) -> None:
    """Write a sweep; the file is whole or not there.

    Raises:
        ContractError: it cannot be written.
    """
    text = json.dumps(run_file.to_json(sweep), indent=1)
    try:
        with atomic_write(path) as aside:
            aside.write_text(text + "\n")
    except OSError as error:
        raise ContractError(
            f"the sweep cannot be written to {path} ({error.strerror}); choose another --out"
        ) from error


def is_sweep(path: Path) -> bool:
    """Whether a file is a sweep's, and not a run's or anything else."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return isinstance(data, dict) and "series" in data


def read(path: Path) -> Sweep:
    """Read a sweep.

    Raises:
        ContractError: there is no such file, it is no sweep, or one of another version.
    """
    try:
        data: Any = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ContractError(f"{path} is not a sweep that can be read: {error}") from error
    found = data.get("version") if isinstance(data, dict) else None
    if found != VERSION or "series" not in data:
        raise ContractError(f"{path} must be a sweep of version {VERSION}, but its version is {found!r}")
    try:
        sweep: Sweep = run_file.from_json(Sweep, data)
    except (KeyError, TypeError, ValueError) as error:
        raise ContractError(f"{path} is not a whole sweep: {type(error).__name__} {error}") from error
    return sweep
