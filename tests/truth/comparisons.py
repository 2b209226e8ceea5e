"""`compare`: how many times as fast, between what bounds, and what chance alone is said to be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from zlib import crc32

import numpy as np
from scipy.stats import norm

from triptych.contract import DETECTOR
from triptych.measure.comparison import Comparison, compare_sides
from triptych.measure.limits import Limits, judge
from triptych.measure.pool import Side
from triptych.measure.ratio import CONFIDENCE, FEWEST_RUNS
from triptych.measure.run_file import Run
from triptych_loadtest.load_test import LoadTest
from truth.claims import Experiment, Held
from truth.loadtests import words_of
from truth.served import load, measure
from truth.server import VirtualServer

LONG_RUNS = 100
"""Runs of a side that the true ratios are measured on."""

LATENCIES = ("mean", "p50", "p95")


@dataclass(frozen=True)
class Machine:
    """What runs differ by, though nothing was changed.

    Attributes:
        drift: standard deviation of the logarithm by which all of one run is slower or faster.
        trend: by which share the machine gets slower from run to run.
    """

    drift: float = 0.0
    trend: float = 0.0

    def __str__(self) -> str:
        words = [f"±{100 * self.drift:g}% from run to run"] if self.drift else []
        return ", ".join(words + ([f"{100 * self.trend:g}% slower each run"] if self.trend else []))


def one_run(server: VirtualServer, test: LoadTest, slower: float, seed: int, number: int) -> Run:
    """Measure a machine that is so many times as slow; the runs of two sides are numbered as they are taken."""
    drifted = replace(server, service_ms=server.service_ms * slower)
    run = measure(drifted, test, 1000 * seed + number, has_traces=False).run
    return replace(run, started=f"2026-01-02T03:{number:02d}:00+00:00")


def sides(a: VirtualServer, b: VirtualServer, machine: Machine, test: LoadTest, seed: int) -> tuple[Side, Side]:
    """Measure both sides in turn, as often as it takes."""
    count = 2 * FEWEST_RUNS
    rng = np.random.default_rng([seed, crc32(f"{a} {b} {machine} {test}".encode())])
    slower = np.exp(rng.normal(0, machine.drift, count) + machine.trend * np.arange(count))
    runs = [one_run((a, b)[number % 2], test, float(slower[number]), seed, number) for number in range(count)]
    return Side("A", runs[::2]), Side("B", runs[1::2])


@lru_cache
def true_ratios(a: VirtualServer, b: VirtualServer, machine: Machine, test: LoadTest) -> Mapping[str, float]:
    """Return by how much B is better in the long run."""
    if a == b:
        return dict.fromkeys((*LATENCIES, "requests/s", DETECTOR.name), 1.0)
    quantiles = (np.arange(LONG_RUNS) + 0.5) / LONG_RUNS
    slower = np.exp(machine.drift * norm.ppf(quantiles))
    before, after = (
        Side(name, [one_run(server, test, float(slower[number]), 4711, number) for number in range(LONG_RUNS)])
        for name, server in (("A", a), ("B", b))
    )
    return {name: value for name, (value, _, _) in _ratios(compare_sides(before, after)).items()}


def _ratios(comparison: Comparison) -> dict[str, tuple[float, float, float]]:
    speedup = comparison.owner(DETECTOR.name).speedup
    assert speedup
    ratios = {at: comparison.latency[at] for at in LATENCIES}
    ratios |= {"requests/s": comparison.rate, DETECTOR.name: speedup}
    return {name: (ratio.value, ratio.low, ratio.high) for name, ratio in ratios.items()}


def same(server: VirtualServer, machine: Machine, test: LoadTest) -> Experiment:
    """What is the same is said to differ by more than chance as rarely as is stated."""
    words = f"the same twice: {server}, {words_of(test)}, {machine}"
    return _experiment(words, server, server, machine, test, {"no loss beyond 0%": _keeps_no_loss}, quick=10)


def faster(a: VirtualServer, b: VirtualServer, machine: Machine, test: LoadTest) -> Experiment:
    """The intervals hold the true ratios, and a speed-up that is just not there is passed as rarely as is stated."""

    def lacks(comparison: Comparison) -> bool:
        needed = Limits(speedup=1.0001 * true_ratios(a, b, machine, test)["mean"])
        return any(breach.refuses for breach in judge([comparison], needed)[0])

    words = f"{a}, then {b}, {words_of(test)}, {machine}"
    return _experiment(words, a, b, machine, test, {"--min-speedup that it lacks": lacks})


def _keeps_no_loss(comparison: Comparison) -> bool:
    return not any(breach.refuses for breach in judge([comparison], Limits({"p50": 0.0}))[0])


def _experiment(
    words: str,
    a: VirtualServer,
    b: VirtualServer,
    machine: Machine,
    test: LoadTest,
    verdicts: Mapping[str, Callable[[Comparison], bool]],
    quick: int = 0,
) -> Experiment:
    def trial(seed: int) -> Held:
        comparison = compare_sides(*sides(a, b, machine, test, seed))
        true = true_ratios(a, b, machine, test)
        return {
            **{name: low <= true[name] <= high for name, (_, low, high) in _ratios(comparison).items()},
            **{name: verdict(comparison) for name, verdict in verdicts.items()},
        }

    stated = dict.fromkeys((*LATENCIES, "requests/s", DETECTOR.name), CONFIDENCE)
    stated |= dict.fromkeys(verdicts, (1 + CONFIDENCE) / 2)  # only one side of the interval can be wrong
    return Experiment("compare", words, trial, stated, quick=quick)


STEADY, DRIFTING = Machine(drift=0.005), Machine(drift=0.05)
SHORT = load(users=2, duration_s=10, warmup_s=1)
PHASES = VirtualServer(slow_factor=1.5, phase_s=2.0)

EXPERIMENTS = [
    same(VirtualServer(), STEADY, SHORT),
    same(VirtualServer(), DRIFTING, SHORT),
    same(PHASES, STEADY, SHORT),
    same(VirtualServer(kind="exponential"), DRIFTING, load(rate_per_s=30, poisson=True, duration_s=10, warmup_s=1)),
    same(VirtualServer(), Machine(drift=0.01, trend=0.01), SHORT),
    faster(VirtualServer(), VirtualServer(service_ms=10.0), DRIFTING, SHORT),
    faster(PHASES, replace(PHASES, service_ms=15.0), STEADY, SHORT),
    faster(VirtualServer(), VirtualServer(instances=2), DRIFTING, load(users=4, duration_s=10, warmup_s=1)),
]
