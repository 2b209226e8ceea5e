"""`sweep` and `plan`: the highest rate, the most cameras and the servers of a fleet, against what servers bear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count

import numpy as np

from triptych.measure.capacity import of_sweep
from triptych.measure.planning import Needs, plan
from triptych.measure.run_file import ImageSet
from triptych.measure.sweep import Budget, LoadLevel, Point, Series, Setting
from triptych.measure.sweep_file import Sweep
from triptych.measure.sweep_search import search_most
from triptych.measure.sweep_sentences import sentences
from triptych_loadtest.load_test import LoadTest
from truth.claims import Experiment, Held
from truth.served import ENVIRONMENT, IMAGES, load, measure
from truth.server import Service, VirtualServer, send

BORNE, CLOSE = "the most: not above the truth", "the most: at least 80% of it"
STATED = {BORNE: 0.95, CLOSE: 0.95}

RATE_PER_S, HEADROOM, PRICE = 500.0, 0.2, 3.0
"""What a plan is asked for."""

LONG_S = 1500.0
"""For how long a load is simulated to know whether a server truly bears it..."""

LONG_RUNS = 10
"""...in so many runs, as cameras have other phases in each."""


def load_of(level: LoadLevel, duration_s: float) -> LoadTest:
    """Return the load test of a sweep's load."""
    if level.rate_per_s:
        return load(rate_per_s=level.rate_per_s, duration_s=duration_s)
    return load(users=level.users, fps=level.fps or 0.0, duration_s=duration_s)


@dataclass
class VirtualTests:
    """Load tests of a virtual server, as a sweep asks for them."""

    server: VirtualServer
    seed: int
    duration_s: float = 10.0
    numbers: count[int] = field(default_factory=count)
    points: dict[LoadLevel, Point] = field(default_factory=dict)

    def measure(self, load: LoadLevel, confirm_s: float | None = None) -> Point:
        """Measure a load; a confirmation takes the place of what was measured of it."""
        test = load_of(load, confirm_s or self.duration_s)
        seen = measure(self.server, test, 1000 * self.seed + next(self.numbers), has_traces=False)
        self.points[load] = Point.of(seen.run, load, Setting(), confirmed=confirm_s is not None)
        return self.points[load]

    def search(self, loads: Sequence[LoadLevel], budget: Budget) -> Point | None:
        """Return the most within a budget, as a sweep finds it; None if it finds nothing."""
        search_most(loads, self.measure, budget, self.duration_s)
        (series,) = self.sweep(budget).series
        return None if series.best_within_budget is None else series.points[series.best_within_budget]

    def sweep(self, budget: Budget) -> Sweep:
        """Return what was measured as the sweep's file has it."""
        series = [Series.of("as served", self.points.values(), budget)]
        lines, command = sentences(series, budget), ["triptych", "sweep"]
        return Sweep("", ENVIRONMENT, ImageSet.of(IMAGES), budget.ms, budget.at, series, lines, command)


@lru_cache
def bears(server: VirtualServer, level: LoadLevel, budget: Budget) -> bool:
    """Return whether a server truly keeps a budget under a load, however long it goes on, at whatever phases."""
    seconds = LONG_S / LONG_RUNS
    runs = [
        send(server, Service(server, seed), load_of(level, seconds), 0.0, seconds, seed) for seed in range(LONG_RUNS)
    ]
    requests, dropped = [request for sent in runs for request in sent.requests], sum(sent.dropped for sent in runs)
    latencies_ms = [request.latency_ms for request in requests if not request.failure]
    is_in_time = bool(np.percentile(latencies_ms, 95) <= budget.ms) if latencies_ms else False
    is_whole = len(latencies_ms) == len(requests)
    return is_whole and is_in_time and dropped <= (budget.max_dropped or 0.0) * (dropped + len(requests))


@lru_cache
def highest_rate(server: VirtualServer, budget: Budget) -> float:
    """Return the highest rate that a server truly bears within a budget, requests a second, to half a percent."""
    low, high = 0.1 * server.capacity_per_s, 1.01 * server.capacity_per_s
    while high > 1.005 * low:
        middle = (low + high) / 2
        low, high = (middle, high) if bears(server, LoadLevel(rate_per_s=middle), budget) else (low, middle)
    return high


@lru_cache
def most_cameras(server: VirtualServer, fps: float, budget: Budget) -> int:
    """Return how many cameras a server truly bears within a budget."""
    return next(users for users in count(1) if not bears(server, LoadLevel(users, fps=fps), budget)) - 1


def rates(server: VirtualServer, budget: Budget, *, quick: int = 0) -> Experiment:
    """The highest rate that a sweep finds is one that the server truly bears, and not far below the highest."""

    def trial(seed: int) -> Held:
        found = VirtualTests(server, seed).search(_asked(server), budget)
        rate = found.rate_per_s if found else None
        true = highest_rate(server, budget)
        return {BORNE: None if rate is None else rate <= 1.005 * true, CLOSE: rate is not None and rate >= 0.8 * true}

    return Experiment("sweep", f"{server}, {budget}", trial, STATED, quick=quick)


def cameras(server: VirtualServer, fps: float, budget: Budget) -> Experiment:
    """The most cameras that a sweep finds are no more than the server truly bears, and not far fewer."""

    def trial(seed: int) -> Held:
        found = VirtualTests(server, seed).search([LoadLevel(1, fps=fps)], budget)
        true = most_cameras(server, fps, budget)
        return {
            BORNE: None if found is None else found.users <= true,
            CLOSE: found is not None and found.users >= 0.8 * true - 1,
        }

    return Experiment("sweep", f"{server}, cameras of {fps:g}/s, {budget}", trial, STATED)


def plans(server: VirtualServer, budget: Budget) -> Experiment:
    """The servers that a plan has bear the rate, and are not far more than do; they cost what they cost."""
    enough, few, cost = "servers: enough", "servers: at most a half too many", "cost"

    def trial(seed: int) -> Held:
        tests, true = VirtualTests(server, seed), highest_rate(server, budget)
        if tests.search(_asked(server), budget) is None:
            return dict.fromkeys((enough, few, cost))
        needs = Needs(RATE_PER_S, budget.ms, HEADROOM, price_per_hour=PRICE)
        planned = plan(needs, of_sweep(tests.sweep(budget), "the sweep", budget.ms))
        needed = RATE_PER_S / true / (1 - HEADROOM)
        return {
            enough: planned.servers * true >= RATE_PER_S,
            few: planned.servers <= math.ceil(1.5 * needed),
            cost: planned.cost_per_hour == planned.servers * PRICE,
        }

    return Experiment("plan", f"{server}, {RATE_PER_S:g}/s, {budget}", trial, {enough: 0.95, few: 0.95, cost: 1.0})


def _asked(server: VirtualServer) -> list[LoadLevel]:
    return [LoadLevel(rate_per_s=round(share * server.capacity_per_s, 1)) for share in (0.3, 0.6, 1.2)]


EXPERIMENTS = [
    rates(VirtualServer(service_ms=50, kind="constant"), Budget(1000, "p95"), quick=3),
    rates(VirtualServer(service_ms=750, kind="constant", instances=15), Budget(1000, "p95")),
    rates(VirtualServer(service_ms=20, spread=0.3), Budget(100, "p95")),
    rates(VirtualServer(service_ms=20, kind="exponential", instances=2), Budget(150, "p95")),
    rates(VirtualServer(service_ms=20, slow_factor=1.5, phase_s=1.0), Budget(100, "p95")),
    plans(VirtualServer(service_ms=20, spread=0.3), Budget(100, "p95")),
    cameras(VirtualServer(service_ms=20, spread=0.3), 5, Budget(200, "p95", 0.01)),
    cameras(VirtualServer(service_ms=20, slow_factor=1.5, phase_s=1.0), 5, Budget(200, "p95", 0.01)),
]
