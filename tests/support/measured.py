"""Runs and points of sweeps that are made up, so that their truth is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import numpy as np
import numpy.typing as npt

from triptych.contract import STAGES
from triptych.measure.attribution import NETWORK, OVERHEAD, Answer, Attribution, Breakdown, Requests
from triptych.measure.bounds import dependence
from triptych.measure.histogram import Histogram
from triptych.measure.intervals import Interval
from triptych.measure.pool import Side
from triptych.measure.ratio import FEWEST_RUNS
from triptych.measure.run_file import ClientSide, Environment, ImageSet, Run, ServedDetector, Workload
from triptych.measure.sweep import LoadLevel, Point
from triptych.measure.traces import PARTS, TracedRequest
from triptych.wire.statistics import Counters

STAGE_MS = {"preprocess": 4.0, "detector": 80.0, "postprocess": 12.0}
OTHER_MS = {OVERHEAD: 1.0, NETWORK: 3.0}
INTERVALS = 10


def made_up(
    seed: int = 0,
    noise: float = 0.1,
    requests: int = 200,
    slower: float | npt.NDArray[np.float64] = 1.0,
    queue_ms: float = 0.0,
    intervals: int = INTERVALS,
    **stage_ms: float,
) -> Run:
    """A closed loop of one user whose requests take what STAGE_MS says, or `stage_ms`; each owner varies by itself.

    It began as many minutes after another as its seed is larger.
    `noise` is the standard deviation of the logarithm of each owner's time. `slower` multiplies all of them, or each
    request by itself.
    """
    rng = np.random.default_rng(seed)
    typical = {**STAGE_MS, **stage_ms, **OTHER_MS}
    columns = {
        owner: slower * milliseconds * np.exp(rng.normal(-(noise**2) / 2, noise, requests))
        for owner, milliseconds in typical.items()
    }
    queue = np.full(requests, queue_ms)
    total = sum(columns.values()) + queue
    part = np.minimum(np.cumsum(total) / total.sum() * intervals, intervals - 1).astype(int)
    seconds = float(total.sum()) / 1000

    def owners_ms(rows: npt.NDArray[np.bool_]) -> dict[str, float]:
        means = {owner: float(values[rows].mean()) for owner, values in columns.items()}
        return {**means, "detector": means["detector"] + queue_ms}

    def interval(number: int) -> Interval:
        rows = part == number
        p50, p95, p99 = map(float, np.percentile(total[rows], (50, 95, 99)))
        length = seconds / intervals
        return Interval(
            number * length, length, int(rows.sum()), 0, float(total[rows].mean()), p50, p95, p99, owners_ms(rows)
        )

    everything = np.ones(requests, dtype=bool)
    means = owners_ms(everything)
    stages = {
        stage.name: {
            **dict.fromkeys(PARTS, 0.0),
            "infer": means[stage.name] - (queue_ms if stage.name == "detector" else 0),
        }
        for stage in STAGES
    }
    stages["detector"]["queue"] = queue_ms
    return Run(
        started=(datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc) + timedelta(minutes=seed)).isoformat(),
        workload=Workload("closed", 1, None, "constant", 1, [], 1, 1.0, seconds, ImageSet.of([b"image"])),
        environment=Environment(
            "127.0.0.1:8001", "a CPU", 2, [], {"triton": "2.51.0"}, ServedDetector(1, "python", 2, 16)
        ),
        client=ClientSide(Histogram(total), {}, {}, seconds, 1.0, 0.1),
        server={"detector": Counters(requests=requests)},
        attribution=Attribution(
            "traces", requests, {"mean": Breakdown(float(total.mean()), means[NETWORK], means[OVERHEAD], stages)}
        ),
        intervals=[interval(number) for number in range(intervals)],
        command=["python", "loadtest"],
    )


def open_loop(
    rate_per_s: float, seconds: float, service_s: npt.NDArray[np.float64], *, queue: bool = True, parts: int = INTERVALS
) -> Run:
    """A run of requests at a constant rate; one is answered after the other, or all at once where there is no queue.

    Each takes its own service time, and waits as Lindley's recursion says (1952).
    """
    due_s = np.arange(len(service_s)) / rate_per_s
    behind = np.concatenate([[0.0], np.cumsum(service_s[:-1] - 1 / rate_per_s)])
    waiting_s = behind - np.minimum.accumulate(behind) if queue else np.zeros(len(service_s))
    latencies_ms = 1000 * (waiting_s + service_s)
    at_s = due_s + latencies_ms / 1000
    part = np.minimum(at_s / seconds * parts, parts - 1).astype(int)
    plain = made_up(requests=1, intervals=1)
    means_ms = [latencies_ms[part == number].mean() if (part == number).any() else 0.0 for number in range(parts)]
    length = seconds / parts
    intervals = [
        Interval(number * length, length, int((part == number).sum()), 0, float(mean), 0, 0, 0)
        for number, mean in enumerate(means_ms)
    ]
    in_order = latencies_ms[np.argsort(at_s, kind="stable")]
    client = ClientSide(Histogram(latencies_ms), {}, {}, float(at_s.max()), 1.0, 0.1, dependence=dependence(in_order))
    return replace(with_workload(plain, loop="constant", rate_per_s=rate_per_s), client=client, intervals=intervals)


def in_turn(
    seed: int = 0, runs: int = FEWEST_RUNS, noise: float = 0.1, a: Mapping[str, Any] | None = None, **b: Any
) -> tuple[Side, Side]:
    """Runs of two sides that were taken in turn, by the arguments for `made_up` of each."""
    seeds = range(2 * runs * seed, 2 * runs * (seed + 1))
    return (
        Side("A", [made_up(one, **{"noise": noise, **(a or {})}) for one in seeds[::2]]),
        Side("B", [made_up(one, **{"noise": noise, **b}) for one in seeds[1::2]]),
    )


def alone(a: Run, b: Run) -> tuple[Side, Side]:
    """Two sides of one run each."""
    return Side("A", [a]), Side("B", [b])


def with_workload(run: Run, **changes: Any) -> Run:
    return replace(run, workload=replace(run.workload, **changes))


def with_environment(run: Run, **changes: Any) -> Run:
    return replace(run, environment=replace(run.environment, **changes))


def with_client(run: Run, **changes: Any) -> Run:
    return replace(run, client=replace(run.client, **changes))


def without_traces(run: Run) -> Run:
    intervals = [replace(interval, owners_ms={}) for interval in run.intervals]
    return replace(run, attribution=replace(run.attribution, source="statistics"), intervals=intervals)


def traced_requests(detector_ms: npt.NDArray[np.float64], **late: npt.NDArray[np.float64]) -> Requests:
    """Requests of 1 ms in pre- and postprocess, 1 ms of overhead and 2 ms of network, and the detector as given.

    `late` adds milliseconds to a stage, or to the `network`.
    """
    none = np.zeros(len(detector_ms))
    traced, answers = [], {}
    for number, detector in enumerate(detector_ms):
        infer = {"preprocess": 1.0, "detector": float(detector), "postprocess": 1.0}
        for name in infer:
            infer[name] += float(late.get(name, none)[number])
        stages = {stage.name: {**dict.fromkeys(PARTS, 0.0), "infer": infer[stage.name]} for stage in STAGES}
        server_ms = sum(infer.values()) + 1.0
        traced.append(TracedRequest(str(number), server_ms, stages, 1.0))
        answers[str(number)] = Answer(server_ms + 2.0 + float(late.get("network", none)[number]), float(number))
    return Requests.join(traced, answers)


def make_point(load: LoadLevel, answered_per_s: float, mean_ms: float, **changes: Any) -> Point:
    """A point whose p95 is twice its mean and whose p99 is three times it."""
    plain = Point(
        *(load.users, load.rate_per_s, None, None, answered_per_s),
        *(mean_ms, mean_ms, 2 * mean_ms, 3 * mean_ms),
        *(0, 1.0, {"detector": mean_ms * 0.75, "network and client": mean_ms * 0.25}, 0.1),
    )
    return replace(plain, **changes)


def users(*points: tuple[int, float, float]) -> list[Point]:
    """Points of (users, answered/s, ms)."""
    return [make_point(LoadLevel(count), answered, ms) for count, answered, ms in points]


def rates(*points: tuple[float, float]) -> list[Point]:
    """Points of (rate, ms), all of it answered, and confirmed."""
    return [confirmed(make_point(LoadLevel(rate_per_s=rate), rate, ms)) for rate, ms in points]


def confirmed(point: Point) -> Point:
    """A point of a longer run, whose p95 and share of dropped frames are bounded."""
    return replace(point, confirmed=True, bounds_ms={"p95": point.p95_ms}, independent=10_000.0)


SERVICE_MS = 20.0
"""Of the simulated server, which can answer 50 requests a second."""


def queue(load: LoadLevel) -> Point:
    """An M/M/1 queue: the mean time in it is the service time over 1 - utilisation, exponentially distributed."""
    assert load.rate_per_s
    utilisation = load.rate_per_s * SERVICE_MS / 1000
    if utilisation >= 1:
        return make_point(load, 1000 / SERVICE_MS, 5000)
    mean_ms = SERVICE_MS / (1 - utilisation)
    return make_point(load, load.rate_per_s, mean_ms, p50_ms=mean_ms * math.log(2), p95_ms=mean_ms * math.log(20))
