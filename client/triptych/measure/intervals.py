"""A run in equal parts of its time: how it went on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from triptych.measure.attribution import Requests


@dataclass(frozen=True)
class Answer:
    """One request that succeeded.

    Attributes:
        latency_ms: what the client waited for it.
        at_s: when its answer came, in seconds of `time.time`, which several machines share.
    """

    latency_ms: float
    at_s: float


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

    @property
    def rate_per_s(self) -> float:
        """Requests answered, a second."""
        return self.requests / self.seconds if self.seconds else 0.0


def cut(
    answers: Mapping[str, Answer],
    failed_at_s: Sequence[float],
    traced: Requests,
    began_s: float,
    seconds: float,
    count: int,
) -> list[Interval]:
    """Cut a run into `count` equal parts; what was answered after its end belongs to the last.

    Args:
        answers: by the request's id.
        failed_at_s: when the others failed, in seconds of `time.time`.
        traced: the requests whose part in the server is known.
        began_s: when the measurement began, in seconds of `time.time`.
        seconds: how long it went on.
        count: how many parts.
    """

    def part_of(times_s: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        at = (np.asarray(times_s, dtype=np.float64) - began_s) / seconds * count
        return np.clip(at, 0, count - 1).astype(np.int64)

    latencies = np.array([answer.latency_ms for answer in answers.values()], dtype=np.float64)
    parts = part_of([answer.at_s for answer in answers.values()])
    failed = part_of(failed_at_s)
    traced_parts = part_of([answers[request_id].at_s for request_id in traced.request_ids])
    intervals = []
    for number in range(count):
        here = latencies[parts == number]
        rows = np.flatnonzero(traced_parts == number)
        p50, p95, p99 = map(float, np.percentile(here, (50, 95, 99))) if len(here) else (0.0, 0.0, 0.0)
        intervals.append(
            Interval(
                start_s=number * seconds / count,
                seconds=seconds / count,
                requests=len(here),
                failures=int((failed == number).sum()),
                mean_ms=float(here.mean()) if len(here) else 0.0,
                p50_ms=p50,
                p95_ms=p95,
                p99_ms=p99,
                owners_ms=traced.breakdown(rows).owners() if len(rows) else {},
            )
        )
    return intervals
