"""A run in equal parts of its time: how it went on."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from triptych.measure.attribution import Requests
from triptych.measure.bounds import PERCENTS
from triptych.measure.histogram import Histogram


@dataclass(frozen=True)
class Interval:
    """One part of a run's time.

    Attributes:
        start_s: since the measurement began.
        seconds: how long it is.
        requests: how many were answered in it.
        failures: how many failed in it.
        mean_ms, p50_ms, p95_ms, p99_ms: latencies of those that were answered; 0 if none was.
        owners_ms: mean milliseconds by owner, of those that were traced; empty if none was.
        p90_ms: as the others; 0 too in runs that were written before there was one.
    """

    start_s: float
    seconds: float
    requests: int
    failures: int
    mean_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    owners_ms: dict[str, float] = field(default_factory=dict)
    p90_ms: float = 0.0

    @property
    def rate_per_s(self) -> float:
        """Requests answered, a second."""
        return self.requests / self.seconds if self.seconds else 0.0


class Timeline:
    """A run's time in equal parts, filled as its requests end; in memory that does not grow with their number."""

    def __init__(self, began_s: float, seconds: float, count: int) -> None:
        """Cut a run.

        Args:
            began_s: when the measurement began, in seconds of `time.monotonic`.
            seconds: how long it goes on; what ends later belongs to the last part.
            count: how many parts.
        """
        self._began_s, self._seconds = began_s, seconds
        self._latencies = [Histogram() for _ in range(count)]
        self._failures = [0] * count

    def answer(self, at_s: float, latency_ms: float) -> None:
        """Count a request that was answered then."""
        self._latencies[self._part(at_s)].add(latency_ms)

    def failure(self, at_s: float) -> None:
        """Count a request that failed then."""
        self._failures[self._part(at_s)] += 1

    def intervals(self, traced: Requests) -> list[Interval]:
        """Return the parts, with who took the time of those requests whose part in the server is known."""
        parts = np.array([self._part(at_s) for at_s in traced.at_s], dtype=np.int64)
        return [
            self._interval(number, traced, np.flatnonzero(parts == number)) for number in range(len(self._failures))
        ]

    def _part(self, at_s: float) -> int:
        count = len(self._failures)
        return min(max(int((at_s - self._began_s) / self._seconds * count), 0), count - 1)

    def _interval(self, number: int, traced: Requests, rows: npt.NDArray[np.intp]) -> Interval:
        latencies, count = self._latencies[number], len(self._failures)
        p50, p90, p95, p99 = map(latencies.percentile_ms, PERCENTS)
        return Interval(
            start_s=number * self._seconds / count,
            seconds=self._seconds / count,
            requests=latencies.count,
            failures=self._failures[number],
            mean_ms=latencies.mean_ms,
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            owners_ms=traced.breakdown(rows).owners() if len(rows) else {},
            p90_ms=p90,
        )
