"""The four scenarios of MLPerf inference: what each sends, for how long, and the one figure that it gives.

The definitions are those of the rules (mlcommons/inference_policies, "Scenarios") and of LoadGen's `mlperf.conf`. A
percentile is not taken as measured. It is LoadGen's "early stopping" estimate: the latency that the true percentile
does not exceed with 99% confidence, so that a short run pays for being short.

Pure functions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from triptych.measure.bounds import CONFIDENCE, rank
from triptych.measure.histogram import Histogram

ScenarioName = Literal["single-stream", "multi-stream", "server", "offline"]

MIN_DURATION_S = 600.0
"""How long a valid run of each scenario is, at least."""

DEFAULT_BUDGET_MS = 100.0
"""What a query of the server scenario may take: MLPerf's bound for its last detector in a data centre, RetinaNet."""


class Rules(NamedTuple):
    """What a scenario demands.

    Attributes:
        percent: the percentile of the latency; None where throughput counts.
        samples_per_query: images that are sent together.
        min_queries: queries of a valid run, at least: what early stopping needs, or the samples of `offline`.
        sends: in words.
    """

    percent: int | None
    samples_per_query: int
    min_queries: int
    sends: str


RULES: dict[ScenarioName, Rules] = {
    "single-stream": Rules(90, 1, 64, "the next image when the last one is answered"),
    "multi-stream": Rules(99, 8, 662, "the next eight images when the last eight are answered"),
    "server": Rules(99, 1, 459, "images one by one, at random times (Poisson)"),
    "offline": Rules(None, 1, 24_576, "all images at once, in any order"),
}


@dataclass(frozen=True)
class TriedRate:
    """A rate of the server scenario that was tried.

    Attributes:
        rate_per_s: queries a second.
        seconds: for how long.
        over: the share of the queries that took longer than the bound, failed, or were not sent, 0..1.
        held: whether it kept the bound.
    """

    rate_per_s: float
    seconds: float
    over: float
    held: bool


@dataclass(frozen=True)
class Scenario:
    """One scenario's result.

    Attributes:
        name: which.
        value: the figure: milliseconds of single-stream and multi-stream, queries a second of server, images a second
            of offline; None where there is none, as `problem` says.
        problem: why there is none; empty if there is one.
        measured_ms: the percentile as measured; None for offline.
        queries: how many were answered; images of offline.
        seconds: how long it was measured.
        missing: what a valid length would take, such as "12 s of 600 s"; empty if it was long enough.
        budget_ms: the bound of the server scenario, else None.
        tried: the rates that were tried in the search, in order.
    """

    name: ScenarioName
    value: float | None
    problem: str
    measured_ms: float | None
    queries: int
    seconds: float
    missing: list[str]
    budget_ms: float | None
    tried: list[TriedRate]

    @property
    def sentence(self) -> str:
        """The result, in words."""
        at = f"p{RULES[self.name].percent}"
        basis = f"{self.queries:,} {'images' if self.name == 'offline' else 'queries'} in {self.seconds:.0f} s"
        if self.value is None:
            return f"{self.name}: no result, {self.problem} ({basis})"
        if self.name == "offline":
            return f"offline: {self.value:.1f} images/s ({basis})"
        if self.name == "server":
            return f"server: {self.value:.3g} queries/s within {self.budget_ms:g} ms at {at} ({basis})"
        return f"{self.name}: {at} {self.value:.1f} ms, as measured {self.measured_ms:.1f} ms ({basis})"


def most_over(percent: float, queries: int) -> int:
    """Return how many of so many queries may take longer than a bound that shall hold for a percentile; -1: too few.

    >>> [most_over(90, 63), most_over(90, 64), most_over(99, 458), most_over(99, 459), most_over(99, 662)]
    [0, 1, -1, 0, 1]
    """
    if (at := rank(percent, queries)) is not None:
        return queries - at
    return 0 if (percent / 100) ** queries <= 1 - CONFIDENCE else -1


def estimate_ms(latencies: Histogram, percent: float) -> float | None:
    """Return LoadGen's early stopping estimate of a percentile, in milliseconds; None if there are too few queries.

    Of n queries t may be over: LoadGen takes the t-th longest latency, and needs one.
    """
    over = most_over(percent, latencies.count)
    return None if over < 1 else latencies.longest_ms_of(latencies.count - over + 1)


def keeps(over: int, queries: int, percent: float) -> bool:
    """Return whether a run with so many slow queries keeps its bound, as LoadGen decides."""
    return over <= most_over(percent, queries)


def missing(name: ScenarioName, queries: int, seconds: float) -> list[str]:
    """Return what a run lacks to be of a valid length."""
    least = RULES[name].min_queries
    what = "images" if name == "offline" else "queries"
    return [
        # A closed loop ends a moment before its time is over.
        *([f"{seconds:.0f} s of {MIN_DURATION_S:.0f} s"] if seconds < 0.999 * MIN_DURATION_S else ()),
        *([f"{queries:,} {what} of {least:,}"] if queries < least else ()),
    ]
