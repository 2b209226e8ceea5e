"""What one server bears within a latency, as a run or a sweep shows it; what shows no such figure is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from triptych.errors import MeasurementError
from triptych.measure.attribution import NETWORK
from triptych.measure.run_file import Environment, Run
from triptych.measure.sweep import Budget, Point, Series, best_within
from triptych.measure.sweep_file import Sweep
from triptych.wire.channel import is_here

WAITING = 0.1
"""Where requests wait for a free instance for less than this share of the mean, a server is far from its limit."""

GROWS = 1.1
"""Where the heaviest load of a sweep answers so many times what the one before did, the limit is beyond it."""


@dataclass(frozen=True)
class Capacity:
    """What one server bears within a latency.

    Attributes:
        images_per_s: that it answered.
        p95_ms: of them.
        at: which load that was, in a few words.
        inflight: requests in the server at a time then, waiting or worked on, on average (J. D. C. Little, "A proof for
            the queuing formula: L = λW", Operations Research 9, 1961).
        closed: whether each user waited for its answer, so that a busy server got fewer requests.
        gpus: of the server's machine, as far as the load generator ran on it.
    """

    images_per_s: float
    p95_ms: float
    at: str
    inflight: float
    closed: bool
    gpus: tuple[str, ...] = ()


def of_run(run: Run, name: str, p95_ms: float) -> Capacity:
    """Return what a server bore in a run.

    Args:
        run: the run.
        name: what to call it in a message.
        p95_ms: what the 95th percentile may be.

    Raises:
        MeasurementError: the run does not show it, or no number of servers keeps the latency.
    """
    workload, client = run.workload, run.client
    if workload.loop in ("camera", "video"):
        raise MeasurementError(
            f"{name} is of a {workload.loop}, whose frames come at its own pace; plan from users or from a rate"
        )
    if workload.shape != "constant":
        raise MeasurementError(f"the load of {name} changes over the time ({workload.shape}); plan from a constant one")
    if client.failed or not client.latencies.count:
        requests = client.failed + client.latencies.count
        raise MeasurementError(f"{client.failed} of {requests} requests failed in {name}; mend that and measure again")
    mean = run.attribution.breakdowns["mean"]
    waiting_ms = sum(parts["queue"] for parts in mean.stages.values())
    measured_ms = client.latencies.percentile_ms(95)
    if mean.total_ms - waiting_ms > p95_ms:
        raise _impossible(p95_ms, f"without any waiting an answer takes {mean.total_ms - waiting_ms:.1f} ms on average")
    if measured_ms > p95_ms:
        raise MeasurementError(
            f"the p95 of {name} is {measured_ms:.1f} ms, longer than {p95_ms:g}, so that its rate is of a load that is "
            f"too heavy; measure lighter ones with `triptych sweep --budget-ms {p95_ms:g}`"
        )
    if waiting_ms < WAITING * mean.total_ms:
        raise MeasurementError(
            f"in {name} requests waited for a free instance for {waiting_ms / mean.total_ms:.0%} of the mean, so the "
            "server was far from what it bears; measure more with `triptych sweep`"
        )
    users = f"{workload.users} user{'s' if workload.users > 1 else ''}"
    return Capacity(
        images_per_s=client.rate_per_s * workload.batch,
        p95_ms=measured_ms,
        at=f"a rate of {workload.rate_per_s:g}/s" if workload.loop != "closed" else users,
        inflight=client.rate_per_s * (mean.total_ms - mean.network_and_client_ms) / 1000,
        closed=workload.loop == "closed",
        gpus=_gpus(run.environment),
    )


def of_sweep(sweep: Sweep, name: str, p95_ms: float) -> Capacity:
    """Return what a server bears by a sweep, in the best of its settings.

    Of rates that is the highest within the latency, if a longer run confirmed it. Users that wait hold requests back
    from a busy server, so of users it is the knee, or less where the latency asks for less.

    Raises:
        MeasurementError: as `of_run`.
    """
    budget = Budget(p95_ms, "p95")
    if any(point.fps for series in sweep.series for point in series.points):
        raise MeasurementError(f"{name} is of cameras, which drop frames; plan from --users or --rates")
    within = [(series, best) for series in sweep.series if (best := best_within(series.points, budget)) is not None]
    if not within:
        raise _none_within(sweep.series[0].points[0], name, budget)
    series, best = max(within, key=lambda pair: pair[0].points[_chosen(*pair)].answered_per_s)
    if _is_beyond(series.points, best):
        heaviest = series.points[-1]
        raise MeasurementError(
            f"{name} ends before the limit: {heaviest.load} was the heaviest, kept {p95_ms:g} ms, and answered more "
            f"than the one before; measure more --{'users' if heaviest.users else 'rates'}"
        )
    point = series.points[_chosen(series, best)]
    if not point.users_wait and not point.confirmed:
        raise MeasurementError(
            f"in {name} no longer run confirms that {point.load} keeps {p95_ms:g} ms; measure it with `triptych sweep "
            f"--rates {point.load.size:g} --budget-ms {p95_ms:g}`, and higher rates with it"
        )
    setting = f", {series.label}" if len(sweep.series) > 1 else ""
    return Capacity(
        images_per_s=point.images_per_s,
        p95_ms=point.p95_ms,
        at=f"{point.load}{' (the knee)' if point.users and series.knee == _chosen(series, best) else ''}{setting}",
        inflight=point.answered_per_s * (point.mean_ms - point.owners_ms.get(NETWORK, 0.0)) / 1000,
        closed=bool(point.users),
        gpus=_gpus(sweep.environment),
    )


def _chosen(series: Series, best: int) -> int:
    """Return which point to plan from."""
    is_closed = bool(series.points[best].users)
    return min(best, series.knee) if is_closed and series.knee is not None else best


def _is_beyond(points: Sequence[Point], best: int) -> bool:
    """Return whether a heavier load than the heaviest could have answered more within the latency."""
    if best + 1 < len(points):
        return False
    return len(points) < 2 or points[-1].answered_per_s > GROWS * points[-2].answered_per_s


def _none_within(lightest: Point, name: str, budget: Budget) -> MeasurementError:
    """Return why no load of a sweep is one to plan from. Only of a user alone is it known that less does not help."""
    why = f"at {lightest.load}, the lightest load of {name}, {budget.broken_by(lightest)}"
    if lightest.failures:
        return MeasurementError(f"{why}; mend that and measure again")
    if lightest.users == 1:
        return _impossible(budget.ms, why)
    return MeasurementError(f"{why}, and {budget} was asked for; measure lighter loads, down to --users 1")


def _impossible(p95_ms: float, why: str) -> MeasurementError:
    return MeasurementError(
        f"no number of servers keeps a p95 of {p95_ms:g} ms: {why}; make an answer faster, or allow more"
    )


def _gpus(environment: Environment) -> tuple[str, ...]:
    return tuple(environment.gpus) if is_here(environment.address) else ()
