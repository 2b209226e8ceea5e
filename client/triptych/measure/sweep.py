"""A sweep's points: load levels from a light one to a heavy one, the knee among them, and the most within a budget."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from tritonclient.grpc import model_config_pb2

from triptych.contract import DETECTOR
from triptych.measure.bounds import BOUNDED, fewest, fewest_of_share, share_at_most
from triptych.measure.growth import growth_ms_per_s
from triptych.measure.run_file import Failure, Run
from triptych.wire.statistics import Counters

Percentile = Literal["p50", "p90", "p95", "p99"]

PERCENTILES: tuple[Percentile, ...] = get_args(Percentile)

DROPPED = "FrameDropped"
"""What a run calls the frames that a camera dropped; `triptych_loadtest.loops` raises it."""

GROWS_MS_PER_S = 1.0
"""A queue whose requests wait longer by so many milliseconds each second gets 0.1% more than the server answers. What
grows more slowly may be the machine, and no queue."""


TOO_FEW = "too few requests do not wait for each other to bound it"
"""Why a longer run does not confirm what is within the budget as far as it was measured."""


@dataclass(frozen=True)
class LoadLevel:
    """What is asked of the server: users that each wait for their answer, cameras, or requests at a rate.

    Attributes:
        users: or cameras; 0 for a rate.
        rate_per_s: requests a second; None for users and cameras.
        fps: frames a second of each camera; None for others.
    """

    users: int = 0
    rate_per_s: float | None = None
    fps: float | None = None

    @property
    def size(self) -> float:
        """Users, cameras or rate, by which loads are ordered."""
        return self.users if self.rate_per_s is None else self.rate_per_s

    @property
    def due_per_s(self) -> float:
        """Requests or frames that are due, a second; 0 for users that wait."""
        return self.users * (self.fps or 0.0) if self.rate_per_s is None else self.rate_per_s

    def __str__(self) -> str:
        if self.rate_per_s is not None:
            return f"a rate of {self.rate_per_s:g}/s"
        return f"{self.users} {'camera' if self.fps else 'user'}{'s' if self.users > 1 else ''}"


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
        """Return a copy of a detector's configuration with this setting."""
        changed = model_config_pb2.ModelConfig()
        changed.CopyFrom(config)
        if self.instances is not None:
            for group in changed.instance_group:
                group.count = self.instances
        if self.batching_delay_us is not None:
            changed.dynamic_batching.SetInParent()  # a delay of 0 is batching all the same
            del changed.dynamic_batching.preferred_batch_size[:]  # of a detector that gathers none as it is served
            changed.dynamic_batching.max_queue_delay_microseconds = self.batching_delay_us
        return changed


@dataclass(frozen=True)
class Point:
    """One load test of a sweep; milliseconds are the client's, of requests that succeeded.

    Attributes:
        users: that each waited for their answer, or cameras; 0 in an open loop.
        rate_per_s: requests a second of an open loop; None for users.
        instances: of the detector, if the sweep set them; else None: as served.
        batching_delay_us: of the detector, if the sweep set it; else None: as served.
        answered_per_s: requests that succeeded, a second.
        mean_ms, p50_ms, p95_ms, p99_ms: 0 if none succeeded.
        failures: requests that failed; a frame that a camera dropped was never sent, and is none of them.
        mean_batch: images in an execution of the detector, on average; 0 if there was none.
        owners_ms: the mean split by owner, as `triptych.measure.attribution` has them.
        busiest: the share of one core that the busiest load generator used, 0..1 and above.
        fps: frames a second of each camera; None for users and rates.
        dropped: the share of the cameras' frames that were dropped, 0..1.
        confirmed: whether this is the longer run of a search, which confirms the most within a budget.
        p90_ms: as the others; 0 in sweeps that were written before there was one.
        bounds_ms: what the percentiles are at most, with 99% confidence (`triptych.measure.bounds`); too few requests
            leave a percentile out.
        batch: images in a request.
        grows_ms_per_s: by how much the latency grew in a second, at least (the lower end of a 95% interval); 0 where
            that may be chance.
        independent: of the requests and the dropped frames, how many do not depend on each other
            (`triptych.measure.bounds.dependence`); 0 in sweeps that were written before that was known.
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
    fps: float | None = None
    dropped: float = 0.0
    confirmed: bool = False
    p90_ms: float = 0.0
    bounds_ms: dict[str, float] = field(default_factory=dict)
    grows_ms_per_s: float = 0.0
    batch: int = 1
    independent: float = 0.0

    @classmethod
    def of(cls, run: Run, load: LoadLevel, setting: Setting, *, confirmed: bool = False) -> Point:
        """Return the point that a run makes."""
        latencies, detector = run.client.latencies, run.server.get(DETECTOR.name, Counters())
        dropped = run.client.failures.get(DROPPED, Failure(0, "")).count
        frames = latencies.count + run.client.failed
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
            failures=run.client.failed - dropped + run.client.unsent,
            mean_batch=detector.mean_batch,
            owners_ms=run.attribution.breakdowns["mean"].owners(),
            busiest=run.client.busiest,
            fps=load.fps,
            dropped=dropped / frames if dropped else 0.0,
            confirmed=confirmed,
            p90_ms=latencies.percentile_ms(90),
            bounds_ms=run.client.bounds_ms,
            grows_ms_per_s=growth_ms_per_s(run.intervals),
            batch=run.workload.batch,
            independent=frames / run.client.dependence,
        )

    @property
    def load(self) -> LoadLevel:
        """What was asked of the server."""
        return LoadLevel(self.users, self.rate_per_s, self.fps)

    @property
    def dropped_at_most(self) -> float:
        """What the share of dropped frames is at most, with 99% confidence."""
        return share_at_most(self.dropped, self.independent)

    @property
    def images_per_s(self) -> float:
        """Images in the requests that succeeded, a second."""
        return self.answered_per_s * self.batch

    @property
    def rate(self) -> str:
        """Requests a second in words, and images where a request has several."""
        images = f" ({self.images_per_s:.1f} images/s)" if self.batch > 1 else ""
        return f"{self.answered_per_s:.1f} requests/s{images}"

    @property
    def users_wait(self) -> bool:
        """Whether each user waits for its answer, so that a busy server gets fewer requests."""
        return self.rate_per_s is None and self.fps is None

    @property
    def power(self) -> float:
        """Requests a second for each millisecond that one takes; 0 if none succeeded."""
        return self.answered_per_s / self.mean_ms if self.mean_ms else 0.0

    @property
    def owner(self) -> str:
        """Who has most of the mean, and how much of it; empty if none succeeded."""
        if not self.mean_ms:
            return ""
        name = max(self.owners_ms, key=lambda owner: self.owners_ms[owner])
        return f"{name} {self.owners_ms[name] / self.mean_ms:.0%}"

    def latency_ms(self, at: Percentile) -> float:
        """Return a percentile of the latency, in milliseconds."""
        return {"p50": self.p50_ms, "p90": self.p90_ms, "p95": self.p95_ms, "p99": self.p99_ms}[at]


@dataclass(frozen=True)
class Budget:
    """What an answer may take.

    Attributes:
        ms: milliseconds.
        at: the percentile that they hold for.
        max_dropped: the share of their frames that cameras may drop, 0..1; None where there are no cameras. Of 0,
            none was dropped while it was measured: no run is so long that it shows that none ever is.
    """

    ms: float
    at: Percentile
    max_dropped: float | None = None

    def __str__(self) -> str:
        dropped = "" if self.max_dropped is None else f" and at most {100 * self.max_dropped:g}% of the frames dropped"
        return f"{self.at} <= {self.ms:g} ms{dropped}"

    def broken_by(self, point: Point) -> str:
        """Say why a point is not within the budget; empty if it is.

        Within it every request is answered. At a rate, the latency does not grow either: else a short test of a rate
        that the server cannot bear could end before the queue is as long as the budget. What a longer run confirms is
        within it by the upper bounds of its percentile and of the share of dropped frames, and long enough to have
        them.
        """
        if point.failures:
            return f"{point.failures} request{'s' if point.failures > 1 else ''} failed"
        if point.dropped > (self.max_dropped or 0.0):
            return f"{point.dropped:.1%} of the frames are dropped"
        if point.rate_per_s is not None and point.grows_ms_per_s > GROWS_MS_PER_S:
            return f"the latency grows by {point.grows_ms_per_s:.0f} ms or more each second"
        latency_ms = point.latency_ms(self.at)
        if latency_ms > self.ms or not point.mean_ms:
            return f"it is {latency_ms:.1f} ms"
        return self._unsure_of(point) if point.confirmed else ""

    def _unsure_of(self, point: Point) -> str:
        if self.percent in BOUNDED:
            bound_ms = point.bounds_ms.get(self.at)
            if bound_ms is None:
                return TOO_FEW
            if bound_ms > self.ms:
                return f"it may be up to {bound_ms:.1f} ms"
        if not self.max_dropped:
            return ""
        if point.independent < fewest_of_share(self.max_dropped):
            return TOO_FEW
        at_most = point.dropped_at_most
        return f"up to {at_most:.1%} of the frames may be dropped" if at_most > self.max_dropped else ""

    @property
    def fewest(self) -> int:
        """How many requests it takes to bound what the budget is about, none of which depends on another."""
        of_percentile = fewest(self.percent) if self.percent in BOUNDED else 1
        return max(of_percentile, fewest_of_share(self.max_dropped) if self.max_dropped else 1)

    @property
    def percent(self) -> int:
        """The percentile as a number."""
        return int(self.at.removeprefix("p"))


@dataclass(frozen=True)
class Series:
    """The points of one setting of the server, by load.

    Attributes:
        label: the setting.
        points: by load, the lightest first.
        knee: which of them is the knee, as `knee` has it; None for cameras, whose dropped frames keep latency down.
        best_within_budget: which of them is the heaviest load within the budget, with no lighter one beyond it; None if
            there is none, or no budget. A rate and a number of cameras count once a longer run has confirmed them.
    """

    label: str
    points: list[Point]
    knee: int | None
    best_within_budget: int | None

    @classmethod
    def of(cls, label: str, points: Iterable[Point], budget: Budget | None) -> Series:
        """Put points, in any order, into a series."""
        by_load = sorted(points, key=lambda point: point.load.size)
        best = best_within(by_load, budget) if budget else None
        if best is not None and not by_load[best].users_wait and not by_load[best].confirmed:
            best = None
        return cls(label, by_load, None if by_load and by_load[0].fps else knee(by_load), best)

    @property
    def most_per_s(self) -> float:
        """Requests a second at the load with the most of them."""
        return max(point.answered_per_s for point in self.points)


def knee(points: Sequence[Point]) -> int | None:
    """Return which point is the knee, the one of the greatest power; None for one point, or if none was answered.

    Power is throughput over mean latency. Below its maximum the throughput grows faster than the latency, above it
    the latency grows faster. (L. Kleinrock, "Power and deterministic rules of thumb for probabilistic problems in
    computer communications", ICC 1979.)
    """
    if len(points) < 2 or not any(point.power for point in points):
        return None
    return max(range(len(points)), key=lambda index: points[index].power)


def best_within(points: Sequence[Point], budget: Budget) -> int | None:
    """Return which of the points, by load, is the heaviest within the budget before the first beyond it."""
    within = 0
    while within < len(points) and not budget.broken_by(points[within]):
        within += 1
    return within - 1 if within else None
